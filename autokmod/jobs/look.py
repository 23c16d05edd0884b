"""The look at the disk that every decision starts from: one kernel's Facts, from all the rooms of observe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autokmod import journal
from autokmod.act.place import is_intact
from autokmod.config import Config
from autokmod.decide.buildkey import source_key
from autokmod.decide.facts import Facts
from autokmod.decide.older import relevant_versions
from autokmod.decide.signing import Signing, fits_signing
from autokmod.errors import AutokmodError, FactMissing, FormatError, RecipeError, SandboxUnavailable
from autokmod.events import Event
from autokmod.files import set_aside
from autokmod.jobs.foreign import find_foreign, find_lost_foreign
from autokmod.jobs.known import Known
from autokmod.jobs.signing import TriedKeys, read_signing
from autokmod.model import (
    Build,
    ForeignBuild,
    Kernel,
    KernelAbi,
    KernelRecord,
    ModuleFacts,
    Package,
    Placement,
    Reason,
    Recipe,
)
from autokmod.observe.kernels import list_krels, read_kernel
from autokmod.observe.ko import read_module
from autokmod.observe.lost import find_lost
from autokmod.observe.recipe import Recipes, read_recipe, recall_recipe
from autokmod.observe.stablelist import read_stablelist
from autokmod.observe.toolchain import Toolchain, read_toolchain
from autokmod.paths import Paths

log = journal.get()


class Looker:
    """Keeps what cannot change between looks: the parsed modules of a build, by its key."""

    def __init__(self, paths: Paths, config: Config) -> None:
        self.paths, self.config = paths, config
        self._contents: dict[str, tuple[ModuleFacts, ...]] = {}
        self._known = Known(paths, config)
        self._tried_keys = TriedKeys()

    def rest(self) -> None:
        self._contents = {}
        self._known.forget_symbols()

    def look(self, krel: str) -> Facts:
        """Raises UnknownKernel; OSError where the state directories cannot be read."""
        kernel = read_kernel(self.paths, krel)
        abi = self._known.abi(kernel)
        packages = self._known.packages()
        builds = self._known.builds()
        recipes, problems = self._recipes(relevant_versions(packages, builds, krel), kernel, abi)
        record = self.record(krel)
        toolchain, build_problem = self._build_means(kernel, abi)
        source_keys = {p.id: source_key(p, recipes[p.id]) for p in packages if p.id in recipes}
        builds = self._known.builds()
        wanted = set(source_keys.values())
        records = self.records().values()
        foreign = self._foreign_builds(packages, recipes, records)
        signing = read_signing(self.paths, self.config, krel, abi.config, self._tried_keys)
        return Facts(
            kernel,
            abi,
            self.config,
            packages,
            recipes,
            problems,
            source_keys,
            self._keys(packages, recipes, abi, toolchain),
            builds,
            {b.key: m for b in builds if b.ok and b.source_key in wanted and (m := self._modules(b))},
            self._owners(krel, records, signing),
            record,
            self._intact(record),
            self._foreign(krel),
            foreign,
            read_stablelist(self.paths, krel),
            build_problem,
            signing.problem,
            signing=signing,
            lost=self._lost(packages, record, records, foreign),
        )

    def record(self, krel: str) -> KernelRecord | None:
        """A damaged record is set aside: what it said is found again on the disk."""
        try:
            return self._known.record(krel)
        except FormatError as exc:
            aside = set_aside(self.paths.record(krel))
            log.warning(f"{exc}; set aside as {aside}, {krel} is examined anew", kind=Event.STATE_DAMAGED, krel=krel)
            return None

    def records(self) -> dict[str, KernelRecord]:
        found = {krel: self.record(krel) for krel in list_krels(self.paths)}
        return {krel: record for krel, record in found.items() if record is not None}

    def _recipes(
        self, packages: Sequence[Package], kernel: Kernel, abi: KernelAbi
    ) -> tuple[dict[str, Recipe], dict[str, Reason]]:
        """Evaluated side by side: each is a short sandboxed bash where it is not in the cache."""
        sound = [p for p in packages if p.problem is None]
        known = self._known.recipes()
        found: dict[str, Recipe | Reason | None] = {
            p.id: recall_recipe(self.config, p, kernel, abi, known) for p in sound
        }
        unknown = [p for p in sound if found[p.id] is None]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            evaluated = pool.map(lambda p: self._recipe(p, kernel, abi, known), unknown)
            found.update(zip((p.id for p in unknown), evaluated, strict=True))
        recipes = {id_: r for id_, r in found.items() if isinstance(r, Recipe)}
        return recipes, {id_: r for id_, r in found.items() if isinstance(r, Reason)}

    def _recipe(self, package: Package, kernel: Kernel, abi: KernelAbi, known: Recipes) -> Recipe | Reason | None:
        try:
            return read_recipe(self.paths, self.config, package, kernel, abi, known)
        except FactMissing as exc:
            return Reason("condition-unknown", str(exc), hint="mend the kernel's headers; it is tried again by itself")
        except RecipeError as exc:
            return Reason("recipe-broken", str(exc), hint=f"mend {exc.path}; it is read again by itself")
        except SandboxUnavailable as exc:
            return Reason("sandbox-unavailable", f"the build sandbox cannot start: {exc.why}", hint=exc.hint)

    def _build_means(self, kernel: Kernel, abi: KernelAbi) -> tuple[Toolchain | None, Reason | None]:
        if kernel.kdir is None:
            return None, None
        toolchain, problem = read_toolchain(self.paths, kernel, abi, self.config)
        return toolchain, problem or self._known.sandbox_problem()

    def _keys(
        self, packages: Sequence[Package], recipes: Mapping[str, Recipe], abi: KernelAbi, toolchain: Toolchain | None
    ) -> dict[str, str]:
        if toolchain is None or abi.symvers_digest is None:
            return {}
        keys: dict[str, str] = {}
        for package in _dependencies_first([p for p in packages if p.id in recipes], recipes):
            needed = recipes[package.id].build_depends
            depends = tuple(keys[d.id] for d in packages if needed and d.name in needed and d.id in keys)
            keys[package.id] = self._known.build_key(package, recipes[package.id], abi, toolchain, depends)
        return keys

    def _modules(self, build: Build) -> tuple[ModuleFacts, ...] | None:
        """None where the store's files are damaged: the build is then made anew."""
        if build.key not in self._contents:
            try:
                files = [Path(build.directory) / m.file for m in build.modules]
                self._contents[build.key] = tuple(read_module(str(f)) for f in files)
            except (AutokmodError, OSError):
                return None
        return self._contents[build.key]

    def _foreign(self, krel: str) -> tuple[ModuleFacts, ...]:
        """What depmod cannot read offers nothing."""
        found = []
        for file in self._known.external(krel).values():
            with contextlib.suppress(FormatError, OSError):
                found.append(self._known.module(file))
        return tuple(found)

    def _foreign_builds(
        self, packages: Sequence[Package], recipes: Mapping[str, Recipe], records: Collection[KernelRecord]
    ) -> tuple[ForeignBuild, ...]:
        if not self.config.link.other_owners:
            return ()
        return find_foreign(self.paths, self._known, packages, recipes, records)

    def _lost(
        self,
        packages: Sequence[Package],
        record: KernelRecord | None,
        records: Iterable[KernelRecord],
        foreign: Sequence[ForeignBuild],
    ) -> tuple[tuple[Placement, Reason], ...]:
        """A vendor's package never had a source here that could be out of sight."""
        with_source = [p for r in records for p in r.placements if p.foreign is None or p.foreign.has_source]
        lost = find_lost(self.paths, packages, with_source)
        return (*lost, *find_lost_foreign(self.paths, record, foreign)) if self.config.link.other_owners else lost

    def _owners(self, krel: str, records: Iterable[KernelRecord], signing: Signing) -> dict[str, tuple[str, ...]]:
        """Build key → the other kernels in which its own files stand intact, signed as this one wants them."""
        owners: dict[str, tuple[str, ...]] = {}
        for other, key in self._owned(krel, records, signing):
            owners[key] = (*owners.get(key, ()), other)
        return owners

    def _owned(self, krel: str, records: Iterable[KernelRecord], signing: Signing) -> Iterator[tuple[str, str]]:
        for record in records:
            if record.krel == krel or record.going:
                continue
            for placement in record.placements:
                own = placement.verified and placement.link_from is None and placement.key is not None
                own = own and fits_signing(signing, placement.signed_by)
                if own and is_intact(self.paths, record.krel, placement):
                    yield record.krel, str(placement.key)

    def _intact(self, record: KernelRecord | None) -> frozenset[str]:
        if record is None:
            return frozenset()
        return frozenset(p.package for p in record.placements if is_intact(self.paths, record.krel, p))


def _dependencies_first(packages: Sequence[Package], recipes: Mapping[str, Recipe]) -> Iterator[Package]:
    """Packages that need one another in a circle come in name order: none of them will ever be built."""
    waiting = list(packages)
    while waiting:
        names = {p.name for p in waiting}
        free = [p for p in waiting if names.isdisjoint(set(recipes[p.id].build_depends) - {p.name})]
        yield from free or waiting
        waiting = [p for p in waiting if p not in free] if free else []
