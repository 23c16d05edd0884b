"""What depmod -E says of the same modules on the same kernel, and why that is not what the loader says."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from autokmod.model import CompatResult
from tests.vm.oracle import Complaint, came_to_symbols
from tests.vm.target import Target

WARNING = re.compile(
    r"depmod: WARNING: .*/updates/(?P<file>\S+) "
    r"(?P<what>disagrees about version of|needs unknown) symbol (?P<symbol>\S+)"
)
RULES = {"disagrees about version of": "crc", "needs unknown": "missing"}

# What only the loader looks at: its rule, or the checker's kind of reason for a symbol that the loader does not find.
LAXER = {
    "vermagic": "depmod does not compare vermagic",
    "struct-size": "depmod does not look at struct module",
    "namespace": "depmod knows nothing of namespaces",
    "gpl-only": "depmod knows nothing of licences",
    "provider-incompatible": "depmod takes each file by itself: that its provider is refused is nothing to it",
}
STOPPED = "the loader stops before it comes to the symbols, depmod lists them all"
NO_ENTRY = "a symbol without an entry counts as CRC 0 to depmod, and as good to the loader"


def ask_depmod(target: Target, modules: Mapping[str, bytes]) -> Mapping[str, frozenset[Complaint]]:
    """`depmod -naeE Module.symvers` of a tree with the kernel's own modules, and these in updates/.

    By file name.
    """
    with tempfile.TemporaryDirectory() as base:
        modulesd = Path(base) / "lib/modules" / target.krel
        (modulesd / "updates").mkdir(parents=True)
        for entry in target.modulesd.iterdir():
            (modulesd / entry.name).symlink_to(entry)
        for name, data in modules.items():
            (modulesd / "updates" / name).write_bytes(data)
        argv = ["depmod", "-naeE", str(target.kdir / "Module.symvers"), "-b", base, target.krel]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300)
    found = [m for line in done.stderr.splitlines() if (m := WARNING.match(line))]
    return {name: frozenset(_complaint(f) for f in found if f["file"] == name) for name in modules}


def _complaint(found: re.Match[str]) -> Complaint:
    return Complaint(RULES[found["what"]], found["symbol"])


def differences(
    loader: Collection[Complaint], depmod: Collection[Complaint], result: CompatResult, exporters: Mapping[str, str]
) -> Iterator[str]:
    """One sentence for each: empty where they agree, with a question mark where nobody knows why."""
    kinds = {r.symbol or "": r.kind for r in result.reasons if r.symbol}
    refused = {r.exporter for r in result.reasons if r.kind == "provider-incompatible"}
    kinds |= {s: "provider-incompatible" for s, exporter in exporters.items() if exporter in refused and s not in kinds}
    for complaint in loader:
        if complaint not in depmod:
            why = LAXER.get(complaint.rule) or LAXER.get(kinds.get(complaint.symbol or "", ""))
            yield why or f"? only the loader: {complaint.rule} {complaint.symbol}"
    for complaint in depmod:
        if complaint not in loader:
            yield _why_not_loader(complaint, loader, kinds)


def _why_not_loader(complaint: Complaint, loader: Collection[Complaint], kinds: Mapping[str, str]) -> str:
    if loader and not came_to_symbols(loader):
        return STOPPED
    if kinds.get(complaint.symbol or "") == "crc-missing":
        return NO_ENTRY
    return f"? only depmod: {complaint.rule} {complaint.symbol}"
