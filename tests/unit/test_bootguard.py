"""When another kernel is the default, and when not any more: tables, and whole lives of a hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autokmod.act.bootguard import bootctl_cmd
from autokmod.config import BootGuardConfig
from autokmod.ctl.render import guard_sentence
from autokmod.decide.bootguard import GuardFacts, GuardStep, Move, decide_guard
from autokmod.decide.guardview import view_loader
from autokmod.files import write_json
from autokmod.jsonvalue import to_json
from autokmod.model import GuardState, Hold, NextBoot, Reason
from autokmod.observe.bootguard import guard_to_json, read_guard
from autokmod.observe.nextboot import EFIVARS, look_at_boot
from autokmod.paths import Paths
from tests.unit.test_nextboot import A as OLDER
from tests.unit.test_nextboot import B as NEWER
from tests.unit.test_nextboot import Machine

A, B, C = "6.1.0-54", "6.1.0-55", "6.1.0-56"
LIMITS = BootGuardConfig(time_limit_s=1000, boot_limit=3)
WHY = Reason("build-failed", "pkg failed")
UNKNOWN = NextBoot(None, "grub", "", Reason("next-boot-unknown", "who knows"))
OTHER = NextBoot(None, "grub", "Windows", Reason("next-boot-other", "no kernel"))
HOLD = Hold(C, B, "grub", f"e>{B}", "", 100.0, 0, "boot-1", WHY)
HELD = GuardState(hold=HOLD)


def takes(krel: str) -> NextBoot:
    return NextBoot(krel, "grub", "x", Reason("next-boot", ""))


def facts(wanted: NextBoot, *safe: str, known: tuple[str, ...] = (A, B, C)) -> GuardFacts:
    return GuardFacts(
        wanted,
        frozenset(safe),
        {k: WHY for k in known if k not in safe},
        {k: f"e>{k}" for k in known},
        told="",
        is_ours=False,
        obstacle=None,
        running=None,
        required=True,
        now=200.0,
        boot_id="boot-1",
    )


def held(wanted: NextBoot, *safe: str) -> GuardFacts:
    return replace(facts(wanted, *safe), told=f"e>{B}", is_ours=True)


BAD = facts(takes(C), A, B)


@pytest.mark.parametrize(
    ("state", "given", "keeps"),
    [
        (GuardState(), BAD, B),  # the newest
        (GuardState(last_good=A), BAD, A),
        (GuardState(), replace(BAD, running=A), A),
        (GuardState(last_good=A), replace(BAD, running=B), A),
        (GuardState(last_good=C), replace(BAD, running=C), B),  # neither is ready any more
        (GuardState(), replace(BAD, entries={A: "e"}), A),
        (GuardState(), facts(takes("9.9"), A), A),  # of which there are no modules
    ],
)
def test_holds(state: GuardState, given: GuardFacts, keeps: str) -> None:
    step = decide_guard(state, given, LIMITS)
    assert (step.move, step.tell) == (Move.HOLD, given.entries[keeps])
    assert step.state.hold is not None
    assert (step.state.hold.keeps, step.state.hold.since, step.state.hold.boots) == (keeps, 200.0, 0)


@pytest.mark.parametrize(
    ("state", "given", "problem"),
    [
        (GuardState(), facts(takes(C), C), None),
        (GuardState(), replace(BAD, required=False), None),
        (GuardState(given_up=(C,)), BAD, None),
        (GuardState(), facts(takes(C)), "guard-no-kernel"),
        (GuardState(), replace(BAD, entries={}), "guard-no-kernel"),
        (GuardState(), replace(BAD, obstacle=Reason("guard-unwritable", "btrfs")), "guard-unwritable"),
        (GuardState(), facts(UNKNOWN, A), "next-boot-unknown"),
        (GuardState(), facts(UNKNOWN, A, B, C), None),
        (GuardState(), facts(OTHER, A), None),
    ],
)
def test_does_nothing(state: GuardState, given: GuardFacts, problem: str | None) -> None:
    step = decide_guard(state, given, LIMITS)
    assert (step.move, step.tell, step.state.hold) == (Move.NONE, None, None)
    assert (step.state.problem.kind if step.state.problem else None) == problem


def test_switched_off() -> None:
    off = BootGuardConfig(enabled=False)
    assert decide_guard(GuardState(), BAD, off).move is Move.NONE
    assert decide_guard(HELD, held(takes(C), A, B), off).move is Move.RELEASE


@pytest.mark.parametrize(
    ("given", "move"),
    [
        (held(takes(C), A, B), Move.NONE),
        (held(takes(C), A, B, C), Move.RELEASE),
        (held(UNKNOWN, A, B), Move.NONE),
        (replace(held(takes(C), A, B), required=False), Move.RELEASE),
        (replace(held(takes(C), A, B), now=1099.0), Move.NONE),
        (replace(held(takes(C), A, B), now=1100.0), Move.GIVE_UP),
        (replace(held(UNKNOWN, A, B), now=1100.0), Move.GIVE_UP),
        (replace(held(takes(C), A, B), now=-9.0), Move.NONE),  # a clock that was wrong
        (held(takes(C), A), Move.HOLD),  # what was kept is not ready any more, another is
        (held(takes(C)), Move.NONE),  # none is
        (replace(held(takes(C), A, B), entries={A: "e"}), Move.HOLD),
        (replace(held(takes(C), A, B), entries={}), Move.RELEASE),  # there is nothing that could be the default instead
    ],
)
def test_ends(given: GuardFacts, move: Move) -> None:
    step = decide_guard(HELD, given, LIMITS)
    assert step.move is move
    assert step.tell == (None if move is Move.NONE else given.entries[A] if move is Move.HOLD else "")
    assert (step.state.hold is None) == (move in (Move.RELEASE, Move.GIVE_UP))


def test_what_was_told_before_comes_back() -> None:
    state = GuardState(hold=replace(HOLD, before="gnulinux-x"))
    assert decide_guard(state, held(takes(C), B, C), LIMITS).tell == "gnulinux-x"


def test_boots_are_counted_once_each() -> None:
    state = HELD
    moves: list[Move] = []
    for boot_id in ("boot-1", "boot-2", "boot-2", "", "boot-3", "boot-4"):
        step = decide_guard(state, replace(held(takes(C), A, B), boot_id=boot_id), LIMITS)
        state, moves = step.state, [*moves, step.move]
    assert moves == [Move.NONE] * 5 + [Move.GIVE_UP]
    assert state.given_up == (C,)


def test_given_up_until_it_was_ready_once() -> None:
    state = decide_guard(HELD, replace(held(takes(C), A, B), now=5000.0), LIMITS).state
    assert decide_guard(state, BAD, LIMITS).move is Move.NONE
    state = decide_guard(state, facts(takes(C), A, B, C), LIMITS).state
    assert state.given_up == ()
    assert decide_guard(state, BAD, LIMITS).move is Move.HOLD


def test_somebody_else_changed_the_default() -> None:
    chosen = replace(facts(takes(A), A, B), told=f"e>{A}")
    step = decide_guard(HELD, chosen, LIMITS)
    assert (step.move, step.state.hold, step.state.last_good) == (Move.NONE, None, A)
    assert "somebody else" in step.text
    again = decide_guard(HELD, replace(BAD, told="new"), LIMITS)
    assert again.move is Move.HOLD
    assert again.state.hold is not None
    assert again.state.hold.before == "new"


def test_a_newer_kernel_comes_meanwhile() -> None:
    newer = "6.1.0-57"
    given = replace(held(takes(newer), A, B), lacking={C: WHY, newer: Reason("build-failed", "again")})
    step = decide_guard(HELD, given, LIMITS)
    assert step.move is Move.NONE
    assert step.state.hold == replace(HOLD, kernel=newer, why=Reason("build-failed", "again"))


def test_what_it_had_told_before_is_known_while_it_tells_another(tmp_path: Path) -> None:
    """Killed after a new hold was written down and before the boot loader was told: that entry is nobody else's choice,
    to be put back one day."""
    machine = Machine(tmp_path)
    machine.systemd_boot()
    machine.variable("LoaderInfo", "systemd-boot 252")
    changed = decide_guard(HELD, replace(held(takes(C), A, B), entries={A: "new.conf"}), LIMITS).state.hold
    assert changed is not None
    assert (changed.entry, changed.before) == ("new.conf", "")
    for told, is_ours in (("new.conf", True), (HOLD.entry, True), ("a person's.conf", False), ("", False)):
        machine.variable("LoaderEntryDefault", told)
        hold = replace(changed, loader="systemd-boot")
        assert view_loader(look_at_boot(machine.paths), (A, B, C), hold).is_ours == is_ours


def test_variables_that_cannot_be_read_for_now(tmp_path: Path) -> None:
    """What is kept is not forgotten for that: who would put the default back?"""
    machine = Machine(tmp_path)
    machine.systemd_boot()
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / EFIVARS).mkdir(parents=True)
    view = view_loader(look_at_boot(machine.paths), (A, B), replace(HOLD, loader="systemd-boot"))
    assert view.is_ours
    assert view.obstacle is not None


def test_the_same_kernel_in_other_words_is_somebodys_choice(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.grub()
    for told, is_ours in (("old", True), ("1", False), ("new", False)):
        machine.save(told)
        hold = replace(HOLD, kernel=NEWER, keeps=OLDER, entry="old")
        assert view_loader(look_at_boot(machine.paths), (OLDER, NEWER), hold).is_ours == is_ours


def test_a_preferred_entry_is_in_the_way(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.systemd_boot()
    (tmp_path / "sys/kernel").mkdir(parents=True)
    machine.write("boot/loader/loader.conf", f"preferred m-{NEWER}*\n")
    kinds = {}
    for info in ("systemd-boot 259", "systemd-boot 260"):
        machine.variable("LoaderInfo", info)
        view = view_loader(look_at_boot(machine.paths), (OLDER, NEWER), None)
        kinds[info] = view.obstacle.kind if view.obstacle else None
        assert (OLDER in view.entries) == (view.obstacle is None)
    assert kinds == {"systemd-boot 259": None, "systemd-boot 260": "guard-preferred"}


KRELS = st.sampled_from([A, B, C])


@given(
    wanted=KRELS | st.none(),
    safe=st.frozensets(KRELS),
    entries=st.frozensets(KRELS),
    hold=st.booleans(),
    ours=st.booleans(),
    now=st.floats(0, 3000),
)
def test_never_tells_of_a_kernel_that_is_not_ready(
    wanted: str | None, safe: frozenset[str], entries: frozenset[str], hold: bool, ours: bool, now: float
) -> None:
    given = facts(takes(wanted) if wanted else UNKNOWN, *safe)
    given = replace(given, entries={k: f"e>{k}" for k in entries}, is_ours=hold and ours, now=now)
    step = decide_guard(HELD if hold else GuardState(), given, LIMITS)
    if step.move is Move.HOLD:
        assert step.tell in {f"e>{k}" for k in safe & entries}
        assert wanted not in safe
    elif step.move is Move.NONE:
        assert step.tell is None
    else:
        assert step.tell == HOLD.before
    assert (step.state.hold is not None) <= (step.move in (Move.HOLD, Move.NONE))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (GuardState(), None),
        (HELD, f"{B} is the default while {C} is not ready (pkg failed)"),
        (GuardState(problem=Reason("x", "no grubenv")), "cannot help: no grubenv"),
        (GuardState(given_up=(C,)), f"given up on {C}"),
    ],
)
def test_sentence(state: GuardState, words: str | None) -> None:
    said = guard_sentence(state, LIMITS)
    assert said == words if words is None or said is None else words in said


def test_what_is_written_is_read(tmp_path: object) -> None:
    paths = Paths(tmp_path)  # type: ignore[arg-type]
    assert read_guard(paths) == GuardState()
    paths.state.mkdir(parents=True)
    state = replace(HELD, last_good=A, given_up=(B,), problem=WHY)
    write_json(paths.boot_guard, guard_to_json(state))
    assert read_guard(paths) == state
    assert to_json(state)["hold"]["why"]["kind"] == "build-failed"
    assert isinstance(decide_guard(state, BAD, LIMITS), GuardStep)


def test_systemd_boot_is_told_from_outside_the_service() -> None:
    assert bootctl_cmd("m.conf", under_systemd=False) == ("bootctl", "set-default", "m.conf")
    assert bootctl_cmd("", under_systemd=True)[-4:] == ("--", "bootctl", "set-default", "")
