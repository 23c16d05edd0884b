"""External modules of one kernel, by what depmod picks: DKMS's in updates/dkms, KMPs in extra/, weak-modules' links."""

from __future__ import annotations

import os
from pathlib import Path

from autokmod.model import ModuleFacts
from autokmod.observe.depmodconf import read_depmod_config
from autokmod.observe.ko import read_module
from autokmod.observe.modtree import find_modules, picked
from autokmod.paths import OWN, WEAK, Paths

IN_TREE = "kernel/"
OURS = (f"{OWN}/", f"{WEAK}/")
LIMIT = 2000


def find_external(paths: Paths, krel: str, *, ours: bool) -> dict[str, Path]:
    """Module name → host path of the file that depmod picks, links followed, unless that is the kernel's own.

    Without `ours`, what it would pick if autokmod had placed nothing. Raises FormatError for links in circles.
    """
    config = read_depmod_config(paths, krel)
    found: dict[str, Path] = {}
    for name, candidates in find_modules(paths, krel, config).items():
        left = [c for c in candidates if ours or not c.startswith(OURS)]
        chosen = picked(config, left) if left else IN_TREE
        if not chosen.startswith(IN_TREE):
            found[name] = paths.resolve(paths.at(chosen) if chosen[0] == "/" else paths.modulesd(krel) / chosen)
    return found


class ModuleCache:
    """Parsed modules, as long as stat says the same of their files."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], ModuleFacts]] = {}

    def read(self, path: Path) -> ModuleFacts:
        """Raises FormatError, and OSError where the file cannot be read."""
        seen = os.stat(path)
        identity = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        known = self._known.get(path)
        if known is not None and known[0] == identity:
            return known[1]
        facts = read_module(path)
        if len(self._known) >= LIMIT:
            self._known.clear()
        self._known[path] = (identity, facts)
        return facts
