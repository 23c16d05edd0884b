"""The boot guard, after each job: look at the kernels and the boot loader, decide, tell the boot loader, look again.

A hold is written down before the boot loader is told, its end afterwards: a kill in between leaves a hold that the next
look finds not to be there, never a changed default of which nobody knows.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from autokmod import journal
from autokmod.act.bootguard import GuardFailed, find_grubenv_obstacle, tell_grub, tell_systemd_boot, write_guard
from autokmod.config import Config
from autokmod.decide.bootguard import GuardFacts, GuardStep, Move, decide_guard
from autokmod.decide.guardview import LoaderView, view_loader
from autokmod.decide.nextboot import GRUB
from autokmod.decide.readiness import required_problems
from autokmod.errors import AutokmodError, FormatError
from autokmod.events import Event
from autokmod.files import locked, set_aside
from autokmod.jobs.keepout import tend_door
from autokmod.model import GuardState, KernelState, Reason
from autokmod.observe.bootguard import read_guard
from autokmod.observe.machine import look_at_kernels
from autokmod.observe.nextboot import BootLook, look_at_boot
from autokmod.observe.sight import Sight
from autokmod.paths import Paths

BOOTABLE = (KernelState.COMPLETE, KernelState.NO_HEADERS)

log = journal.get()


def guard_boot(paths: Paths, config: Config, now: float) -> None:
    """A guard that fails changes nothing and says so; the job that it follows is not concerned."""
    if not is_concerned(paths, config):
        return
    try:
        with locked(paths.lock):
            _guard(paths, config, now)
    except (AutokmodError, OSError) as exc:
        log.error(f"boot guard: {exc}", kind=Event.GUARD_FAILED)


def release_guard(paths: Paths, config: Config, now: float) -> tuple[GuardState, GuardState]:
    """All that is kept is given back, whatever the kernels lack; the states before and after. The kernel that was held
    back is left alone until it has been ready once. Raises AutokmodError, OSError."""
    off = replace(config, boot_guard=replace(config.boot_guard, enabled=False))
    with locked(paths.lock):
        before = _read(paths)
        _guard(paths, off, now)
        after = read_guard(paths)
        if before.hold is not None and after.hold is None:
            after = replace(after, given_up=(*after.given_up, before.hold.kernel))
            write_guard(paths, after)
    return before, after


def is_concerned(paths: Paths, config: Config) -> bool:
    """Where nothing is required and nothing is held, it does not even look."""
    required = config.boot_guard.enabled and any(package.required for _, package in config.packages)
    return required or paths.boot_guard.exists()


def _guard(paths: Paths, config: Config, now: float) -> None:
    state = _read(paths)
    tended = tend_door(paths, config, state, now)
    if tended != state:
        write_guard(paths, state := tended)
    look = look_at_boot(paths)
    facts = _facts(paths, config, look, state, now)
    step = decide_guard(state, facts, config.boot_guard)
    if step.tell is not None:
        _carry_out(paths, look, state, step, facts.told)
    elif step.state != state:
        write_guard(paths, step.state)
    _say(state, step)


def _read(paths: Paths) -> GuardState:
    try:
        return read_guard(paths)
    except FormatError as exc:
        aside = set_aside(paths.boot_guard)
        log.warning(f"{exc}; set aside as {aside}: the default boot entry stays as it is", kind=Event.STATE_DAMAGED)
        return GuardState()


def _facts(paths: Paths, config: Config, look: BootLook, state: GuardState, now: float) -> GuardFacts:
    sights = [s for s in look_at_kernels(paths, now) if s.kernel.state is not KernelState.HEADERS_ONLY]
    lacking = {s.kernel.krel: problems[0] for s in sights if (problems := _problems(s, config))}
    view = view_loader(look, [s.kernel.krel for s in sights], state.hold)
    return GuardFacts(
        wanted=view.wanted,
        safe=frozenset(s.kernel.krel for s in sights if s.kernel.krel not in lacking),
        lacking=lacking,
        entries=view.entries,
        told=view.told,
        is_ours=view.is_ours,
        obstacle=_obstacle(paths, look, view) or view.obstacle,
        running=os.uname().release if paths.root == Path("/") else None,
        required=any(package.required and package.enabled for _, package in config.packages),
        now=now,
        boot_id=_boot_id(paths),
    )


def _problems(sight: Sight, config: Config) -> tuple[Reason, ...]:
    if sight.kernel.state not in BOOTABLE:
        return sight.kernel.problems or (Reason("not-bootable", f"what of it is on disk: {sight.kernel.state}"),)
    return required_problems(sight, config)


def _obstacle(paths: Paths, look: BootLook, view: LoaderView) -> Reason | None:
    if view.wanted.loader != GRUB or look.grub is None:
        return None
    return find_grubenv_obstacle(paths, look.grub.directory)


def _boot_id(paths: Paths) -> str:
    try:
        return paths.at("proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _carry_out(paths: Paths, look: BootLook, before: GuardState, step: GuardStep, told_before: str) -> None:
    """Raises GuardFailed where what is read back afterwards is something else: then all is as it was."""
    hold = step.state.hold or before.hold
    assert hold is not None
    assert step.tell is not None
    if step.state.hold is not None:
        write_guard(paths, step.state)
    try:
        _tell(paths, look, hold.loader, step.tell)
        told = _told(paths, hold.loader)
        if told != step.tell:
            raise GuardFailed(f"it was told {step.tell!r}, and has {told!r}")
    except (AutokmodError, OSError) as exc:
        left = _put_back(paths, look, hold.loader, told_before)
        write_guard(paths, replace(before, problem=Reason("guard-failed", f"{exc}{left}")))
        raise
    write_guard(paths, step.state)


def _put_back(paths: Paths, look: BootLook, loader: str, entry: str) -> str:
    """After a failure: what could not be undone of it, if anything."""
    told = _told(paths, loader)
    if told == entry:
        return ""
    try:
        _tell(paths, look, loader, entry)
    except (AutokmodError, OSError) as exc:
        return f"; it has {told!r} now, and {entry!r} could not be put back: {exc}"
    return ""


def _tell(paths: Paths, look: BootLook, loader: str, entry: str) -> None:
    if loader == GRUB and look.grub is not None:
        tell_grub(paths, look.grub.directory, entry)
    else:
        tell_systemd_boot(paths, entry)


def _told(paths: Paths, loader: str) -> str:
    look = look_at_boot(paths)
    if loader == GRUB:
        return look.grub.env.get("saved_entry", "") if look.grub else ""
    return look.systemd_boot.default_variable if look.systemd_boot else ""


def _say(before: GuardState, step: GuardStep) -> None:
    hold = step.state.hold
    if step.move is Move.HOLD and hold is not None:
        log.warning(f"boot guard: {step.text}", kind=Event.GUARD_HOLDS, krel=hold.kernel)
    elif step.move is Move.GIVE_UP:
        log.error(f"boot guard: {step.text}", kind=Event.GUARD_GAVE_UP)
    elif step.text:
        log.notice(f"boot guard: {step.text}", kind=Event.GUARD_RELEASED)
    problem = step.state.problem
    if problem is not None and (before.problem is None or before.problem.text != problem.text):
        log.warning(f"boot guard: cannot help: {problem.text}", kind=Event.GUARD_FAILED)
