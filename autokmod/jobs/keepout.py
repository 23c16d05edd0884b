"""New kernels without a boot entry: kept out while kernel-install runs, let in when they are ready or the time is over.

Who is kept out is written down before kernel-install is stopped, and forgotten after it has made the entry: a kill in
between leads to one run too many, never to a kernel that is forgotten without an entry.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from autokmod import journal
from autokmod.act.bootguard import add_entry, write_guard
from autokmod.config import Config
from autokmod.decide.guardview import find_listed
from autokmod.decide.keepout import DUE, DoorFacts, Verdict, Way, is_over, look_again, why_not_enter
from autokmod.decide.nextboot import decide_next_boot
from autokmod.decide.readiness import required_problems
from autokmod.errors import AutokmodError, FormatError
from autokmod.events import Event
from autokmod.files import locked
from autokmod.jobs.spool import Spool
from autokmod.model import GuardState, KeptOut, KernelState, Reason, Verb
from autokmod.observe.atwork import find_package_manager
from autokmod.observe.bootguard import read_guard
from autokmod.observe.machine import look_at_kernels
from autokmod.observe.nextboot import look_at_boot
from autokmod.observe.sight import Sight
from autokmod.paths import Paths

log = journal.get()


def is_wanted(config: Config) -> bool:
    return config.boot_guard.enabled and config.boot_guard.hold and _is_required(config)


def _is_required(config: Config) -> bool:
    return any(package.required and package.enabled for _, package in config.packages)


# ---- kernel-install asks -------------------------------------------------------------------------


def keep_out(paths: Paths, config: Config, krel: str, image: str, initrds: Sequence[str], now: float) -> Reason | None:
    """Why kernel-install is to be stopped, and that is written down; None: it goes on. Raises FormatError, OSError."""
    with locked(paths.lock):
        state = read_guard(paths)
        kept = next((k for k in state.kept_out if k.kernel == krel), None)
        is_late = kept is not None and is_over(kept, now, config.boot_guard)
        why = None if is_late else why_not_enter(krel, _facts(paths, config, now), config.boot_guard)
        since = kept.since if kept is not None else now
        others = tuple(k for k in state.kept_out if k.kernel != krel)
        mine = (KeptOut(krel, image, tuple(initrds), since, why),) if why is not None else ()
        if others + mine != state.kept_out:
            write_guard(paths, replace(state, kept_out=others + mine))
    if why is not None and kept is None:
        say_kept_out(krel, why)
    return why


def say_kept_out(krel: str, why: Reason) -> None:
    log.warning(f"boot guard: {krel} gets no boot entry yet: {why.text}", kind=Event.GUARD_KEEPS_OUT, krel=krel)


def is_kept_out(paths: Paths, krel: str) -> bool:
    """As it is written down, for who may not wait for the lock. Raises FormatError, OSError."""
    return any(k.kernel == krel for k in read_guard(paths).kept_out)


def has_due_entry(paths: Paths, krels: Collection[str]) -> bool:
    """Whether one of these waits for nothing but the package manager."""
    try:
        kept = read_guard(paths).kept_out
    except (FormatError, OSError):
        return False
    return any(k.kernel in krels and k.why.kind == DUE for k in kept)


def _facts(paths: Paths, config: Config, now: float, without: str = "") -> DoorFacts:
    sights = [s for s in look_at_kernels(paths, now) if s.kernel.state is not KernelState.HEADERS_ONLY]
    sights = [s for s in sights if s.kernel.krel != without]
    krels, look = [s.kernel.krel for s in sights], look_at_boot(paths)
    listed = find_listed(look, krels)
    return DoorFacts(
        next_boot=decide_next_boot(look, krels),
        lacking={k: found[0] for s in sights if (found := _lacks(s, config, (k := s.kernel.krel) in listed))},
        present=frozenset(krels),
        listed=listed,
        running=os.uname().release if paths.root == Path("/") else None,
        required=_is_required(config),
        now=now,
        busy=config.boot_guard.enabled and not without and find_package_manager(paths) is not None,
    )


def _lacks(sight: Sight, config: Config, has_entry: bool) -> tuple[Reason, ...]:  # noqa: FBT001 # one caller
    """An initrd is only made by what makes the entry."""
    if not has_entry and sight.record is not None:
        sight = replace(sight, record=replace(sight.record, initrd_ok=True))
    return required_problems(sight, config)


# ---- letting in ----------------------------------------------------------------------------------


def let_in_before_removal(paths: Paths, config: Config, krel: str, now: float) -> None:
    """`krel` is about to go: if it was what the machine relied on, the kernels that wait get their entries first.
    Raises AutokmodError, OSError."""
    if not paths.boot_guard.exists():
        return
    with locked(paths.lock):
        state = read_guard(paths)
        if state.kept_out:
            write_guard(paths, tend_door(paths, config, state, now, without=krel))


def tend_door(paths: Paths, config: Config, state: GuardState, now: float, without: str = "") -> GuardState:
    """The state afterwards. The lock is held."""
    if not state.kept_out:
        return state
    verdicts = look_again(state.kept_out, _facts(paths, config, now, without), config.boot_guard)
    stay = (_carry_out(paths, verdict) for verdict in verdicts)
    return replace(state, kept_out=tuple(kept for kept in stay if kept is not None))


def _carry_out(paths: Paths, verdict: Verdict) -> KeptOut | None:
    """Who stays outside."""
    kept = verdict.kept
    if verdict.way is Way.STAY:
        return kept
    if verdict.way is Way.ENTER:
        try:
            add_entry(paths, kept)
        except (AutokmodError, OSError) as exc:
            log.error(f"boot guard: {kept.kernel} still has no boot entry: {exc}", kind=Event.GUARD_FAILED)
            hint = f"kernel-install add {kept.kernel} {kept.image}"
            return replace(kept, why=Reason("entry-failed", f"its boot entry could not be made: {exc}", hint=hint))
        Spool(paths).add(Verb.RECONCILE, kept.kernel, "boot-guard")
    log.notice(f"boot guard: {verdict.why}", kind=Event.GUARD_LETS_IN, krel=kept.kernel)
    return None
