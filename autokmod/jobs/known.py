"""What earlier looks read, given again as long as stat says the same of the files: the disk stays the authority.

A machine has ten kernels and a hundred packages, and each look needs all of them: what is parsed once for all looks
is what makes a look cost a tenth of a second, not a second.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from autokmod.act.store import list_builds
from autokmod.config import Config
from autokmod.decide.buildkey import build_key
from autokmod.errors import SandboxUnavailable
from autokmod.files import open_regular
from autokmod.model import Build, ForeignBuild, Kernel, KernelAbi, KernelRecord, ModuleFacts, Package, Reason, Recipe
from autokmod.observe.abi import abi_inputs, read_abi
from autokmod.observe.external import find_external
from autokmod.observe.ko import read_module
from autokmod.observe.modtree import Listings
from autokmod.observe.recipe import KnownRecipes, Recipes, look_up_recipes
from autokmod.observe.records import read_record
from autokmod.observe.sources import Digests, find_packages
from autokmod.observe.statcache import StatCache
from autokmod.observe.toolchain import Toolchain
from autokmod.paths import Paths
from autokmod.sandbox import check_sandbox

KERNELS = 16  # some 7 MiB each, unless their symbols are the same
MANY = 4096


class Known:
    def __init__(self, paths: Paths, config: Config) -> None:
        self.paths, self.config = paths, config
        self._abis: StatCache[Kernel, KernelAbi] = StatCache(KERNELS)
        self._modules: StatCache[Path, ModuleFacts] = StatCache(MANY)
        self._file_digests: StatCache[Path, str] = StatCache(MANY)
        self.foreign: StatCache[tuple[str, frozenset[str]], tuple[ForeignBuild, ...]] = StatCache(MANY)
        self._records: StatCache[str, KernelRecord] = StatCache(MANY)
        self._builds: StatCache[str, Build] = StatCache(MANY)
        self._listings: Listings = StatCache(MANY)
        self._digests: Digests = {}
        self._recipes: KnownRecipes = {}
        self._keys: dict[object, str] = {}
        self._sandbox_starts = False

    def forget_symbols(self) -> None:
        """Nearly all of the memory that is used here; read again within a tenth of a second."""
        self._abis, self._modules = StatCache(KERNELS), StatCache(MANY)

    def abi(self, kernel: Kernel) -> KernelAbi:
        abi = self._abis.get(kernel)
        if abi is None:
            abi = self._share(read_abi(self.paths, kernel))
            self._abis.keep(kernel, abi, abi_inputs(self.paths, kernel, abi))
        return abi

    def _share(self, abi: KernelAbi) -> KernelAbi:
        """Kernels that export the same, which are those that links are for, have it in memory once."""
        for other in self._abis.values():
            if other.symvers_digest == abi.symvers_digest:
                abi = replace(abi, exports=other.exports)
            if other.config_digest == abi.config_digest:
                abi = replace(abi, config=other.config)
        return abi

    def record(self, krel: str) -> KernelRecord | None:
        """Raises FormatError."""
        known = self._records.get(krel)
        if known is not None:
            return known
        record = read_record(self.paths, krel)
        return record and self._records.keep(krel, record, (str(self.paths.record(krel)),))

    def module(self, path: Path) -> ModuleFacts:
        """Raises FormatError, and OSError where the file cannot be read."""
        return self._modules.get(path) or self._modules.keep(path, read_module(path), (str(path),))

    def digest(self, path: Path) -> str:
        """Hex sha256 of a module's file as it stands. Raises OSError."""
        known = self._file_digests.get(path)
        if known is not None:
            return known
        with open_regular(path) as f:
            return self._file_digests.keep(path, hashlib.file_digest(f, "sha256").hexdigest(), (str(path),))

    def packages(self) -> tuple[Package, ...]:
        return find_packages(self.paths, self.config, self._digests)

    def builds(self) -> tuple[Build, ...]:
        return list_builds(self.paths, self._builds)

    def external(self, krel: str) -> dict[str, Path]:
        return find_external(self.paths, krel, ours=False, listings=self._listings)

    def recipes(self) -> Recipes:
        """For one look: which packages there are may decide what a recipe says."""
        return look_up_recipes(self.paths, self._recipes)

    def build_key(
        self, package: Package, recipe: Recipe, abi: KernelAbi, toolchain: Toolchain, depends: tuple[str, ...]
    ) -> str:
        known_by = (package, recipe, abi.krel, abi.symvers_digest, abi.config_digest, toolchain, depends)
        if known_by not in self._keys:
            self._keys = self._keys if len(self._keys) < MANY else {}
            self._keys[known_by] = build_key(package, recipe, abi, toolchain, depends)
        return self._keys[known_by]

    def sandbox_problem(self) -> Reason | None:
        """One that has started once is believed in: if it starts no more, the build says so."""
        if not self._sandbox_starts:
            try:
                check_sandbox(self.paths, self.config)
            except SandboxUnavailable as exc:
                return Reason("sandbox-unavailable", str(exc), hint=exc.hint)
            self._sandbox_starts = True
        return None
