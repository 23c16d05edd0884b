"""The one shim around pydbus 0.6: everything it does wrong for a system service is put right here.

* An error is named after AutokmodError.dbus_name, not after a Python class, and is no traceback in the journal.
* A method marked `threaded` runs on a pool: it may look at the disk while the loop goes on.
* PyGObject before 3.49 keeps every invocation for ever; it is released.
* Properties are not written, but for those that a service calls `writable`, and those by root. The name is taken after
  the objects are there, and nobody may take it away.
* A method that asks for `caller` learns who calls.
* A method that `changes` something is called only when root calls, or polkit said yes; see polkit.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import gi
from gi.repository import Gio, GLib
from pydbus import SystemBus
from pydbus.generic import signal as signal  # the descriptor that makes an attribute a D-Bus signal
from pydbus.registration import ObjectRegistration, ObjectWrapper

from autokmod import journal
from autokmod.daemon.authorize import Action
from autokmod.daemon.polkit import Question
from autokmod.errors import AutokmodError
from autokmod.events import Event

NAME = "io.github.autokmod.AutoKmod1"
PATH = "/io/github/autokmod/AutoKmod1"
INTERFACE = f"{NAME}.Manager"
ERROR_PREFIX = f"{NAME}.Error."
PROPERTIES = "org.freedesktop.DBus.Properties"
READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"
ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
UNKNOWN_PROPERTY = "org.freedesktop.DBus.Error.UnknownProperty"
THREADS = 4
ASK_TIMEOUT_MS = 5000
LEAKS_INVOCATIONS = gi.version_info < (3, 49)

Method = TypeVar("Method", bound=Callable[..., Any])

log = journal.get()


class BusUnavailable(AutokmodError):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the system bus cannot be used: {self.why}"


class NameTaken(AutokmodError):
    def __str__(self) -> str:
        return f"{NAME} is taken: another autokmodd serves this bus"


class Caller:
    def __init__(self, connection: Any, sender: str) -> None:
        self._connection, self._sender = connection, sender

    @property
    def uid(self) -> int:
        """Asks the bus daemon: not on the loop's thread."""
        reply = self._connection.call_sync(
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "GetConnectionUnixUser",
            GLib.Variant("(s)", (self._sender,)),
            GLib.VariantType("(u)"),
            Gio.DBusCallFlags.NONE,
            ASK_TIMEOUT_MS,
            None,
        )
        return int(reply.unpack()[0])


def threaded(method: Method) -> Method:
    """The method may block: it is called on a pool, several at a time."""
    method.is_threaded = True  # type: ignore[attr-defined]
    return method


def changes(action: Action, *, unless: Callable[..., bool] = lambda *_: False) -> Callable[[Method], Method]:
    """Threaded, and only for those who are permitted the action. `unless`: arguments with which nothing is changed."""

    def mark(method: Method) -> Method:
        method.action, method.unless = action, unless  # type: ignore[attr-defined]
        return threaded(method)

    return mark


# ---- calls ---------------------------------------------------------------------------------------


