"""May this kernel be booted? Each row: what was seen, what that means, and the first reason given for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autokmod.config import Config, PackageConfig
from autokmod.decide.readiness import decide_readiness, is_bootable
from autokmod.model import (
    DecisionKind,
    Job,
    JobState,
    Kernel,
    KernelRecord,
    KernelState,
    PlacedFile,
    Placement,
    Readiness,
    Reason,
    Verb,
)
from autokmod.observe.sight import Sight, Source

KREL, OTHER = "6.1.0-55-amd64", "6.1.0-56-amd64"
FILE = PlacedFile("mod", "updates/autokmod/pkg/mod.ko", None, "00", 1, 1)
WHY = (Reason("no-build", "never built"),)
BUILT = Placement("pkg", "1.0", DecisionKind.BUILD, WHY, "k", "s", None, 3, (FILE,), verified=True)
LINKED = replace(BUILT, kind=DecisionKind.LINK, link_from=OTHER)
OLD_KEPT = replace(BUILT, failed=True, reasons=(Reason("build-failed", "the build failed"),))
FAILED = replace(OLD_KEPT, files=(), verified=False)
BLOCKED = replace(BUILT, kind=DecisionKind.BLOCKED, files=(), verified=False, reasons=(Reason("no-key", "no key"),))
WAITS = replace(BUILT, kind=DecisionKind.WAIT, files=(), verified=False, reasons=(Reason("headers-missing", "none"),))
SKIPPED = replace(BUILT, kind=DecisionKind.SKIP, files=(), verified=False, reasons=(Reason("excluded-arch", "no"),))
BY_ADMIN = replace(SKIPPED, reasons=(Reason("disabled", "the administrator disabled this package"),))
UNVERIFIED = replace(BUILT, verified=False)

PKG, NEWER, OLDER, ELSE = Source("pkg", "1.0"), Source("pkg", "1.1"), Source("pkg", "0.9"), Source("else", "2")
REQUIRED = Config(packages=(("pkg", PackageConfig(required=True)),))
DISABLED = Config(packages=(("pkg", PackageConfig(enabled=False)),))
EXCLUDED = Config(packages=(("pkg", PackageConfig(exclude_kernels=("6.1.0-5?-*",), required=True)),))
PLAIN = Config()
GONE = {"pkg": (Reason("file-gone", "mod.ko is gone"),)}
DAMAGED = (Reason("record-damaged", "damaged"),)


def kernel(state: KernelState = KernelState.COMPLETE, *problems: Reason) -> Kernel:
    return Kernel(KREL, state, f"/lib/modules/{KREL}", None, None, problems, 0.0)


def seen(*placements: Placement, sources: tuple[Source, ...] = (PKG,), **more: Any) -> Sight:
    record = KernelRecord(KREL, 1.0, placements)
    return replace(Sight(kernel(), record, sources), **more)


NEVER = Sight(kernel(), None, (PKG,))
READY, PENDING, WAITING = Readiness.READY, Readiness.PENDING, Readiness.WAITING
DEGRADED, NOT_READY = Readiness.DEGRADED, Readiness.NOT_READY


@pytest.mark.parametrize(
    ("sight", "config", "readiness", "kind"),
    [
        # every package verified
        (seen(BUILT), PLAIN, READY, None),
        (seen(LINKED), REQUIRED, READY, None),
        (seen(BUILT, sources=(PKG, OLDER)), PLAIN, READY, None),
        (seen(BUILT, sources=()), PLAIN, READY, None),
        # nothing to do
        (Sight(kernel(), None, ()), PLAIN, READY, None),
        (Sight(kernel(), None, (PKG,)), DISABLED, READY, None),
        (Sight(kernel(), None, (PKG,)), EXCLUDED, READY, None),
        (seen(SKIPPED), PLAIN, READY, None),
        (seen(BY_ADMIN), REQUIRED, READY, None),
        # never looked at, or not to be believed
        (NEVER, PLAIN, NOT_READY, "never-examined"),
        (Sight(kernel(), None, (PKG,), doubts=DAMAGED), PLAIN, NOT_READY, "record-damaged"),
        (Sight(kernel(), None, (), doubts=DAMAGED), PLAIN, NOT_READY, "record-damaged"),
        (seen(BUILT, doubts=(Reason("kernel-changed", "changed"),)), PLAIN, NOT_READY, "kernel-changed"),
        (seen(BUILT, sources=(PKG, ELSE)), PLAIN, DEGRADED, "not-examined"),
        (seen(BUILT, sources=(NEWER,)), PLAIN, DEGRADED, "not-examined"),
        (seen(BUILT, sources=(NEWER,)), REQUIRED, NOT_READY, "not-examined"),
        (seen(sources=(PKG,)), DISABLED, READY, None),
        (seen(UNVERIFIED), PLAIN, DEGRADED, "not-verified"),
        (seen(UNVERIFIED), REQUIRED, NOT_READY, "not-verified"),
        (seen(replace(UNVERIFIED, reasons=())), PLAIN, DEGRADED, "not-verified"),
        (seen(BUILT, changed=GONE), PLAIN, DEGRADED, "file-gone"),
        (seen(LINKED, changed=GONE), REQUIRED, NOT_READY, "file-gone"),
        # what went wrong
        (seen(FAILED), PLAIN, DEGRADED, "build-failed"),
        (seen(FAILED), REQUIRED, NOT_READY, "build-failed"),
        (seen(FAILED), DISABLED, READY, None),
        (seen(OLD_KEPT), PLAIN, DEGRADED, "build-failed"),
        (seen(BLOCKED), PLAIN, DEGRADED, "no-key"),
        (seen(BLOCKED), REQUIRED, NOT_READY, "no-key"),
        (seen(WAITS), PLAIN, WAITING, "headers-missing"),
        (seen(WAITS), REQUIRED, WAITING, "headers-missing"),
        (seen(SKIPPED), REQUIRED, NOT_READY, "required-skipped"),
        (seen(sources=()), REQUIRED, NOT_READY, "required-absent"),
        (Sight(kernel(), None, ()), REQUIRED, NOT_READY, "required-absent"),
        (seen(BUILT, record=KernelRecord(KREL, 1.0, (BUILT,), going=True)), PLAIN, NOT_READY, "going"),
        (
            seen(record=KernelRecord(KREL, 1.0, (BUILT,), initrd=Reason("initrd-due", "due"), initrd_ok=False)),
            PLAIN,
            NOT_READY,
            "initrd-due",
        ),
        (seen(record=KernelRecord(KREL, 1.0, (BUILT,), initrd_ok=False)), PLAIN, NOT_READY, "initrd-failed"),
        # the kernel itself
        (seen(BUILT, kernel=kernel(KernelState.NO_HEADERS, Reason("headers-missing", "none"))), PLAIN, READY, None),
        (seen(BUILT, kernel=kernel(KernelState.NO_IMAGE, Reason("no-image", "none"))), PLAIN, READY, "no-image"),
        (seen(BUILT, kernel=kernel(KernelState.INCOMPLETE, Reason("half", "half"))), PLAIN, NOT_READY, "half"),
        (Sight(kernel(KernelState.INCOMPLETE, Reason("half", "half")), None, ()), PLAIN, NOT_READY, "half"),
        (Sight(kernel(KernelState.HEADERS_ONLY), None, (PKG,)), PLAIN, WAITING, "headers-only"),
    ],
)
def test_readiness(sight: Sight, config: Config, readiness: Readiness, kind: str | None) -> None:
    status = decide_readiness(sight, config, ())
    first = status.reasons[0].kind if status.reasons else None
    assert (status.readiness, first) == (readiness, kind)


def job(state: JobState = JobState.QUEUED, krel: str = KREL, verb: Verb = Verb.RECONCILE, error: str = "") -> Job:
    return Job(verb, krel, "kernel-install", 1.0, state=state, last_error=error)


@pytest.mark.parametrize(
    ("sight", "jobs", "readiness", "kinds"),
    [
        (seen(BUILT), [job()], PENDING, ["job-queued"]),
        (seen(BUILT), [job(JobState.RUNNING)], PENDING, ["job-running"]),
        (seen(BUILT), [job(krel=OTHER)], READY, []),
        (seen(BUILT), [job(krel="all", verb=Verb.RESCAN)], PENDING, ["job-queued"]),
        (seen(BUILT), [job(verb=Verb.REMOVE)], PENDING, ["job-queued"]),
        (seen(BUILT), [job(JobState.DELAYED)], PENDING, ["job-delayed"]),
        (NEVER, [job()], PENDING, ["never-examined", "job-queued"]),
        (seen(FAILED), [job()], PENDING, ["build-failed", "job-queued"]),
        # waiting for another try, nothing is in hand: what went wrong is how it stands
        (seen(FAILED), [job(JobState.DELAYED)], DEGRADED, ["build-failed", "job-delayed"]),
        (NEVER, [job(JobState.DELAYED)], NOT_READY, ["never-examined", "job-delayed"]),
        (Sight(kernel(KernelState.HEADERS_ONLY), None, (PKG,)), [job()], WAITING, ["headers-only"]),
    ],
)
def test_with_jobs(sight: Sight, jobs: list[Job], readiness: Readiness, kinds: list[str]) -> None:
    status = decide_readiness(sight, PLAIN, jobs)
    assert (status.readiness, [r.kind for r in status.reasons]) == (readiness, kinds)


def test_the_worst_counts_and_comes_first() -> None:
    named = [replace(p, package=n) for p, n in ((FAILED, "a"), (WAITS, "b"), (BUILT, "c"), (FAILED, "pkg"))]
    status = decide_readiness(seen(*named, sources=()), REQUIRED, ())
    assert status.readiness is NOT_READY
    assert [r.text for r in status.reasons] == [
        "pkg failed: the build failed",
        "b waits: none",
        "a failed: the build failed",
    ]


def test_who_is_worse() -> None:
    """A package that may still come is no lesser gap than one that was optional and failed."""
    status = decide_readiness(seen(replace(FAILED, package="a"), WAITS), PLAIN, ())
    assert status.readiness is WAITING


def test_the_delayed_job_says_what_went_wrong() -> None:
    status = decide_readiness(seen(FAILED), PLAIN, [job(JobState.DELAYED, error="no space left")])
    assert status.reasons[-1].text == "it will be tried again by itself: no space left"


def test_every_reason_of_ours_says_what_to_do() -> None:
    for sight in (NEVER, seen(BUILT, sources=(PKG, ELSE)), seen(UNVERIFIED)):
        assert decide_readiness(sight, PLAIN, ()).reasons[0].hint == f"autokmodctl reconcile {KREL}"


def test_what_the_disk_contradicts_is_not_shown_as_verified() -> None:
    shown = decide_readiness(seen(BUILT, changed=GONE), PLAIN, ()).placements[0]
    assert not shown.verified
    assert [r.kind for r in shown.reasons] == ["file-gone", "no-build"]
    assert decide_readiness(seen(BUILT), PLAIN, ()).placements == (BUILT,)


def test_running_is_passed_on_and_the_next_boot_is_not_known() -> None:
    status = decide_readiness(seen(BUILT, running=True), PLAIN, ())
    assert (status.running, status.next_boot) == (True, None)


def test_headers_alone_are_nothing_to_boot() -> None:
    headers = decide_readiness(Sight(kernel(KernelState.HEADERS_ONLY), None), PLAIN, ())
    assert not is_bootable(headers)
    assert is_bootable(decide_readiness(seen(BUILT), PLAIN, ()))
