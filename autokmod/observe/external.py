"""External modules of one kernel, by what depmod picks: DKMS's in updates/dkms, KMPs in extra/, weak-modules' links."""

from __future__ import annotations

from pathlib import Path

from autokmod.observe.depmodconf import read_depmod_config
from autokmod.observe.modtree import Listings, list_modules, module_name, picked
from autokmod.paths import OWN, WEAK, Paths

IN_TREE = "kernel/"
OURS = (f"{OWN}/", f"{WEAK}/")


def find_external(paths: Paths, krel: str, *, ours: bool, listings: Listings | None = None) -> dict[str, Path]:
    """Module name → host path of the file that depmod picks, links followed, unless that is the kernel's own.

    Without `ours`, what it would pick if autokmod had placed nothing. Raises FormatError for links in circles.
    """
    config = read_depmod_config(paths, krel)
    files = [f for f in list_modules(paths, krel, config, listings) if ours or not f.startswith(OURS)]
    candidates: dict[str, list[str]] = {module_name(f): [] for f in files if not f.startswith(IN_TREE)}
    for file in files if candidates else ():
        if (name := module_name(file)) in candidates:
            candidates[name].append(file)
    chosen = {name: picked(config, found) for name, found in candidates.items()}
    return {name: _host(paths, krel, file) for name, file in chosen.items() if not file.startswith(IN_TREE)}


def _host(paths: Paths, krel: str, file: str) -> Path:
    return paths.resolve(paths.at(file) if file.startswith("/") else paths.modulesd(krel) / file)
