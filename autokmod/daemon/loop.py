"""The GLib main loop, as far as the daemon needs it. With bus.py the only file here that imports gi.

GLib prints an exception of a callback and may drop its source: every callback is guarded here, so that what goes
wrong in one is logged and the loop goes on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from gi.repository import GLib

from autokmod import journal
from autokmod.events import Event

try:  # PyGObject ≥ 3.52
    from gi.repository import GLibUnix

    _add_fd, _add_signal = GLibUnix.fd_add_full, GLibUnix.signal_add
except (ImportError, AttributeError):
    _add_fd, _add_signal = GLib.unix_fd_add_full, GLib.unix_signal_add

log = journal.get()


def _guarded(callback: Callable[..., None], args: tuple[Any, ...], *, again: bool) -> Callable[..., bool]:
    def call(*_: Any) -> bool:
        try:
            callback(*args)
        except Exception as exc:  # a boundary: GLib would swallow it
            log.exception(f"{getattr(callback, '__qualname__', callback)}: {exc!r}", kind=Event.INTERNAL_ERROR)
        return again

    return call


class Loop:
    def __init__(self) -> None:
        self._loop = GLib.MainLoop()
        self.exit_code = 0

    def run(self) -> int:
        self._loop.run()
        return self.exit_code

    def quit(self, exit_code: int = 0) -> None:
        self.exit_code = max(self.exit_code, exit_code)
        self._loop.quit()

    def post(self, callback: Callable[..., None], *args: Any) -> None:
        """Have it called on the loop's thread, in the order of posting. Any thread may ask."""
        GLib.idle_add(_guarded(callback, args, again=False), priority=GLib.PRIORITY_DEFAULT)

    def after(self, seconds: float, callback: Callable[..., None]) -> int:
        """Once. The result is for `forget`."""
        return int(GLib.timeout_add(round(seconds * 1000), _guarded(callback, (), again=False)))

    def on_readable(self, fd: int, callback: Callable[[], None]) -> int:
        return int(_add_fd(GLib.PRIORITY_DEFAULT, fd, GLib.IOCondition.IN, _guarded(callback, (), again=True)))

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})  # one that comes in between is kept, not fatal
        signal.signal(number, signal.SIG_DFL)  # PyGObject puts its own handler where Python's stands for SIGINT
        _add_signal(GLib.PRIORITY_HIGH, number, _guarded(callback, (), again=True))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def forget(self, source: int) -> None:
        GLib.source_remove(source)
