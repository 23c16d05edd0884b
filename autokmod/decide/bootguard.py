"""Should another kernel be the default for a while? Pure.

Only where a kernel that lacks something required would be booted next, and another that has all of it is there to be
booted instead. It ends when the kernel is ready, when somebody else changes the default, when nothing is required any
more, or when the limits are reached: then that kernel is left alone until it has been ready once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from autokmod.config import BootGuardConfig
from autokmod.model import GuardState, Hold, NextBoot, Reason
from autokmod.versions import sort_key


class Move(StrEnum):
    NONE = "none"
    HOLD = "hold"  # tell the boot loader the hold's entry
    RELEASE = "release"  # tell it again what it had been told before
    GIVE_UP = "give-up"  # the same, though the kernel is still not ready


@dataclass(frozen=True, slots=True)
class GuardFacts:
    wanted: NextBoot  # the default as it would be without autokmod, one-time choices aside
    safe: frozenset[str]  # kernels that have all that is required
    lacking: Mapping[str, Reason]  # of the others, what is lacking first
    entries: Mapping[str, str]  # kernel → what to tell the boot loader so that it becomes the default; proven
    told: str  # what the boot loader is told now
    is_ours: bool  # that this still leads to the kernel that is kept
    obstacle: Reason | None  # why the boot loader cannot be told
    running: str | None
    required: bool  # whether any package is
    now: float
    boot_id: str


@dataclass(frozen=True, slots=True)
class GuardStep:
    move: Move
    state: GuardState
    tell: str | None = None  # "": nothing
    text: str = ""  # for the journal


def decide_guard(state: GuardState, facts: GuardFacts, limits: BootGuardConfig) -> GuardStep:
    given_up = tuple(k for k in state.given_up if k in facts.lacking)
    state = replace(state, given_up=given_up, problem=None)
    if state.hold is None:
        return _without_hold(state, facts, limits)
    if not facts.is_ours:
        text = f"the default boot entry was changed by somebody else: {state.hold.keeps} is not kept as such any more"
        after = _without_hold(replace(state, hold=None), facts, limits)
        return replace(after, text=f"{text}; {after.text}" if after.text else text)
    return _with_hold(state, _counted(state.hold, facts), facts, limits)


def _counted(hold: Hold, facts: GuardFacts) -> Hold:
    if facts.boot_id in ("", hold.boot_id):
        return hold
    return replace(hold, boots=hold.boots + 1, boot_id=facts.boot_id)


# ---- nothing is held -----------------------------------------------------------------------------


def _without_hold(state: GuardState, facts: GuardFacts, limits: BootGuardConfig) -> GuardStep:
    wanted = facts.wanted.krel
    if not limits.enabled or not facts.required:
        return GuardStep(Move.NONE, state)
    if wanted is None:
        is_concern = bool(facts.lacking) and not facts.wanted.is_known
        return GuardStep(Move.NONE, replace(state, problem=facts.wanted.reason if is_concern else None))
    if wanted in facts.safe:
        return GuardStep(Move.NONE, replace(state, last_good=wanted))
    if wanted in state.given_up:
        return GuardStep(Move.NONE, state)
    return _hold(state, wanted, facts)


def _hold(state: GuardState, wanted: str, facts: GuardFacts, since: Hold | None = None) -> GuardStep:
    why = facts.lacking.get(wanted, Reason("no-modules", f"no modules of {wanted} are on this machine"))
    keeps = _choose(state, facts)
    if keeps is None:
        return GuardStep(Move.NONE, replace(state, hold=None, problem=_nothing_to_keep(wanted, facts)))
    if facts.obstacle is not None:
        return GuardStep(Move.NONE, replace(state, hold=None, problem=facts.obstacle))
    before, begun, boots = (since.before, since.since, since.boots) if since else (facts.told, facts.now, 0)
    loader = facts.wanted.loader
    former = since.entry if since else ""
    hold = Hold(wanted, keeps, loader, facts.entries[keeps], before, begun, boots, facts.boot_id, why, former)
    text = f"{keeps} is kept as the default, as {wanted} is not ready: {why.text}"
    return GuardStep(Move.HOLD, replace(state, hold=hold), hold.entry, text)


def _choose(state: GuardState, facts: GuardFacts) -> str | None:
    able = [krel for krel in facts.safe if krel in facts.entries]
    for preferred in (state.last_good, facts.running):
        if preferred in able:
            return preferred
    return max(able, key=sort_key, default=None)


def _nothing_to_keep(wanted: str, facts: GuardFacts) -> Reason:
    if facts.obstacle is not None:
        return facts.obstacle
    if facts.safe:
        text = f"{wanted} is not ready, and no kernel that is has a boot entry that could be the default instead"
    else:
        text = f"{wanted} is not ready, and neither is any other kernel: the default stays as it is"
    return Reason("guard-no-kernel", text)


# ---- something is held ---------------------------------------------------------------------------


def _with_hold(state: GuardState, hold: Hold, facts: GuardFacts, limits: BootGuardConfig) -> GuardStep:
    wanted = facts.wanted.krel
    if not limits.enabled or not facts.required:
        return _release(state, hold, "nothing is required any more")
    if wanted is not None and wanted in facts.safe:
        return _release(replace(state, last_good=wanted), hold, f"{wanted} is ready")
    if (why := _expired(hold, facts, limits)) is not None:
        return _give_up(state, hold, wanted or hold.kernel, why)
    kernel = wanted or hold.kernel
    if hold.keeps not in facts.entries or (hold.keeps not in facts.safe and _choose(state, facts) is not None):
        return _change(state, hold, kernel, facts)
    now = replace(hold, kernel=kernel, why=facts.lacking.get(kernel, hold.why))
    return GuardStep(Move.NONE, replace(state, hold=now))


def _expired(hold: Hold, facts: GuardFacts, limits: BootGuardConfig) -> str | None:
    if facts.now - hold.since >= limits.time_limit_s:
        return f"for {limits.time_limit_s / 86400:g} days"
    return f"for {hold.boots} boots" if hold.boots >= limits.boot_limit else None


def _give_up(state: GuardState, hold: Hold, kernel: str, how_long: str) -> GuardStep:
    text = f"{hold.keeps} was kept as the default {how_long}, and {kernel} is still not ready: it is left to be booted"
    after = replace(state, hold=None, given_up=(*state.given_up, kernel))
    return GuardStep(Move.GIVE_UP, after, hold.before, text)


def _change(state: GuardState, hold: Hold, kernel: str, facts: GuardFacts) -> GuardStep:
    """The kernel that was kept is gone, or not ready any more while another is. Were none, it would stay: that it is
    not ready may pass with the next look, and it was ready once."""
    step = _hold(state, kernel, facts, since=hold)
    if step.move is Move.HOLD:
        return step
    text = f"{hold.keeps} cannot be kept as the default any more, and there is no other"
    return GuardStep(Move.RELEASE, step.state, hold.before, text)


def _release(state: GuardState, hold: Hold, why: str) -> GuardStep:
    text = f"{why}: {hold.keeps} is not kept as the default any more"
    return GuardStep(Move.RELEASE, replace(state, hold=None), hold.before, text)
