"""Who may change something: the one place that decides it. What is asked of polkit, and when, is in polkit.py."""

from __future__ import annotations

from enum import StrEnum

from autokmod.errors import AutokmodError, NotAuthorized

REQUIRED = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"


class Action(StrEnum):
    """What may be asked for; the value is polkit's name of it."""

    RECONCILE = "io.github.autokmod.AutoKmod.reconcile"
    CANCEL = "io.github.autokmod.AutoKmod.cancel"
    COLLECT = "io.github.autokmod.AutoKmod.collect"
    RESTORE = "io.github.autokmod.AutoKmod.restore"


WORDS = {
    Action.RECONCILE: "queue work",
    Action.CANCEL: "cancel jobs",
    Action.COLLECT: "remove stored builds",
    Action.RESTORE: "put back an initrd",
}


class InteractionRequired(AutokmodError):
    """The caller may be permitted after a person was asked, and did not say that one may be."""

    dbus_name = REQUIRED

    def __init__(self, action: Action) -> None:
        super().__init__(action)
        self.action = action

    def __str__(self) -> str:
        return f"a password is needed to {WORDS[self.action]}, and nobody may be asked for it"


def judge(action: Action, *, authorized: bool, challenge: bool, interactive: bool) -> AutokmodError | None:
    """polkit's answer as what is told to the caller: None is yes.

    `challenge`: it would be yes after a person was asked, which needed the caller's consent (`interactive`).
    """
    if authorized:
        return None
    if challenge and not interactive:
        return InteractionRequired(action)
    return NotAuthorized(WORDS[action])
