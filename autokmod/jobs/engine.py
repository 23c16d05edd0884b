"""From a kernel's name to a kernel that is right: look, decide, build what must be built, look again, place, prove.

The same engine serves the daemon's jobs, the hooks' fast path (which compiles nothing) and `autokmodd --oneshot`.
The lock is held while modules directories are read for a decision and changed, never while something is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from autokmod.act.build import build_package
from autokmod.act.depmod import run_depmod
from autokmod.act.place import remove_all
from autokmod.act.promote import promote
from autokmod.act.records import remove_record, write_record
from autokmod.config import Config
from autokmod.decide.facts import Facts
from autokmod.decide.plan import can_be_planned, decide_kernel
from autokmod.errors import UnknownKernel
from autokmod.files import locked
from autokmod.jobs.announce import announce, announce_lost, announce_promotion
from autokmod.jobs.apply import apply_decisions, check_initrd, verify
from autokmod.jobs.look import Looker
from autokmod.jobs.tokens import TokenPool
from autokmod.model import (
    Build,
    Decision,
    DecisionKind,
    Job,
    JobResult,
    KernelRecord,
    KernelState,
    Package,
    Reason,
    Verb,
)
from autokmod.observe.kernels import find_kernels, read_kernel
from autokmod.paths import Paths
from autokmod.run import Cancel

Progress = Callable[[str], None]
MAX_SETTLE_S = 600.0  # something that changes without end is not waited for
MAX_ROUNDS = 20  # each round builds what the last one's builds made possible: as deep as packages depend on packages
# Whoever asks like this speaks for a kernel that stays, also after its removal was announced.
SPEAKS_FOR_KERNEL = frozenset({"kernel-install", "debian-postinst", "debian-headers", "admin"})


class Engine:
    def __init__(self, paths: Paths, config: Config, clock: Callable[[], float]) -> None:
        self.paths, self.config, self.clock = paths, config, clock
        self.looker = Looker(paths, config)
        self.tokens = TokenPool(config.build.jobs)

    # ---- what is there to do --------------------------------------------------------------------

    def kernels_to_check(self) -> tuple[str, ...]:
        """Every kernel that could be booted; whether anything is wrong with it is found out by its job."""
        skipped = (KernelState.HEADERS_ONLY, KernelState.INCOMPLETE)
        return tuple(k.krel for k in find_kernels(self.paths) if k.state not in skipped)

    def run_job(self, job: Job, cancel: Cancel, progress: Progress) -> JobResult:
        if job.verb is Verb.REMOVE:
            self.remove(job.krel)
            return JobResult("done", f"{job.krel}: nothing links to it any more")
        krels = self.kernels_to_check() if job.verb is Verb.RESCAN else (job.krel,)
        results = [self._reconcile_job(krel, job, cancel, progress) for krel in krels]
        return next((r for r in results if r.result != "done"), results[0] if results else JobResult("done"))

    def _reconcile_job(self, krel: str, job: Job, cancel: Cancel, progress: Progress) -> JobResult:
        try:
            asked = job.why in SPEAKS_FOR_KERNEL
            record = self.reconcile(krel, force=job.force, asked=asked, cancel=cancel, progress=progress)
        except UnknownKernel:
            return self._forget(krel)
        if cancel.requested:
            return JobResult("cancelled")
        return job_result(record)

    def _forget(self, krel: str) -> JobResult:
        """A kernel that is gone. Others may have linked to it without anyone telling us: they are looked at."""
        remove_record(self.paths, krel)
        for record in self.looker.records().values():
            if any(p.link_from == krel for p in record.placements):
                self.reconcile(record.krel)
        return JobResult("done", f"{krel} is not on this machine any more")

    # ---- make it right --------------------------------------------------------------------------

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
        """Raises UnknownKernel; CommandFailed or ToolMissing of depmod; OSError.

        `build=False` is the fast path: links and stored builds only, no initrd. `asked=False`: whoever asks does
        not know whether the kernel is on its way out, so one whose removal was announced is left alone.
        """
        cancel = cancel or Cancel()
        why: dict[str, tuple[Reason, ...]] = {}
        for round_ in range(MAX_ROUNDS):
            with locked(self.paths.lock):
                facts = self.looker.look(krel, force=force and round_ == 0)
                if not can_be_planned(facts) or (facts.record and facts.record.going and not asked):
                    return facts.record or KernelRecord(krel, self.clock(), ())
                decisions = decide_kernel(facts)
                todo = [d for d in decisions if d.kind is DecisionKind.BUILD and not d.stored]
                if not todo or not build or cancel.requested or round_ == MAX_ROUNDS - 1:
                    return self._apply(facts, [_explained(d, why) for d in decisions], initrd=build)
            why.update({d.package: d.reasons for d in todo})
            self._wait_until_settled(krel, cancel)
            self._build(facts, todo, cancel, progress or (lambda _: None))
        raise AssertionError("unreachable: the last round applies")

    def _wait_until_settled(self, krel: str, cancel: Cancel) -> None:
        """A compiler let loose on half-unpacked headers fails, and the failure would be remembered."""
        settle_s = self.config.daemon.settle_s
        deadline = self.clock() + MAX_SETTLE_S
        while self.clock() < deadline:
            remaining = read_kernel(self.paths, krel).changed_at + settle_s - self.clock()
            if remaining <= 0 or cancel.wait(min(remaining, settle_s)):
                return

    def _apply(self, facts: Facts, decisions: Sequence[Decision], *, initrd: bool) -> KernelRecord:
        record = apply_decisions(self.paths, facts, decisions, self.looker.records(), self.clock())
        record = check_initrd(self.paths, facts, record) if initrd else record
        announce(facts.record, record)
        return record

    def _build(self, facts: Facts, todo: Sequence[Decision], cancel: Cancel, progress: Progress) -> None:
        """All at once, longest first: the job tokens decide how many compilers run."""
        by_name = {p.id: p for p in facts.packages}
        packages = [by_name[f"{d.package}/{d.version}"] for d in todo]
        packages.sort(key=lambda p: _last_duration(facts, p), reverse=True)
        with ThreadPoolExecutor(max_workers=max(1, len(packages))) as pool:
            list(pool.map(lambda p: self._build_one(facts, p, cancel, progress), packages))

    def _build_one(self, facts: Facts, package: Package, cancel: Cancel, progress: Progress) -> Build | None:
        if cancel.requested:
            return None
        progress(f"building {package.id} for {facts.kernel.krel}")
        build = build_package(
            self.paths,
            self.config,
            package,
            facts.recipes[package.id],
            facts.kernel,
            facts.abi,
            facts.keys[package.id],
            facts.source_keys[package.id],
            self.tokens,
            cancel,
        )
        how = "built" if build.ok else "failed"
        progress(f"{how} {package.id} for {facts.kernel.krel} in {build.duration_s:.1f} s")
        return build

    # ---- a kernel goes --------------------------------------------------------------------------

    def remove(self, krel: str) -> None:
        """Before the kernel's files go: promote what others link to, take our files out, remember that it goes.

        What could not be promoted stays where it is, so that no link dangles as long as that is in our hands.
        """
        with locked(self.paths.lock):
            done = promote(self.paths, self.looker.records(), krel)
            for record in done.changed.values():
                self._reindex(record)
                announce_promotion(record, krel)
            for package, why in done.failed.items():
                announce_lost(package, krel, why)
            if self.paths.modulesd(krel).is_dir():
                remove_all(self.paths, krel, but=done.failed)
                write_record(self.paths, KernelRecord(krel, self.clock(), (), going=True))
            else:
                remove_record(self.paths, krel)

    def _reindex(self, record: KernelRecord) -> None:
        run_depmod(self.paths, record.krel)
        verified = tuple(verify(self.paths, record.krel, p) for p in record.placements)
        write_record(self.paths, replace(record, placements=verified, updated_at=self.clock()))


def _explained(decision: Decision, why: Mapping[str, tuple[Reason, ...]]) -> Decision:
    """A package that was just compiled is reported with what made that necessary, not with "it is in the store"."""
    if not decision.stored or decision.package not in why:
        return decision
    failure = tuple(r for r in decision.reasons if r.kind == "build-failed")
    return replace(decision, reasons=(*failure, *why[decision.package]))


def _last_duration(facts: Facts, package: Package) -> float:
    """Seconds the package took last; one never built may be the longest of all."""
    known = [b for b in facts.builds if b.package == package.name]
    return max(known, key=lambda b: b.built_at).duration_s if known else float("inf")


def job_result(record: KernelRecord) -> JobResult:
    failed = [p for p in record.placements if p.failed]
    waiting = record.initrd is not None and record.initrd.kind == "initrd-due"
    if failed:
        return JobResult("failed", "; ".join(f"{p.package}: {p.reasons[0].text}" for p in failed))
    if waiting:
        return JobResult("failed", "the initrd waits for the package manager to finish", transient=True)
    return JobResult("done", f"{record.krel}: {len(record.placements)} packages looked at")


