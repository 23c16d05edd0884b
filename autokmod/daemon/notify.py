"""sd_notify(3): readiness, status and watchdog, without a library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from autokmod import journal

log = journal.get()


def notify(text: str, env: Mapping[str, str] = os.environ) -> None:
    """Tell systemd, if it asked to be told: "READY=1", "STATUS=…", "STOPPING=1", "WATCHDOG=1", one a line."""
    address = env.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.sendall(text.encode())
    except OSError as exc:
        log.warning(f"systemd cannot be told {text.splitlines()[0]!r}: {exc.strerror}")


def watchdog_s(env: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How often to send WATCHDOG=1: twice in the time that systemd waits. None: systemd does not watch us."""
    text, watched = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0:
        return None
    if watched and watched != str(pid if pid is not None else os.getpid()):
        return None
    return int(text) / 2e6
