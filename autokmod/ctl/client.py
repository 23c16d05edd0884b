"""autokmodctl's side of the bus: the one place in it that imports gi. Every call has a time limit."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from gi.repository import Gio, GLib

from autokmod import errors
from autokmod.errors import AutokmodError, DaemonUnavailable
from autokmod.run import beside

NAME = "io.github.autokmod.AutoKmod1"
PATH = "/io/github/autokmod/AutoKmod1"
INTERFACE = f"{NAME}.Manager"
ERROR_PREFIX = f"{NAME}.Error."
TIMEOUT_MS = 25_000
PERSON_MS = 300_000  # polkit may be asking somebody for a password
LOGIND = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
LOGIND_TIMEOUT_MS = 5000
ASK = Gio.DBusCallFlags.NO_AUTO_START  # who only looks does not start a daemon
CHANGE = Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION

HERE = "here"
OWNER = ("org.freedesktop.DBus", "org.freedesktop.DBus", "NameOwnerChanged", "/org/freedesktop/DBus")

# The peer is not there, does not answer, or there is no bus at all.
_ABSENT = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.Spawn.ChildExited",
)
_REFUSED = (
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
    f"{ERROR_PREFIX}NotAuthorized",
)


class RemoteError(AutokmodError):
    """What the daemon said, with the exit code of the error that it named."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name, self.message = name, message
        self.exit_code = _exit_code(name.removeprefix(ERROR_PREFIX))

    def __str__(self) -> str:
        return self.message


class Refused(AutokmodError):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message or "not permitted: try it as root"


def _exit_code(name: str) -> int:
    known = (v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, AutokmodError))
    return next((cls.exit_code for cls in known if cls.dbus_name == name), 1)


def reconcile(krels: list[str], *, force: bool) -> list[int]:
    """The jobs' numbers. Raises DaemonUnavailable, Refused, RemoteError, as all calls here."""
    (ids,) = _change("Reconcile", GLib.Variant("(asb)", (krels, force)), "(au)")
    return list(ids)


def list_jobs() -> list[dict[str, Any]]:
    (jobs,) = _call("ListJobs", None, "(aa{sv})", ASK, TIMEOUT_MS)
    return list(jobs)


def get_job(number: int) -> dict[str, Any]:
    (job,) = _call("GetJob", GLib.Variant("(u)", (number,)), "(a{sv})", ASK, TIMEOUT_MS)
    return dict(job)


def cancel_job(number: int) -> None:
    _change("CancelJob", GLib.Variant("(u)", (number,)), None)


def collect_garbage() -> dict[str, Any]:
    (found,) = _change("CollectGarbage", GLib.Variant("(b)", (False,)), "(a{sv})")
    return dict(found)


def restore_initrd(krel: str) -> dict[str, Any]:
    (done,) = _change("RestoreInitrd", GLib.Variant("(s)", (krel,)), "(a{sv})")
    return dict(done)


@contextmanager
def delaying_shutdown(why: str) -> Iterator[None]:
    """logind waits, some seconds at most, as it does for the daemon. Where there is none, nobody waits."""
    fd = _inhibit(GLib.Variant("(ssss)", ("shutdown", "autokmod", why, "delay")))
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _inhibit(arguments: Any) -> int | None:
    try:
        bus = Gio.bus_get_sync(Gio.BusType.SYSTEM, None)
        kind, flags = GLib.VariantType("(h)"), Gio.DBusCallFlags.NONE
        reply, fds = bus.call_with_unix_fd_list_sync(
            *LOGIND, "Inhibit", arguments, kind, flags, LOGIND_TIMEOUT_MS, None, None
        )
    except GLib.Error:
        return None
    return int(fds.get(reply.unpack()[0]))


