"""Packages built for kernels and not placed: the store has them then, and every reconcile finds them there.

This is a question that a person waits for, not an intent: its answer belongs to who asks, and ends with Ctrl-C. So it
is no job of the queue, where it would hold up a new kernel. It takes its turn among those that compile, kernel by
kernel, and lets others in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from autokmod.config import Config
from autokmod.decide.early import select_versions
from autokmod.decide.facts import Facts
from autokmod.decide.matrix import Cell, Outcome, build_upon, decide_cells, with_needed
from autokmod.files import locked
from autokmod.jobs.compile import CANCELLED, LOOK_S, Compiling, Progress
from autokmod.jobs.look import Looker
from autokmod.jobs.tokens import TokenPool
from autokmod.model import KernelState, Package, Reason
from autokmod.paths import Paths
from autokmod.run import Cancel

GIVE_WAY_S = 3 * LOOK_S  # between two kernels: longer than whoever waits for the lock needs to notice


@dataclass(slots=True)
class Matrix:
    paths: Paths
    config: Config
    looker: Looker
    tokens: TokenPool
    cancel: Cancel
    progress: Progress
    names: Sequence[str]  # NAME (its newest version) or NAME/VERSION; none: all packages
    force: bool = False  # builds that failed before are tried again
    has_compiled: bool = field(default=False, init=False)

    def run(self, krels: Sequence[str]) -> tuple[Cell, ...]:
        """Kernel by kernel, packages in name order. Raises UnknownKernel, OSError."""
        return tuple(cell for krel in krels for cell in self._kernel(krel))

    def _kernel(self, krel: str) -> list[Cell]:
        tried: dict[str, Reason | None] = {}
        if self.has_compiled:
            self.cancel.wait(GIVE_WAY_S)
        while True:
            facts = self._look(krel)
            cells, todo = decide_cells(facts, self._wanted(facts), tried)
            if not todo or self.cancel.requested:
                rest = self._unanswered(facts, cells)
                return sorted([*cells.values(), *rest], key=lambda c: (c.package, c.version))
            tried |= self._compile(facts, todo, tried)

    def _compile(
        self, facts: Facts, todo: Sequence[Package], tried: dict[str, Reason | None]
    ) -> dict[str, Reason | None]:
        """Each round ends with at least one key more that was tried, or that somebody else has built meanwhile."""
        compiling = Compiling(self.paths, self.config, self.tokens, self.cancel, self.progress)
        with compiling.turn() as has_waited:
            if has_waited:
                facts = self._look(facts.kernel.krel)
                todo = decide_cells(facts, self._wanted(facts), tried)[1]
            self.has_compiled = self.has_compiled or bool(todo)
            return compiling.run(facts, todo, {p.id: build_upon(facts, p) for p in todo})

    def _look(self, krel: str) -> Facts:
        with locked(self.paths.lock):
            facts = replace(self.looker.look(krel), force=self.force)
        if facts.kernel.state is KernelState.INCOMPLETE:  # what is built against half a kernel says nothing
            return replace(facts, build_problem=facts.kernel.problems[0])
        return facts

    def _wanted(self, facts: Facts) -> tuple[Package, ...]:
        newest = select_versions(facts.packages)
        if not self.names:
            return newest
        chosen = [*(p for p in newest if p.name in self.names), *(p for p in facts.packages if p.id in self.names)]
        return tuple({p.id: p for p in chosen}.values())

    def _unanswered(self, facts: Facts, cells: dict[str, Cell]) -> Iterator[Cell]:
        """Cancelled before their turn came."""
        for package in with_needed(facts, self._wanted(facts)):
            if package.id not in cells:
                krel, key = facts.kernel.krel, facts.keys.get(package.id)
                yield Cell(package.name, package.version, krel, Outcome.CANCELLED, (CANCELLED,), key=key)
