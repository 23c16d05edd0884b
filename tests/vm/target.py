"""One kernel to insert modules into: its image, what the checker reads of it, and its own modules."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from autokmod.model import Kernel, KernelAbi, KernelState
from autokmod.observe.abi import read_abi
from autokmod.observe.blob import read_blob
from autokmod.observe.modtree import module_name
from autokmod.observe.trust import OwnKey
from autokmod.paths import Paths
from tests.corpus import Corpus
from tests.vm.qemu import Insertion, Machine


@dataclass(frozen=True)
class Target:
    krel: str
    tree: Path  # the unpacked image package
    kdir: Path
    _read: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def image(self) -> Path:
        return self.tree / f"boot/vmlinuz-{self.krel}"

    @property
    def modulesd(self) -> Path:
        return self.tree / f"usr/lib/modules/{self.krel}"

    def machine(self, options: str = "", programs: Mapping[str, bytes] | None = None) -> Machine:
        return Machine(self.image, self.krel, options, programs=programs or {})

    @cached_property
    def abi(self) -> KernelAbi:
        kernel = Kernel(self.krel, KernelState.COMPLETE, str(self.modulesd), str(self.kdir), str(self.image), (), 0.0)
        return read_abi(Paths(), kernel)

    @cached_property
    def own_key(self) -> OwnKey:
        return OwnKey(str(self.image), self.abi.reference)

    # ---- the kernel's own modules

    @cached_property
    def files(self) -> Mapping[str, str]:
        """Module name → path relative to the modules directory."""
        return {module_name(path): path for path in self._dependencies}

    @cached_property
    def _tables(self) -> tuple[str, ...]:
        """What depmod writes into its files, all of them."""
        argv = ["depmod", "-n", "-b", str(self.tree / "usr"), self.krel]
        return tuple(subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines())

    @cached_property
    def _dependencies(self) -> Mapping[str, tuple[str, ...]]:
        """A file → the files that it needs, all the way down, those first that come last."""
        rows = [line.partition(":") for line in self._tables if line.startswith("kernel/") and ":" in line]
        return {path: tuple(needs.split()) for path, _, needs in rows}

    @cached_property
    def _soft_dependencies(self) -> Mapping[str, tuple[str, ...]]:
        """Module name → names or aliases of what it wants before it."""
        rows = [line.split() for line in self._tables if line.startswith("softdep ")]
        return {row[1]: tuple(itertools.takewhile(lambda w: w != "post:", row[3:])) for row in rows if row[2] == "pre:"}

    @cached_property
    def _aliases(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for _, alias, name in (line.split() for line in self._tables if line.startswith("alias ")):
            found[alias] = (*found.get(alias, ()), name)
        return found

    def needs(self, symbols: Iterable[str]) -> tuple[Insertion, ...]:
        """The kernel's own modules that export these, in the order in which they load."""
        exports = self.abi.exports
        exporters = {module_name(exports[s].exporter) for s in symbols if s in exports}
        found: dict[str, None] = {}
        for name in sorted(exporters & set(self.files)):
            found |= dict.fromkeys(self._with_dependencies(self.files[name]))
        return tuple(self.insertion(path) for path in found)

    def _with_dependencies(self, path: str) -> Iterator[str]:
        """modules.dep lists a file before those that it needs: backwards is the order to load them."""
        for needed in reversed(self._dependencies[path]):
            yield from self._with_wished(needed)
        yield from self._with_wished(path)

    def _with_wished(self, path: str) -> Iterator[str]:
        for wish in self._soft_dependencies.get(module_name(path), ()):
            for name in self._aliases.get(wish, (wish,)):
                yield from (p for p in (self.files.get(name),) if p and not self._dependencies[p])
        yield path

    def insertion(self, path: str) -> Insertion:
        if path not in self._read:
            self._read[path] = read_blob(self.modulesd / path)
        return Insertion(module_name(path), self._read[path], keep=True)


def find_target(corpus: Corpus, krel: str) -> Target:
    kdir = next(layer.tree for layer in corpus.headers(krel) if layer.package == f"linux-headers-{krel}")
    return Target(krel, corpus.image(krel).tree, kdir / f"usr/src/linux-headers-{krel}")