class Endings:
    """Which jobs end from now on: number → name. Raises DaemonUnavailable where no daemon is on the bus."""

    def __init__(self) -> None:
        self.seen: dict[int, str] = {}
        self._bus = _connect()  # kept: it is closed with its last reference
        told = ("JobRemoved", PATH, None, Gio.DBusSignalFlags.NONE)
        self._bus.signal_subscribe(NAME, INTERFACE, *told, lambda *signal: self._ended(*signal[5].unpack()))
        list_jobs()  # once it answers, the bus daemon has heard what we want to be told

    def wait(self, seconds: float) -> None:
        """Until a job ends, or so long."""
        before, over = len(self.seen), []
        timer = GLib.timeout_add(max(1, round(seconds * 1000)), lambda: over.append(True))
        try:
            while len(self.seen) == before and not over:
                GLib.MainContext.default().iteration()
        finally:
            if not over:
                GLib.source_remove(timer)

    def _ended(self, number: int, name: str, _result: str) -> None:
        self.seen[number] = name


def follow() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Name and arguments of every signal of the daemon, as they come; NameOwnerChanged when it leaves or comes back.

    First HERE, as nothing is missed from then on, and, as JobChanged, the jobs that are there already.
    Raises DaemonUnavailable where no daemon is on the bus, or the bus itself goes away.
    """
    told: deque[tuple[str, tuple[Any, ...]]] = deque()
    loop = GLib.MainLoop()

    def hear(_bus: Any, _sender: str, _path: str, _interface: str, name: str, arguments: Any) -> None:
        told.append((name, arguments.unpack()))
        loop.quit()

    bus, none = _connect(), Gio.DBusSignalFlags.NONE
    bus.connect("closed", lambda *_: loop.quit())
    bus.signal_subscribe(NAME, INTERFACE, None, PATH, None, none, hear)
    bus.signal_subscribe(*OWNER, NAME, none, hear)
    jobs = list_jobs()  # once it answers, the bus daemon has heard what we want to be told
    yield HERE, ()
    yield from (("JobChanged", (j["id"], f"{j['verb']}-{j['krel']}", j["state"])) for j in jobs)
    while not bus.is_closed():
        while told:
            yield told.popleft()
        loop.run()  # until there is something: unlike one turn of its context, it is ended by Ctrl-C at any moment
    raise DaemonUnavailable


def _connect() -> Any:
    """Raises DaemonUnavailable where there is no bus."""
    try:
        bus = Gio.bus_get_sync(Gio.BusType.SYSTEM, None)
    except GLib.Error as exc:
        raise _translate(exc) from exc
    bus.set_exit_on_close(False)  # GLib would end us with SIGTERM
    return bus


def _password_agent() -> AbstractContextManager[None]:
    """polkit's own: who typed the command at this terminal is asked for the password there."""
    if os.geteuid() == 0 or not sys.stdin.isatty():
        return nullcontext()
    return beside(("pkttyagent", "--process", str(os.getpid()), "--notify-fd", "{fd}"))


def _change(method: str, arguments: Any, reply: str | None) -> Any:
    with _password_agent():
        return _call(method, arguments, reply, CHANGE, PERSON_MS)


def _call(method: str, arguments: Any, reply: str | None, flags: Any, timeout_ms: int) -> Any:
    shape = GLib.VariantType(reply) if reply else None
    try:
        bus = Gio.bus_get_sync(Gio.BusType.SYSTEM, None)
        answer = bus.call_sync(NAME, PATH, INTERFACE, method, arguments, shape, flags, timeout_ms, None)
    except GLib.Error as exc:
        raise _translate(exc) from exc
    return answer.unpack()


def _translate(exc: Any) -> AutokmodError:
    name = Gio.DBusError.get_remote_error(exc)
    if name is None or name in _ABSENT:
        return DaemonUnavailable()
    # Gio.DBusError.strip_remote_error would change a copy: PyGObject's exceptions are not GLib's.
    message = str(exc.message).removeprefix(f"GDBus.Error:{name}: ")
    return Refused(message) if name in _REFUSED else RemoteError(name, message)
