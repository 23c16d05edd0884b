"""Who may change something: the one place that decides it."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from autokmod.errors import NotAuthorized


class Action(StrEnum):
    """What may be asked for; the value is polkit's name of it."""

    RECONCILE = "io.github.autokmod.AutoKmod.reconcile"
    CANCEL = "io.github.autokmod.AutoKmod.cancel"
    COLLECT = "io.github.autokmod.AutoKmod.collect"


WORDS = {Action.RECONCILE: "queue work", Action.CANCEL: "cancel jobs", Action.COLLECT: "remove stored builds"}


class Caller(Protocol):
    @property
    def uid(self) -> int: ...


def authorize(action: Action, caller: Caller) -> None:
    """Raises NotAuthorized. Only root may; polkit is not asked yet."""
    if caller.uid != 0:
        raise NotAuthorized(WORDS[action])
