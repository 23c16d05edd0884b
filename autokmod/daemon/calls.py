"""How a call is answered: by whom, for whom, and with which error. bus.py says what pydbus does wrong there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import gi
from gi.repository import Gio, GLib
from pydbus.registration import ObjectWrapper

from autokmod import journal
from autokmod.daemon.authorize import Action
from autokmod.daemon.polkit import Question, ask_uid
from autokmod.daemon.pools import Leave, Pools, TooMuch
from autokmod.errors import AutokmodError
from autokmod.events import Event

NAME = "io.github.autokmod.AutoKmod1"
ERROR_PREFIX = f"{NAME}.Error."
PROPERTIES = "org.freedesktop.DBus.Properties"
READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"
ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
UNKNOWN_PROPERTY = "org.freedesktop.DBus.Error.UnknownProperty"
ASK_TIMEOUT_MS = 5000
LEAKS_INVOCATIONS = gi.version_info < (3, 49)

Method = TypeVar("Method", bound=Callable[..., Any])

log = journal.get()


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


def alone(method: Method) -> Method:
    """Threaded, and so costly that each user may have one at a time."""
    method.is_alone = True  # type: ignore[attr-defined]
    return threaded(method)


def changes(action: Action, *, unless: Callable[..., bool] = lambda *_: False) -> Callable[[Method], Method]:
    """Threaded, and only for those who are permitted the action. `unless`: arguments with which nothing is changed."""

    def mark(method: Method) -> Method:
        method.action, method.unless = action, unless  # type: ignore[attr-defined]
        return threaded(method)

    return mark


# ---- calls ---------------------------------------------------------------------------------------


class Wrapper(ObjectWrapper):  # type: ignore[misc]
    """pydbus's wrapper of the object, but for how a call is answered."""

    __slots__ = ("_pools",)

    def __init__(self, service: object, interfaces: Any, pools: Pools) -> None:
        super().__init__(service, interfaces)
        self._pools = pools

    def call_method(
        self, connection: Any, sender: str, _path: str, interface: str, method: str, parameters: Any, invocation: Any
    ) -> None:
        call = _Incoming(self, connection, sender, interface, method, parameters.unpack(), invocation)
        function: Any = getattr(type(self.object), method, None) if interface != PROPERTIES else None
        action = getattr(function, "action", None)
        if action is not None and not function.unless(*call.arguments):
            Question(connection, sender, action, interactive=_may_ask(invocation)).ask(call.decided)
        elif getattr(function, "is_threaded", False) or (interface == PROPERTIES and method == "Set"):
            is_alone = getattr(function, "is_alone", False)
            ask_uid(connection, sender, lambda uid: call.known(uid, alone=is_alone))
        else:
            call.run()

    def change(self, call: _Incoming) -> None:
        self._pools.change(call.run)

    def read(self, call: _Incoming, uid: int, *, alone: bool) -> None:
        """Raises TooMuch."""
        self._pools.read(uid, call.method, call.run, alone=alone)

    def answer(self, call: _Incoming) -> Callable[[], None]:
        """What sends the answer."""
        caller, invocation = Caller(call.connection, call.sender), call.invocation
        try:
            if call.interface == PROPERTIES:
                reply = self._property(caller, call.method, *call.arguments)
            else:
                reply = self._call(caller, call.interface, call.method, call.arguments)
        except Exception as exc:  # a boundary: every exception becomes a D-Bus error
            error = _wire_error(exc, call.what)
            return lambda: invocation.return_dbus_error(*error)
        return lambda: invocation.return_value(reply)

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


@dataclass(frozen=True, slots=True)
class _Incoming:
    """One call, until it is answered."""

    wrapper: Wrapper
    connection: Any
    sender: str
    interface: str
    method: str
    arguments: tuple[Any, ...]
    invocation: Any

    @property
    def what(self) -> str:
        return f"{self.interface}.{self.method}"

    def run(self, leave: Leave = lambda: None) -> None:
        answer = self.wrapper.answer(self)
        leave()
        answer()
        _release(self.invocation)

    def decided(self, refusal: AutokmodError | None) -> None:
        """Whether the caller may change something."""
        if refusal is None:
            self.wrapper.change(self)
        else:
            self._refuse(refusal)

    def known(self, uid: int | None, *, alone: bool) -> None:
        """Who wants to read."""
        if uid is None:
            return self._refuse(_Named(ACCESS_DENIED, "nobody knows who calls"))
        try:
            return self.wrapper.read(self, uid, alone=alone)
        except TooMuch as exc:
            return self._refuse(exc)

    def _refuse(self, exc: Exception) -> None:
        self.invocation.return_dbus_error(*_wire_error(exc, self.what))
        _release(self.invocation)


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
