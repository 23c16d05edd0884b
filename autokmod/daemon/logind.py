"""systemd-logind: who goes down has to wait a moment, and tells us that it is about to.

A `delay` inhibitor is held while modules directories and initrds are being changed: logind waits for it, some seconds
at most. With shutdown.block a `block` inhibitor is held while a job runs: those who ask logind without being root are
refused until it is released. Jobs that follow one another have shutdown.block_limit_s for that together, and what is
tried again later has none. Where there is no logind nothing is held, and everything goes on as it would: whatever is
interrupted is done again.

pydbus knows no file descriptors, so the calls are GDBus's own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from gi.repository import Gio, GLib

from autokmod import journal
from autokmod.config import Config
from autokmod.model import Job

NAME, PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
MANAGER = f"{NAME}.Manager"
TIMEOUT_MS = 5000

log = journal.get()


class Inhibitor:
    """Lasts as long as its descriptor is open."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        self._lock = threading.Lock()

    def release(self) -> None:
        """Any thread may, and more than once."""
        with self._lock:
            fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class Logind:
    """`inhibit` and what is built on it may wait for logind: not on the loop's thread."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._until: float | None = None  # on the monotonic clock: when blocking ends, for all jobs in a row

    def on_shutdown(self, callback: Callable[[bool], None]) -> None:
        """Called on the loop's thread: True when the machine is about to go down, False when it stays after all."""
        self._connection.signal_subscribe(
            NAME,
            MANAGER,
            "PrepareForShutdown",
            PATH,
            None,
            Gio.DBusSignalFlags.NONE,
            lambda *signal: callback(bool(signal[5].unpack()[0])),
        )

    @contextlib.contextmanager
    def publishing(self, krel: str) -> Iterator[None]:
        inhibitor = self.inhibit(f"Kernel modules of {krel} are being put in place", "delay")
        try:
            yield
        finally:
            if inhibitor:
                inhibitor.release()

    @contextlib.contextmanager
    def working(self, config: Config, job: Job) -> Iterator[None]:
        """On the worker's thread, as is `rest`."""
        left = self._left_s(config, job)
        inhibitor = self.inhibit(f"Kernel modules for {job.krel} are being made", "block") if left > 0 else None
        if inhibitor is None:
            yield
            return
        timer = threading.Timer(left, inhibitor.release)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            inhibitor.release()

    def rest(self) -> None:
        """There is nothing to do: the next job begins a row."""
        self._until = None

    def _left_s(self, config: Config, job: Job) -> float:
        """How long may still be blocked."""
        if not config.shutdown.block:
            return 0.0
        if self._until is None and job.attempt == 0:
            self._until = time.monotonic() + config.shutdown.block_limit_s
        return self._until - time.monotonic() if self._until is not None else 0.0

    def inhibit(self, why: str, mode: str) -> Inhibitor | None:
        """None where it is not to be had: there is no logind, or the machine is already on its way down."""
        arguments = GLib.Variant("(ssss)", ("shutdown", "autokmod", why, mode))
        kind, flags = GLib.VariantType("(h)"), Gio.DBusCallFlags.NONE
        try:
            reply, fds = self._connection.call_with_unix_fd_list_sync(
                NAME, PATH, MANAGER, "Inhibit", arguments, kind, flags, TIMEOUT_MS, None, None
            )
        except GLib.Error as exc:
            log.debug(f"logind does not wait for us: {exc.message}")
            return None
        return Inhibitor(fds.get(reply.unpack()[0]))
