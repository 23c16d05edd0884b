"""With calls.py the one shim around pydbus 0.6: everything it does wrong for a system service is put right here.

* An error is named after AutokmodError.dbus_name, not after a Python class, and is no traceback in the journal.
* A method marked `threaded` runs on a pool: it may look at the disk while the loop goes on; `alone`, once at a time for
  each user. Which pool, and how many calls a user may have there: pools.py.
* PyGObject before 3.49 keeps every invocation for ever; it is released.
* Properties are not written, but for those that a service calls `writable`, and those by root. The name is taken after
  the objects are there, and nobody may take it away.
* A method that asks for `caller` learns who calls.
* A method that `changes` something is called only when root calls, or polkit said yes; see polkit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gi.repository import Gio, GLib
from pydbus import SystemBus
from pydbus.generic import signal as signal  # the descriptor that makes an attribute a D-Bus signal
from pydbus.registration import ObjectRegistration

from autokmod.daemon.calls import NAME as NAME
from autokmod.daemon.calls import Wrapper
from autokmod.daemon.pools import Pools
from autokmod.errors import AutokmodError

PATH = "/io/github/autokmod/AutoKmod1"
INTERFACE = f"{NAME}.Manager"


class BusUnavailable(AutokmodError):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the system bus cannot be used: {self.why}"


class NameTaken(AutokmodError):
    def __str__(self) -> str:
        return f"{NAME} is taken: another autokmodd serves this bus"


@contextmanager
def _unless_closed(connection: Any) -> Iterator[None]:
    """To a connection that is gone nothing can be told, and nothing needs to be."""
    try:
        yield
    except GLib.Error:
        if not connection.is_closed():
            raise


class _Speaker:
    """Stands in for the bus where pydbus emits signals."""

    def __init__(self, connection: Any) -> None:
        self.con = self
        self._connection = connection
        self.register_object, self.unregister_object = connection.register_object, connection.unregister_object

    def emit_signal(self, *args: Any) -> None:
        with _unless_closed(self._connection):
            self._connection.emit_signal(*args)


# ---- the connection ------------------------------------------------------------------------------


class Bus:
    """Raises BusUnavailable."""

    def __init__(self) -> None:
        try:
            self._bus = SystemBus()
        except GLib.Error as exc:
            raise BusUnavailable(exc.message) from exc
        # GLib would end the process with SIGTERM, which looks like being asked to stop.
        self._bus.con.set_exit_on_close(False)
        self._pools = Pools()
        self._published: list[Any] = []

    @property
    def connection(self) -> Any:
        return self._bus.con

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Called on the loop's thread when the bus goes away."""
        self._bus.con.connect("closed", lambda *_: callback())

    def add(self, service: object, xml: str, path: str = PATH) -> None:
        interfaces = Gio.DBusNodeInfo.new_for_xml(xml).interfaces
        wrapper = Wrapper(service, interfaces, self._pools)
        speaker = _Speaker(self._bus.con)
        self._published.append(ObjectRegistration(speaker, path, interfaces, wrapper, own_wrapper=True))

    def take_name(self) -> None:
        """After the objects are there: who sees the name finds them.

        Raises NameTaken; BusUnavailable where the bus does not let us have the name.
        """
        try:
            self._published.append(self._bus.request_name(NAME, allow_replacement=False))
        except RuntimeError as exc:
            raise NameTaken from exc
        except GLib.Error as exc:
            raise BusUnavailable(exc.message) from exc

    def close(self) -> None:
        while self._published:
            with _unless_closed(self._bus.con):
                self._published.pop().__exit__(None, None, None)
        self._pools.close()