class _Wrapper(ObjectWrapper):  # type: ignore[misc]
    """pydbus's wrapper of the object, but for how a call is answered."""

    __slots__ = ("_pool",)

    def __init__(self, service: object, interfaces: Any, pool: ThreadPoolExecutor) -> None:
        super().__init__(service, interfaces)
        self._pool = pool

    def call_method(
        self, connection: Any, sender: str, _path: str, interface: str, method: str, parameters: Any, invocation: Any
    ) -> None:
        arguments = parameters.unpack()
        function: Any = getattr(type(self.object), method, None) if interface != PROPERTIES else None

        def run() -> None:
            try:
                self._answer(Caller(connection, sender), interface, method, arguments, invocation)
            finally:
                _release(invocation)

        def decided(refusal: AutokmodError | None) -> None:
            if refusal is None:
                self._pool.submit(run)
            else:
                invocation.return_dbus_error(*_wire_error(refusal, f"{interface}.{method}"))
                _release(invocation)

        action = getattr(function, "action", None)
        if action is not None and not function.unless(*arguments):
            Question(connection, sender, action, interactive=_may_ask(invocation)).ask(decided)
        elif getattr(function, "is_threaded", False) or (interface == PROPERTIES and method == "Set"):
            self._pool.submit(run)
        else:
            run()

    def _answer(self, caller: Caller, interface: str, method: str, arguments: tuple[Any, ...], invocation: Any) -> None:
        try:
            if interface == PROPERTIES:
                reply = self._property(caller, method, *arguments)
            else:
                reply = self._call(caller, interface, method, arguments)
        except Exception as exc:  # a boundary: every exception becomes a D-Bus error
            invocation.return_dbus_error(*_wire_error(exc, f"{interface}.{method}"))
        else:
            invocation.return_value(reply)

    def _write(self, caller: Caller, name: str, value: Any) -> None:
        if name not in getattr(self.object, "writable", ()):
            raise _Named(READ_ONLY, "properties cannot be written")
        if caller.uid != 0:
            raise _Named(ACCESS_DENIED, "only root may write this")
        self.object.write(name, value)

    def _call(self, caller: Caller, interface: str, method: str, arguments: tuple[Any, ...]) -> Any:
        function = getattr(self.object, method)
        wants_caller = "caller" in inspect.signature(function).parameters
        result = function(*arguments, caller=caller) if wants_caller else function(*arguments)
        shapes = self.outargs[f"{interface}.{method}"]
        results = () if not shapes else (result,) if len(shapes) == 1 else result
        return GLib.Variant(f"({''.join(shapes)})", results)

    def _property(self, caller: Caller, method: str, interface: str, *rest: Any) -> Any:
        if method == "Set":
            return self._write(caller, *rest)
        if method == "GetAll":
            return GLib.Variant("(a{sv})", (self.GetAll(interface),))
        if f"{interface}.{rest[0]}" not in self.readable_properties:
            raise _Named(UNKNOWN_PROPERTY, f"no property {rest[0]}")
        return GLib.Variant("(v)", (self.Get(interface, rest[0]),))


def _may_ask(invocation: Any) -> bool:
    """Whether the caller agreed that a person is asked for a password."""
    return bool(invocation.get_message().get_flags() & Gio.DBusMessageFlags.ALLOW_INTERACTIVE_AUTHORIZATION)


def _release(invocation: Any) -> None:
    """Once it is answered."""
    if LEAKS_INVOCATIONS:
        invocation._unref()


class _Named(Exception):
    """An error whose full name D-Bus gives."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name, self.text = name, text


def _wire_error(exc: Exception, what: str) -> tuple[str, str]:
    if isinstance(exc, _Named):
        return exc.name, exc.text
    if isinstance(exc, AutokmodError):
        if "." in exc.dbus_name:  # one of D-Bus's own
            return exc.dbus_name, str(exc)
        return ERROR_PREFIX + exc.dbus_name, str(exc)
    if isinstance(exc, OSError):
        log.error(f"{what}: {exc}")
        return f"{ERROR_PREFIX}Failed", str(exc)
    log.exception(f"{what}: {exc!r}", kind=Event.INTERNAL_ERROR)
    return f"{ERROR_PREFIX}Failed", "internal error: see the journal of autokmodd"


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
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="dbus")
        self._published: list[Any] = []

    @property
    def connection(self) -> Any:
        return self._bus.con

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Called on the loop's thread when the bus goes away."""
        self._bus.con.connect("closed", lambda *_: callback())

    def add(self, service: object, xml: str, path: str = PATH) -> None:
        interfaces = Gio.DBusNodeInfo.new_for_xml(xml).interfaces
        wrapper = _Wrapper(service, interfaces, self._pool)
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
        self._pool.shutdown(cancel_futures=True)
