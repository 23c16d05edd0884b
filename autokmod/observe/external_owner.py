"""Whose the external modules of one kernel are: what DKMS built by its own tree, the rest by where it lies.

DKMS keeps what it built in /var/lib/dkms/NAME/VERSION/KREL/ARCH/module/ and installs copies of these files (dkms 3.0:
do_install). A vendor's package (kmod, KMP) brings a directory below extra/, SUSE's below updates/, or single files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autokmod.observe.modtree import SUFFIXES, module_name
from autokmod.paths import Paths
from autokmod.versions import sort_key

DKMS, VENDOR = "DKMS", "the vendor"
# Of directories with these names no module is another owner's build for this kernel.
KERNELS_OWN = frozenset({"kernel", "build", "source", "vdso", "weak-updates"})
OURS = "autokmod"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]*")

Digest = Callable[[Path], str]  # of a file's content; raises OSError


@dataclass(frozen=True, slots=True)
class Installed:
    """Modules that belong together. For DKMS's the version is known, for others the modules may say one."""

    owner: str
    package: str
    version: str | None
    place: str  # relative to the modules directory
    files: Mapping[str, str]  # module name → path relative to the modules directory


def has_external(paths: Paths, krel: str) -> bool:
    """Whether it is worth looking closer: directories beside the kernel's own and ours that are not empty."""
    top = paths.modulesd(krel)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(top):
            if entry.name not in KERNELS_OWN and entry.is_dir() and any(n != OURS for n in os.listdir(entry.path)):
                return True
    return False


def find_installed(paths: Paths, krel: str, external: Mapping[str, Path], digest: Digest) -> tuple[Installed, ...]:
    """`external`: what depmod picks, by module name, as observe/external finds it. In order of the names."""
    theirs = {name: rel for name, file in external.items() if (rel := _relative(paths, krel, file)) is not None}
    found = list(_of_dkms(paths, krel, theirs, digest))
    claimed = {name for installed in found for name in installed.files}
    found += _by_place({name: rel for name, rel in theirs.items() if name not in claimed})
    return tuple(sorted(found, key=lambda i: (i.package, i.version or "")))


def _relative(paths: Paths, krel: str, file: Path) -> str | None:
    """None for what lies elsewhere: links of weak-modules lead to other kernels."""
    top = f"{paths.resolve(paths.modulesd(krel))}/"
    rel = str(file).removeprefix(top)
    return None if rel == str(file) or rel.split("/")[0] in KERNELS_OWN else rel


# ---- DKMS ----------------------------------------------------------------------------------------


def _of_dkms(paths: Paths, krel: str, theirs: Mapping[str, str], digest: Digest) -> Iterator[Installed]:
    """The newest version of each name of which every module is installed as it was built."""
    seen: set[str] = set()
    for name, version, built in sorted(_dkms_builds(paths, krel), key=lambda b: sort_key(b[1]), reverse=True):
        files = {module: theirs[module] for module in built if module in theirs}
        if name in seen or not files or files.keys() != built.keys():
            continue
        if all(_is_same(built[m], paths.modulesd(krel) / rel, digest) for m, rel in files.items()):
            seen.add(name)
            yield Installed(DKMS, name, version, os.path.dirname(min(files.values())), files)


def _dkms_builds(paths: Paths, krel: str) -> Iterator[tuple[str, str, dict[str, Path]]]:
    tree = paths.at("var/lib/dkms")
    for directory in tree.glob(f"*/*/{krel}/*/module"):
        if not directory.is_dir():
            continue
        name, version = directory.relative_to(tree).parts[:2]
        files = {module_name(n): directory / n for n in os.listdir(directory) if n.endswith(SUFFIXES)}
        if not (tree / name).is_symlink() and not (tree / name / version).is_symlink():
            yield name, version, files


def _is_same(built: Path, installed: Path, digest: Digest) -> bool:
    try:
        return built.stat().st_size == installed.stat().st_size and digest(built) == digest(installed)
    except OSError:
        return False


# ---- by place ------------------------------------------------------------------------------------


def _by_place(theirs: Mapping[str, str]) -> list[Installed]:
    groups: dict[str, dict[str, str]] = {}
    for module, rel in sorted(theirs.items()):
        groups.setdefault(_group(module, rel), {})[module] = rel
    return [Installed(VENDOR, name, None, _place(files), files) for name, files in groups.items()]


def _group(module: str, rel: str) -> str:
    """The directory below extra/; updates/dkms holds modules of many packages."""
    parts = rel.removeprefix("updates/dkms/").split("/")
    name = parts[1] if len(parts) > 2 else module
    return name if _NAME.fullmatch(name) else module


def _place(files: Mapping[str, str]) -> str:
    """The directory that is theirs alone, else the one file."""
    paths = list(files.values())
    if (len(paths) == 1 and paths[0].count("/") < 2) or paths[0].startswith("updates/dkms/"):
        return paths[0]
    return "/".join(paths[0].split("/")[:2])
