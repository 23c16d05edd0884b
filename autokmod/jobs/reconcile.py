"""One kernel made right: look, decide, build what must be built, look again, until there is nothing left to build.

The lock is held while the disk is read for a decision and changed by it, never while something is compiled. In
between the world may change: each round starts from the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from autokmod.config import Config
from autokmod.decide.facts import Facts
from autokmod.decide.plan import can_be_planned, decide_kernel
from autokmod.files import locked
from autokmod.jobs.announce import announce
from autokmod.jobs.apply import apply_decisions
from autokmod.jobs.compile import Compiling, Progress
from autokmod.jobs.initrd.step import InitrdStep
from autokmod.jobs.look import Looker
from autokmod.jobs.publishing import Publishing, unattended
from autokmod.jobs.tokens import TokenPool
from autokmod.model import Build, Decision, DecisionKind, KernelRecord, Package, Reason
from autokmod.observe.atwork import find_package_manager
from autokmod.observe.kernels import read_kernel
from autokmod.paths import Paths
from autokmod.run import Cancel

DAMAGED = ("store-damaged", "content-differs", "not-readable")
MAX_SETTLE_S = 600.0  # something that changes without end is not waited for
LEAVING_S = 3600.0  # what was announced to go, is there after so long, and no package manager is at work: it stays
MAX_ROUNDS = 20  # each builds what the last one's builds made possible: as deep as packages depend on packages


@dataclass(slots=True)
class Reconciliation:
    paths: Paths
    config: Config
    looker: Looker
    tokens: TokenPool
    clock: Callable[[], float]
    krel: str
    build: bool  # False, the fast path: links and stored builds only, no initrd
    force: bool  # builds that failed before are tried again
    asked: bool  # False: a kernel whose removal was announced lately is left alone
    cancel: Cancel
    progress: Progress
    publishing: Publishing = unattended
    why: dict[tuple[str, str], tuple[Reason, ...]] = field(default_factory=dict)  # name, version → why it was compiled
    tried: dict[str, Reason | None] = field(default_factory=dict)  # build key → why it could not even be tried
    has_looked: bool = False
    announced_before: float | None = None  # when the removal was announced that is known since the first look

    def run(self) -> KernelRecord:
        """Raises UnknownKernel, OSError."""
        for left in reversed(range(MAX_ROUNDS)):
            with locked(self.paths.lock):
                facts = self._look()
                if not can_be_planned(facts) or self._is_leaving(facts.record):
                    break
                decisions = decide_kernel(facts)
                may_compile = left and self.build and not self.cancel.requested
                record = None if may_compile and _to_compile(decisions) else self._apply(facts, decisions)
            if record is None:
                self._wait_until_settled()
                self._compile(facts, decisions)
            elif not (left and self.build and _must_look_again(facts.record, record)):
                return self._see_to_initrd(record)
        return facts.record or KernelRecord(self.krel, self.clock(), ())

    def _is_leaving(self, record: KernelRecord | None) -> bool:
        """Announced to go; unless somebody asked since, or it is still there long after: then nobody removed it."""
        announced_at = record.updated_at if record is not None and record.going else None
        if not self.has_looked:
            self.has_looked, self.announced_before = True, announced_at
        if announced_at is None:
            return False
        if self.asked:
            return announced_at != self.announced_before
        return 0 <= self.clock() - announced_at < LEAVING_S or find_package_manager(self.paths) is not None

    def _apply(self, facts: Facts, decisions: Sequence[Decision]) -> KernelRecord:
        explained = [self._explained(d) for d in decisions]
        with self.publishing(self.krel):
            record = apply_decisions(self.paths, facts, explained, self.looker.records(), self.clock())
        announce(facts.record, record)
        return record

    def _see_to_initrd(self, record: KernelRecord) -> KernelRecord:
        """Without the lock: a generator takes long. The fast path leaves it to a job."""
        if not self.build or self.cancel.requested:
            return record
        records, force = self.looker.records, self.force
        step = InitrdStep(
            self.paths, self.config, self.krel, records, self.cancel, self.publishing, force, self.clock, self.asked
        )
        done = step.run(record)
        announce(record, done)
        return done

    def _explained(self, decision: Decision) -> Decision:
        """A package that was just compiled is reported with what made that necessary, not with "it is stored"."""
        why = self.why.get((decision.package, decision.version))
        if not decision.stored or why is None:
            return decision
        failure = tuple(r for r in decision.reasons if r.kind.startswith("build-"))
        return replace(decision, reasons=(*failure, *why))

    def _look(self) -> Facts:
        return replace(self.looker.look(self.krel), force=self.force, tried=dict(self.tried))

    # ---- building -------------------------------------------------------------------------------

    def _wait_until_settled(self) -> None:
        """A compiler let loose on half-unpacked headers fails, and the failure would be remembered.

        A change in the future says only that a clock was wrong.
        """
        settle_s = self.config.daemon.settle_s
        deadline = self.clock() + MAX_SETTLE_S
        while self.clock() < deadline:
            remaining = read_kernel(self.paths, self.krel).changed_at + settle_s - self.clock()
            if not 0 < remaining <= settle_s or self.cancel.wait(min(remaining, settle_s)):
                return

    def _compile(self, facts: Facts, decisions: Sequence[Decision]) -> None:
        compiling = Compiling(self.paths, self.config, self.tokens, self.cancel, self.progress)
        with compiling.turn() as has_waited:
            if has_waited:
                with locked(self.paths.lock):
                    facts = self._look()
                decisions = decide_kernel(facts) if can_be_planned(facts) else ()
            todo = _to_compile(decisions)
            self.why.update({(d.package, d.version): d.reasons for d in todo})
            by_id = {p.id: p for p in facts.packages}
            packages = [by_id[f"{d.package}/{d.version}"] for d in todo]
            depends = {p.id: _build_upon(facts, p, decisions) for p in packages}
            self.tried.update(compiling.run(facts, packages, depends))


def _build_upon(facts: Facts, package: Package, decisions: Sequence[Decision]) -> list[Build]:
    """What the packages that it depends on will really have on this kernel: maybe another's build."""
    needed = facts.recipes[package.id].build_depends
    chosen = {d.key for d in decisions if d.package in needed}
    return [b for b in facts.builds if b.key in chosen and b.ok]


def _to_compile(decisions: Sequence[Decision]) -> list[Decision]:
    return [d for d in decisions if d.kind is DecisionKind.BUILD and not d.stored]


def _must_look_again(before: KernelRecord | None, record: KernelRecord) -> bool:
    """What turned out to be damaged, in the store or in place, is made again: the next look finds it missing."""
    known = before.placements if before else ()
    return any(p.reasons[:1] and p.reasons[0].kind in DAMAGED for p in record.placements if p not in known)
