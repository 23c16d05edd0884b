"""Asking polkit whether a caller may do something. Root may at once; where there is no polkit, nobody else may.

polkit may ask a person for a password, and persons take minutes: every question here is asynchronous, so that neither
the loop nor a thread waits. Callbacks run on the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gi.repository import Gio, GLib

from autokmod import journal
from autokmod.daemon.authorize import WORDS, Action, judge
from autokmod.errors import AutokmodError, NotAuthorized

BUS, BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
POLKIT, POLKIT_PATH = "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority"
AUTHORITY = f"{POLKIT}.Authority"
ALLOW_INTERACTION = 1
BUS_TIMEOUT_MS = 5000
NO_TIMEOUT_MS = GLib.MAXINT
ABSENT = ("org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner")

Then = Callable[[AutokmodError | None], None]  # called with the refusal, None if there is none

log = journal.get()


def ask_uid(connection: Any, sender: str, then: Callable[[int | None], None]) -> None:
    """The bus daemon knows who calls; None: the caller is gone, and with it whoever it was."""
    arguments = GLib.Variant("(s)", (sender,))
    target = (BUS, BUS_PATH, BUS, "GetConnectionUnixUser")

    def answered(reply: tuple[Any, ...] | GLib.Error) -> None:
        then(None if isinstance(reply, GLib.Error) else int(reply[0]))

    _call(connection, target, arguments, "(u)", BUS_TIMEOUT_MS, answered)


class Question:
    """Of one caller, about one action."""

    def __init__(self, connection: Any, sender: str, action: Action, *, interactive: bool) -> None:
        self._connection, self._sender = connection, sender
        self._action, self._interactive = action, interactive

    def ask(self, then: Then) -> None:
        """First who calls: root needs no polkit."""
        ask_uid(self._connection, self._sender, lambda uid: self._known(uid, then))

    def _known(self, uid: int | None, then: Then) -> None:
        if uid is None:
            then(self._no())
        elif uid == 0:
            then(None)
        else:
            self._ask_polkit(then)

    def _ask_polkit(self, then: Then) -> None:
        subject = ("system-bus-name", {"name": GLib.Variant("s", self._sender)})
        flags = ALLOW_INTERACTION if self._interactive else 0
        arguments = GLib.Variant("((sa{sv})sa{ss}us)", (subject, self._action.value, {}, flags, ""))
        target = (POLKIT, POLKIT_PATH, AUTHORITY, "CheckAuthorization")

        def answered(reply: tuple[Any, ...] | GLib.Error) -> None:
            then(self._judged(reply))

        _call(self._connection, target, arguments, "((bba{ss}))", NO_TIMEOUT_MS, answered)

    def _judged(self, reply: tuple[Any, ...] | GLib.Error) -> AutokmodError | None:
        if isinstance(reply, GLib.Error):
            if Gio.DBusError.get_remote_error(reply) not in ABSENT:
                log.warning(f"polkit cannot be asked, so only root may {WORDS[self._action]}: {reply.message}")
            return self._no()
        authorized, challenge, _ = reply[0]
        return judge(self._action, authorized=authorized, challenge=challenge, interactive=self._interactive)

    def _no(self) -> AutokmodError:
        return NotAuthorized(WORDS[self._action])


def _call(
    connection: Any,
    target: tuple[str, ...],
    arguments: Any,
    shape: str,
    timeout_ms: int,
    then: Callable[[Any], None],
) -> None:
    def answered(connection: Any, result: Any) -> None:
        try:
            reply = connection.call_finish(result).unpack()
        except GLib.Error as exc:
            reply = exc
        then(reply)

    kind, flags = GLib.VariantType(shape), Gio.DBusCallFlags.NONE
    connection.call(*target, arguments, kind, flags, timeout_ms, None, answered)
