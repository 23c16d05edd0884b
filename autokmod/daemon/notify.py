"""sd_notify(3): readiness, status and watchdog, without a library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from autokmod import journal

SEND_LIMIT_S = 5.0

log = journal.get()


def notify(text: str, env: Mapping[str, str] = os.environ) -> None:
    """Tell systemd, if it asked to be told: "READY=1", "STOPPING=1", "WATCHDOG=1"."""
    _send(text, env, SEND_LIMIT_S)


def notify_status(text: str, env: Mapping[str, str] = os.environ) -> None:
    """One line for `systemctl status`. Not worth waiting for: it is dropped where systemd does not keep up."""
    _send(f"STATUS={text.partition(chr(10))[0]}", env, 0.0)


def _send(text: str, env: Mapping[str, str], limit_s: float) -> None:
    address = env.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(limit_s)
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.sendall(text.encode())
    except OSError as exc:
        if limit_s:
            log.warning(f"systemd cannot be told {text!r}: {exc}")


def watchdog_s(env: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How often to send WATCHDOG=1: twice in the time that systemd waits. None: systemd does not watch us."""
    text, watched = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0:
        return None
    if watched and watched != str(pid if pid is not None else os.getpid()):
        return None
    return int(text) / 2e6
