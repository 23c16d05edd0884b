"""Which kernels are looked at before the machine goes down, and in which order."""

from __future__ import annotations

import pytest

from autokmod.decide.need import jobs_before_shutdown, needs_look
from autokmod.model import (
    DecisionKind,
    Job,
    KernelState,
    KernelStatus,
    Placement,
    Readiness,
    Reason,
    Verb,
)

OLD, NEW, NEWEST = "6.1.0-9-amd64", "6.1.0-53-amd64", "6.12.1-1-amd64"


def status(
    krel: str, readiness: Readiness = Readiness.READY, *kinds: str, next_boot: bool | None = None
) -> KernelStatus:
    reasons = tuple(Reason(kind, kind) for kind in kinds)
    return KernelStatus(krel, KernelState.COMPLETE, readiness, False, next_boot, reasons, ())


def job(verb: Verb, krel: str, at: float = 1.0, *, force: bool = False, not_before: float = 0.0) -> Job:
    return Job(verb, krel, "test", at, id=7, force=force, not_before=not_before)


@pytest.mark.parametrize(
    ("readiness", "kinds", "wanted"),
    [
        (Readiness.READY, (), False),
        (Readiness.READY, ("kernel-changed",), False),
        (Readiness.PENDING, ("job-queued",), True),
        (Readiness.NOT_READY, ("kernel-changed",), True),
        (Readiness.NOT_READY, ("never-examined",), True),
        (Readiness.NOT_READY, ("initrd-due",), True),
        (Readiness.NOT_READY, ("initrd-failed",), False),
        (Readiness.WAITING, ("no-headers",), False),
        (Readiness.DEGRADED, ("build-failed",), False),
        (Readiness.DEGRADED, ("build-failed", "file-gone"), True),
        (Readiness.DEGRADED, ("no-signing-key",), False),
    ],
)
def test_only_doubts_and_unfinished_work_are_worth_a_look(
    readiness: Readiness, kinds: tuple[str, ...], wanted: bool
) -> None:
    assert needs_look(status(NEW, readiness, *kinds)) is wanted


def test_a_placement_says_it_too() -> None:
    why = (Reason("placement-failed", "no space"),)
    placement = Placement("evdi", "1", DecisionKind.LINK, why, None, None, None, 0, (), verified=False, failed=True)
    assert needs_look(KernelStatus(NEW, KernelState.COMPLETE, Readiness.DEGRADED, False, None, (), (placement,)))


def test_headers_alone_boot_nothing() -> None:
    found = KernelStatus(
        NEW, KernelState.HEADERS_ONLY, Readiness.NOT_READY, False, None, (Reason("never-examined", ""),), ()
    )
    assert not needs_look(found)


def names(jobs: tuple[Job, ...]) -> list[str]:
    return [j.name for j in jobs]


def test_removals_first_then_the_newest() -> None:
    queue = [
        job(Verb.RECONCILE, OLD),
        job(Verb.RECONCILE, NEWEST),
        job(Verb.REMOVE, "6.1.0-1"),
        job(Verb.RECONCILE, NEW),
    ]
    assert names(jobs_before_shutdown(queue, [])) == [
        "remove-6.1.0-1", f"reconcile-{NEWEST}", f"reconcile-{NEW}", f"reconcile-{OLD}",
    ]  # fmt: skip


def test_what_boots_next_comes_before_what_is_newer() -> None:
    statuses = [status(NEW, next_boot=True), status(NEWEST)]
    queue = [job(Verb.RECONCILE, NEWEST), job(Verb.RECONCILE, NEW)]
    assert names(jobs_before_shutdown(queue, statuses)) == [f"reconcile-{NEW}", f"reconcile-{NEWEST}"]


def test_what_nobody_queued() -> None:
    statuses = [status(NEW, Readiness.NOT_READY, "never-examined"), status(OLD)]
    assert names(jobs_before_shutdown([], statuses)) == [f"reconcile-{NEW}"]
    assert names(jobs_before_shutdown([job(Verb.RESCAN, "all")], statuses)) == [f"reconcile-{NEW}", f"reconcile-{OLD}"]


def test_a_delay_is_over_and_force_is_kept() -> None:
    (found,) = jobs_before_shutdown([job(Verb.RECONCILE, NEW, force=True, not_before=9e9)], [])
    assert found.force


def test_the_last_word_on_a_kernel_counts() -> None:
    gone = [job(Verb.RECONCILE, NEW, 1.0), job(Verb.REMOVE, NEW, 2.0)]
    assert names(jobs_before_shutdown(gone, [status(NEW, Readiness.NOT_READY, "never-examined")])) == [f"remove-{NEW}"]
    back = [job(Verb.REMOVE, NEW, 1.0), job(Verb.RECONCILE, NEW, 2.0)]
    assert names(jobs_before_shutdown(back, [])) == [f"remove-{NEW}", f"reconcile-{NEW}"]


def test_nothing_to_do() -> None:
    assert jobs_before_shutdown([], [status(NEW), status(OLD, Readiness.WAITING, "no-headers")]) == ()
