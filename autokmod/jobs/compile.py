"""Packages of one kernel compiled, all at once and longest first: the job tokens decide how many compilers run.

One process at a time compiles: daemon, `autokmodd --oneshot` and `autokmodctl build` wait for one another, so that the
budget of tokens is the machine's, and what one of them has just stored the next does not compile again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

from autokmod.act.build import build_package
from autokmod.config import Config
from autokmod.decide.duration import expected_s
from autokmod.decide.facts import Facts
from autokmod.errors import AutokmodError
from autokmod.files import locked_at_once
from autokmod.jobs.output import tell_output
from autokmod.jobs.tokens import TokenPool
from autokmod.model import Build, Package, Reason
from autokmod.observe.tree import read_tree
from autokmod.paths import Paths
from autokmod.run import Cancel

Progress = Callable[[str], None]
LOOK_S = 0.2  # how soon whoever waits for the lock notices that it is free
CANCELLED = Reason("cancelled", "the build was cancelled")


@dataclass(frozen=True, slots=True)
class Compiling:
    paths: Paths
    config: Config
    tokens: TokenPool
    cancel: Cancel
    progress: Progress

    def run(
        self, facts: Facts, packages: Sequence[Package], depends: Mapping[str, Sequence[Build]]
    ) -> dict[str, Reason | None]:
        """Build key → why it could not even be tried; None: how it went stands in the store.

        In one's turn. `depends`: package id → the builds to build upon.
        """
        todo = sorted(packages, key=lambda p: self._expected_s(facts, p), reverse=True)
        contexts = [copy_context() for _ in todo]  # whose job it is, for what is said on the pool's threads
        with ThreadPoolExecutor(max_workers=self.tokens.tokens) as pool:  # more would wait, in any order
            reasons = pool.map(lambda p, c: c.run(self._build, facts, p, depends.get(p.id, ())), todo, contexts)
            return dict(zip((facts.keys[p.id] for p in todo), reasons, strict=True))

    def _expected_s(self, facts: Facts, package: Package) -> float:
        files = (entry.path for entry in read_tree(self.paths.resolve(package.source)).entries)
        return expected_s(package, facts.builds, files)

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether one had to wait for it: what was seen before may be true no more. A cancelled one waits no longer."""
        has_waited = False
        while True:
            with locked_at_once(self.paths.build_lock) as is_ours:
                if is_ours or self.cancel.requested:
                    yield has_waited
                    return
            if not has_waited:
                self.progress("waiting for another process of autokmod that is building")
            has_waited = True
            self.cancel.wait(LOOK_S)

    def _build(self, facts: Facts, package: Package, depends: Sequence[Build]) -> Reason | None:
        if self.cancel.requested:
            return CANCELLED
        self.progress(f"building {package.id} for {facts.kernel.krel}")
        try:
            build = self._compile(facts, package, depends)
        except (AutokmodError, OSError) as exc:
            return Reason("build-impossible", f"it could not be built: {exc}")
        if build.directory:  # one that was cancelled is not kept
            tell_output(build)
        how = "built" if build.ok else "failed"
        self.progress(f"{how} {package.id} for {facts.kernel.krel} in {build.duration_s:.1f} s")
        return None

    def _compile(self, facts: Facts, package: Package, depends: Sequence[Build]) -> Build:
        return build_package(
            self.paths,
            self.config,
            package,
            facts.recipes[package.id],
            facts.kernel,
            facts.abi,
            facts.keys[package.id],
            facts.source_keys[package.id],
            self.tokens,
            self.cancel,
            depends,
        )
