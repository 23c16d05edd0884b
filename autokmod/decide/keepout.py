"""Should a new kernel do without a boot entry for a while? Pure.

Only where what the next boot takes is known, and is another kernel that has all that is required; so the machine always
has a default, and a good one. A kernel that has an entry already keeps it, whatever it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from autokmod.config import BootGuardConfig
from autokmod.model import KeptOut, NextBoot, Reason

DUE = "entry-due"
PATIENCE_S = 3600  # a package manager that never ends is not waited for


class Way(StrEnum):
    STAY = "stay"
    ENTER = "enter"  # kernel-install is to make its entry now
    FORGET = "forget"  # it has one, or is gone


@dataclass(frozen=True, slots=True)
class DoorFacts:
    next_boot: NextBoot
    lacking: Mapping[str, Reason]  # kernels that lack something required, their initrds aside
    present: frozenset[str]  # every kernel whose modules are on disk
    listed: frozenset[str]  # those that have a boot entry
    running: str | None
    required: bool  # whether any package is
    now: float
    busy: bool = False  # a package manager is at work, which may be making that kernel's initrd


@dataclass(frozen=True, slots=True)
class Verdict:
    kept: KeptOut
    way: Way
    why: str  # for the journal


def why_not_enter(krel: str, facts: DoorFacts, limits: BootGuardConfig) -> Reason | None:
    """What it lacks, where it is to be kept out for that; None: it may have its entry."""
    if not (limits.enabled and limits.hold and facts.required):
        return None
    if krel not in facts.lacking or krel in facts.listed or krel == facts.running:
        return None
    default = facts.next_boot.krel
    if default is None or default == krel or default not in facts.present or default in facts.lacking:
        return None
    return facts.lacking[krel]


def look_again(kept: Iterable[KeptOut], facts: DoorFacts, limits: BootGuardConfig) -> tuple[Verdict, ...]:
    return tuple(_in_turn(_judge(one, facts, limits), facts, limits) for one in kept)


def _in_turn(verdict: Verdict, facts: DoorFacts, limits: BootGuardConfig) -> Verdict:
    """Whoever may enter waits for the package manager, but not for ever."""
    waited_s = facts.now - verdict.kept.since
    if verdict.way is not Way.ENTER or not facts.busy or not 0 <= waited_s < limits.hold_limit_s + PATIENCE_S:
        return verdict
    due = Reason(DUE, "its boot entry waits for the package manager to finish")
    return Verdict(replace(verdict.kept, why=due), Way.STAY, "")


def _judge(one: KeptOut, facts: DoorFacts, limits: BootGuardConfig) -> Verdict:
    if one.kernel not in facts.present:
        return Verdict(one, Way.FORGET, f"{one.kernel} is not on this machine any more")
    if one.kernel in facts.listed:
        return Verdict(one, Way.FORGET, f"{one.kernel} has a boot entry")
    if is_over(one, facts.now, limits):
        text = f"{one.kernel} was kept out of the boot menu for {limits.hold_limit_s / 3600:g} hours, and is not ready"
        return Verdict(one, Way.ENTER, text)
    why = why_not_enter(one.kernel, facts, limits)
    if why is not None:
        return Verdict(replace(one, why=why), Way.STAY, "")
    return Verdict(one, Way.ENTER, _why_enter(one.kernel, facts))


def _why_enter(krel: str, facts: DoorFacts) -> str:
    if krel not in facts.lacking:
        return f"{krel} is ready"
    return f"{krel} is not ready, and is not kept out of the boot menu any more"


def is_over(one: KeptOut, now: float, limits: BootGuardConfig) -> bool:
    """A time before it began is a wrong clock's: then nobody knows how long it has been."""
    return not 0 <= now - one.since < limits.hold_limit_s
