"""Which kernels are worth a look before the machine goes down, or before it has come up. Pure.

A look at a kernel on which nothing changed decides what it decided before: a build that failed fails again, headers
that are missing are still missing. Only doubts and unfinished work are worth anybody's wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autokmod.decide.readiness import is_bootable
from autokmod.model import Job, KernelStatus, Readiness, Reason, Verb
from autokmod.versions import sort_key

UNFINISHED = frozenset(
    {
        "never-examined", "not-examined", "kernel-changed", "record-damaged", "store-damaged",
        "file-gone", "file-changed", "link-changed", "not-indexed", "not-verified", "content-differs", "not-readable",
        "build-interrupted", "build-impossible", "placement-failed", "depmod-failed", "index-unreadable",
        "initrd-due", "initrd-changed", "initrd-gone", "initrd-away",
        "job-queued", "job-running", "job-delayed",
    }
)  # fmt: skip
WHY = "shutdown"


def needs_look(status: KernelStatus) -> bool:
    if status.readiness is Readiness.READY or not is_bootable(status):
        return False
    return any(reason.kind in UNFINISHED for reason in _reasons(status))


def _reasons(status: KernelStatus) -> tuple[Reason, ...]:
    return status.reasons + tuple(p.reasons[0] for p in status.placements if p.reasons and not p.is_good)


def jobs_before_shutdown(jobs: Sequence[Job], statuses: Sequence[KernelStatus]) -> tuple[Job, ...]:
    """What is queued, however long it was to be delayed, and what nobody has queued yet.

    Removals first, as others may link to what goes; then the kernel of the next boot, then the newest.
    """
    removals = {job.krel: job for job in jobs if job.verb is Verb.REMOVE}
    wanted = {job.krel: job for job in jobs if job.verb is Verb.RECONCILE and not _is_outdated(job, removals)}
    everything = any(job.verb is Verb.RESCAN for job in jobs)
    for status in statuses:
        if is_bootable(status) and status.krel not in removals and (everything or needs_look(status)):
            wanted.setdefault(status.krel, Job(Verb.RECONCILE, status.krel, WHY, 0.0))
    next_boot = {status.krel for status in statuses if status.next_boot}
    newest_first = sorted(wanted.values(), key=lambda job: sort_key(job.krel), reverse=True)
    in_order = sorted(newest_first, key=lambda job: job.krel not in next_boot)
    return (*removals.values(), *(replace(job, id=0) for job in in_order))


def _is_outdated(job: Job, removals: dict[str, Job]) -> bool:
    return job.krel in removals and job.created_at < removals[job.krel].created_at
