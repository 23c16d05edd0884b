"""What a job does. The same engine serves the daemon, the hooks' fast path and `autokmodd --oneshot`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from autokmod.act.former import forget_leftovers
from autokmod.act.place import remove_all
from autokmod.act.records import remove_record, write_record
from autokmod.config import Config
from autokmod.errors import UnknownKernel
from autokmod.files import locked
from autokmod.jobs.bootguard import guard_boot
from autokmod.jobs.compile import Progress
from autokmod.jobs.gc import Keeper
from autokmod.jobs.handover import hand_over
from autokmod.jobs.keepout import has_due_entry
from autokmod.jobs.look import Looker
from autokmod.jobs.publishing import Publishing, unattended
from autokmod.jobs.reconcile import Reconciliation
from autokmod.jobs.tokens import TokenPool
from autokmod.model import Job, JobResult, KernelRecord, KernelState, Verb
from autokmod.observe.kernels import find_kernels
from autokmod.paths import Paths
from autokmod.run import Cancel

# Whoever asks like this speaks for a kernel that stays, also after its removal was announced.
SPEAKS_FOR_KERNEL = frozenset({"kernel-install", "debian-postinst", "debian-headers", "rpm-in", "alpm-add", "admin"})
MAY_PASS = frozenset({"build-interrupted", "build-impossible", "placement-failed", "depmod-failed"})


class Engine:
    def __init__(
        self, paths: Paths, config: Config, clock: Callable[[], float], publishing: Publishing = unattended
    ) -> None:
        self.paths, self.config, self.clock, self.publishing = paths, config, clock, publishing
        self.looker = Looker(paths, config)
        self.tokens = TokenPool(config.build.jobs)
        self._keeper = Keeper(paths, config)

    def rest(self) -> None:
        """Nothing is to be done for a while: what is kept to be quick is given up."""
        self.looker.rest()
        gc.collect()  # what jobs left behind in cycles

    def close(self) -> None:
        self.tokens.close()

    def kernels_to_check(self) -> tuple[str, ...]:
        """Every kernel that could be booted; whether anything is wrong with it is found out by its job."""
        skipped = (KernelState.HEADERS_ONLY, KernelState.INCOMPLETE)
        return tuple(k.krel for k in find_kernels(self.paths) if k.state not in skipped)

    # ---- jobs -----------------------------------------------------------------------------------

    def run_job(self, job: Job, cancel: Cancel, progress: Progress) -> JobResult:
        if job.verb is Verb.REMOVE:
            self.remove(job.krel)
            self.guard_boot()
            return JobResult("done", f"{job.krel}: nothing links to it any more")
        krels = self.kernels_to_check() if job.verb is Verb.RESCAN else (job.krel,)
        results = [self._reconcile_job(krel, job, cancel, progress) for krel in krels]
        self.keep_small()
        self.guard_boot()
        return _worst(results) or self._entry_due(krels) or (results[0] if results else JobResult("done"))

    def _entry_due(self, krels: Collection[str]) -> JobResult | None:
        if not has_due_entry(self.paths, krels):
            return None
        return JobResult("failed", "a boot entry waits for the package manager to finish", transient=True, patient=True)

    def _reconcile_job(self, krel: str, job: Job, cancel: Cancel, progress: Progress) -> JobResult:
        try:
            asked = job.why in SPEAKS_FOR_KERNEL
            record = self.reconcile(krel, force=job.force, asked=asked, cancel=cancel, progress=progress)
        except UnknownKernel:
            return self._forget(krel, job, cancel, progress)
        return JobResult("cancelled") if cancel.requested else job_result(record)

    def _forget(self, krel: str, job: Job, cancel: Cancel, progress: Progress) -> JobResult:
        """A kernel that is gone. Others may have linked to it without anyone telling us: they are looked at."""
        remove_record(self.paths, krel)
        forget_leftovers(self.paths, krel)
        linked = [r.krel for r in self.looker.records().values() if any(p.link_from == krel for p in r.placements)]
        unasked = replace(job, why="kernel-gone", force=False)
        results = [self._reconcile_job(other, unasked, cancel, progress) for other in linked]
        return _worst(results) or JobResult("done", f"{krel} is not on this machine any more")

    def keep_small(self) -> None:
        """The store, after a job: see config.StoreConfig."""
        self._keeper.keep_small(self.clock())

    def guard_boot(self) -> None:
        """Whatever the job changed may change which kernel should be booted by default: see config.BootGuardConfig."""
        guard_boot(self.paths, self.config, self.clock())

    # ---- what they do ---------------------------------------------------------------------------

    def reconcile(
        self,
        krel: str,
        *,
        build: bool = True,
        force: bool = False,
        asked: bool = True,
        cancel: Cancel | None = None,
        progress: Progress | None = None,
    ) -> KernelRecord:
        """See Reconciliation. Raises UnknownKernel, OSError."""
        return Reconciliation(
            self.paths,
            self.config,
            self.looker,
            self.tokens,
            self.clock,
            krel,
            build=build,
            force=force,
            asked=asked,
            cancel=cancel or Cancel(),
            progress=progress or (lambda _: None),
            publishing=self.publishing,
        ).run()

    def remove(self, krel: str) -> None:
        """Before the kernel's files go: promote what others link to, take our files out, remember that it goes.

        What could not be promoted stays where it is, so that no link dangles as long as that is in our hands.
        """
        with locked(self.paths.lock), self.publishing(krel):
            lost = hand_over(self.paths, self.looker.records(), krel, self.clock())
            if self.paths.modulesd(krel).is_dir():
                remove_all(self.paths, krel, but=lost)
                write_record(self.paths, KernelRecord(krel, self.clock(), (), going=True))
            else:
                remove_record(self.paths, krel)


def _worst(results: Iterable[JobResult]) -> JobResult | None:
    return next((r for r in results if r.result != "done"), None)


def job_result(record: KernelRecord) -> JobResult:
    passing = [p for p in record.placements if p.reasons and p.reasons[0].kind in MAY_PASS]
    failed = [p for p in record.placements if p.failed or p in passing]
    if failed:
        what = "; ".join(f"{p.package}: {p.reasons[0].text}" for p in failed)
        return JobResult("failed", what, transient=bool(passing))
    if record.index is not None:
        return JobResult("failed", f"{record.krel}: {record.index.text}", transient=True)
    if record.initrd is not None and record.initrd.kind == "initrd-due":
        return JobResult("failed", f"{record.krel}: {record.initrd.text}", transient=True, patient=True)
    if record.initrd is not None and not record.initrd_ok:
        may_pass = record.initrd.kind == "initrd-failed" and record.initrd_seen is None
        return JobResult("failed", f"{record.krel}: {record.initrd.text}", transient=may_pass)
    return JobResult("done", f"{record.krel}: {len(record.placements)} packages looked at")
