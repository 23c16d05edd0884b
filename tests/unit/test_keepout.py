"""Which new kernels do without a boot entry for a while: tables, and what must always hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autokmod.config import BootGuardConfig
from autokmod.ctl.render import guard_sentences
from autokmod.decide.guardview import find_listed
from autokmod.decide.keepout import DUE, PATIENCE_S, DoorFacts, Way, look_again, why_not_enter
from autokmod.model import GuardState, KeptOut, NextBoot, Reason
from autokmod.observe.nextboot import look_at_boot
from tests.unit.test_nextboot import A as OLDER
from tests.unit.test_nextboot import B as NEWER
from tests.unit.test_nextboot import Machine, machine

__all__ = ["machine"]  # a fixture

A, B, C = "6.1.0-54", "6.1.0-55", "6.1.0-56"
LIMITS = BootGuardConfig(hold=True, hold_limit_s=1000)
WHY = Reason("build-failed", "pkg failed")
UNKNOWN = NextBoot(None, "", "", Reason("next-boot-unknown", "who knows"))
KEPT = KeptOut(C, f"/boot/vmlinuz-{C}", (), 100.0, Reason("not-verified", "pkg is not in place yet"))


def takes(krel: str) -> NextBoot:
    return NextBoot(krel, "systemd-boot", "x", Reason("next-boot", ""))


NEW = DoorFacts(takes(B), {C: WHY}, frozenset((A, B, C)), frozenset((A, B)), None, required=True, now=200.0)


@pytest.mark.parametrize(
    ("facts", "limits", "is_kept"),
    [
        (NEW, LIMITS, True),
        (NEW, replace(LIMITS, hold=False), False),
        (NEW, replace(LIMITS, enabled=False), False),
        (replace(NEW, required=False), LIMITS, False),
        (replace(NEW, lacking={}), LIMITS, False),  # it has everything
        (replace(NEW, lacking={C: WHY, B: WHY}), LIMITS, False),  # so does nobody
        (replace(NEW, lacking={C: WHY, A: WHY}), LIMITS, True),
        (replace(NEW, listed=frozenset((A, B, C))), LIMITS, False),
        (replace(NEW, running=C), LIMITS, False),
        (replace(NEW, next_boot=takes(C)), LIMITS, False),
        (replace(NEW, next_boot=takes("9.9")), LIMITS, False),  # of which there are no modules
        (replace(NEW, next_boot=UNKNOWN), LIMITS, False),
        (replace(NEW, present=frozenset((C,))), LIMITS, False),  # the only one
    ],
)
def test_who_enters(facts: DoorFacts, limits: BootGuardConfig, is_kept: bool) -> None:
    assert why_not_enter(C, facts, limits) == (WHY if is_kept else None)


@pytest.mark.parametrize(
    ("facts", "way"),
    [
        (NEW, Way.STAY),
        (replace(NEW, now=1099.0), Way.STAY),
        (replace(NEW, now=1100.0), Way.ENTER),
        (replace(NEW, now=99.0), Way.ENTER),  # a clock was wrong
        (replace(NEW, lacking={}), Way.ENTER),
        (replace(NEW, required=False), Way.ENTER),
        (replace(NEW, next_boot=UNKNOWN), Way.ENTER),
        (replace(NEW, lacking={C: WHY, B: WHY}), Way.ENTER),
        (replace(NEW, present=frozenset((A, C))), Way.ENTER),  # what the machine relied on is about to go
        (replace(NEW, lacking={}, busy=True), Way.STAY),
        (replace(NEW, busy=True, now=1100.0), Way.STAY),
        (replace(NEW, busy=True, now=1100.0 + PATIENCE_S), Way.ENTER),
        (replace(NEW, busy=True, now=99.0), Way.ENTER),
        (replace(NEW, listed=frozenset((A, B, C))), Way.FORGET),
        (replace(NEW, present=frozenset((A, B))), Way.FORGET),
    ],
)
def test_for_how_long(facts: DoorFacts, way: Way) -> None:
    (verdict,) = look_again([KEPT], facts, LIMITS)
    assert verdict.way is way
    why = KEPT.why if way is not Way.STAY else verdict.kept.why if facts.busy else WHY
    assert (verdict.kept, facts.busy and way is Way.STAY) == (replace(KEPT, why=why), why.kind == DUE)
    assert bool(verdict.why) == (way is not Way.STAY)


KRELS = st.sampled_from([A, B, C])


@given(
    next_boot=KRELS | st.none(),
    lacking=st.frozensets(KRELS),
    present=st.frozensets(KRELS),
    listed=st.frozensets(KRELS),
    running=KRELS | st.none(),
    now=st.floats(-5000, 5000),
)
def test_the_machine_always_has_a_good_default(
    next_boot: str | None,
    lacking: frozenset[str],
    present: frozenset[str],
    listed: frozenset[str],
    running: str | None,
    now: float,
) -> None:
    taken = takes(next_boot) if next_boot else UNKNOWN
    facts = DoorFacts(taken, dict.fromkeys(lacking, WHY), present, listed, running, required=True, now=now)
    (verdict,) = look_again([KEPT], facts, LIMITS)
    for is_outside in (why_not_enter(C, facts, LIMITS) is not None, verdict.way is Way.STAY):
        if is_outside:
            assert next_boot is not None
            assert next_boot in present - lacking - {C}
            assert C not in (running, *listed)


def test_status_says_it() -> None:
    (line,) = guard_sentences(GuardState(kept_out=(KEPT,)), LIMITS)
    assert f"{C} (pkg is not in place yet)" in line
    assert guard_sentences(GuardState(), LIMITS) == ()


def test_any_entry_of_a_kernel_counts(machine: Machine) -> None:
    machine.grub()
    assert find_listed(look_at_boot(machine.paths), (OLDER, NEWER, "6.9")) == {OLDER, NEWER}
    (machine.root / "boot/grub/grub.cfg").write_text("blscfg\n")
    assert find_listed(look_at_boot(machine.paths), (OLDER, NEWER)) == frozenset()
    machine.entry(NEWER)
    assert find_listed(look_at_boot(machine.paths), (OLDER, NEWER)) == {NEWER}
