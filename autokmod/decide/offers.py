"""Who offers a symbol to a module on one kernel: vmlinux, a module of the set, another package's, the kernel's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from autokmod.model import Export, KernelAbi, ModuleFacts

VMLINUX = "vmlinux"


class Offer(NamedTuple):
    export: Export
    module: ModuleFacts | None  # the exporter, where it belongs to the set
    installed: bool  # False: the exporter is one of the kernel's modules, and its file is not there


class Offers:
    """The loader looks at vmlinux first. Of two modules with one name depmod picks the one that is not in-tree, so
    the in-tree twin of a module of the set, or of another package, offers nothing."""

    def __init__(self, modules: Sequence[ModuleFacts], abi: KernelAbi, others: Mapping[str, Export]) -> None:
        self.abi, self.others = abi, others
        self.by_set: dict[str, list[tuple[Export, ModuleFacts]]] = {}
        for module in modules:
            for export in module.exports:
                self.by_set.setdefault(export.name, []).append((export, module))
        self.displaced = {m.name for m in modules} | {exporter_name(e) for e in others.values()}

    def find(self, symbol: str) -> Offer | None:
        own = self.abi.exports.get(symbol)
        if own is not None and own.exporter == VMLINUX:
            return Offer(own, None, installed=True)
        if symbol in self.by_set:
            export, module = self.by_set[symbol][0]
            return Offer(export, module, installed=True)
        if symbol in self.others:
            return Offer(self.others[symbol], None, installed=True)
        if own is None or exporter_name(own) in self.displaced:
            return None
        return Offer(own, None, installed=own.exporter not in self.abi.absent)

    def rival(self, symbol: str, module: ModuleFacts) -> str | None:
        """Another module that exports the same: whichever is loaded second is refused."""
        own, other = self.abi.exports.get(symbol), self.others.get(symbol)
        if own is not None and exporter_name(own) not in self.displaced and own.exporter not in self.abi.absent:
            return own.exporter
        if other is not None and exporter_name(other) != module.name:
            return other.exporter
        names = (m.name for _, m in self.by_set.get(symbol, ()))
        return next((name for name in names if name != module.name), None)


def exporter_name(export: Export) -> str:
    """The exporter's module name: symvers has a path without suffix."""
    return export.exporter.rpartition("/")[2].replace("-", "_")
