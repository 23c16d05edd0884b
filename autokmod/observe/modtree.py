"""Which file depmod picks for a module's name, and what it wrote down.

Read from kmod's tools/depmod.c (version 30, unchanged in this since 27) and shown by the real depmod in
tests/unit/test_modtree.py:

* Configuration: every `*.conf` of the depmod.d directories, in the order of the file names; a name in an earlier
  directory masks its namesake in a later one. `search` lines add up: what is listed first, in the first file, ranks
  highest. Only where there is none at all is it `search updates`.
* A directory that no search entry names has the rank of `built-in`, or the lowest where that is not listed.
* depmod walks the tree in the order in which the directories give their entries and compares each file with the
  one it holds: an override wins; else the higher rank; between equal ranks the older stays, except within one search
  entry, where the newer wins. So among equals chance decides: search entries of our own take it away.
* The tree's own configuration counts: `depmod -b ROOT` of version 30 reads the host's depmod.d, unless given -C.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.files import read_regular
from autokmod.model import Reason
from autokmod.observe.blob import read_bounded
from autokmod.observe.statcache import StatCache
from autokmod.paths import Paths

SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")
BUILT_IN, EXTERNAL = "built-in", "external"
NOT_WALKED = frozenset({"build", "source"})
CONF_LIMIT = 1 << 20
DEP_LIMIT = 64 << 20
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class DepmodConfig:
    """depmod.d as it applies to one kernel. `problems`: lines that depmod would not understand either."""

    search: tuple[str, ...] = ("updates",)  # highest rank first
    overrides: tuple[str, ...] = ()  # paths below the modules directory without suffix, the strongest first
    externals: tuple[str, ...] = ()  # absolute directories, highest rank first
    excludes: frozenset[str] = frozenset()  # names of files and directories that are not looked at
    problems: tuple[Reason, ...] = field(default=(), compare=False)


def module_name(filename: str) -> str:
    """As kmod makes it (shared/util.c: modname_normalize): up to the first dot, `-` is `_`."""
    return os.path.basename(filename).partition(".")[0].replace("-", "_")


# ---- what depmod picks


def picked(config: DepmodConfig, candidates: Sequence[str]) -> str:
    """Of files for one module's name, in the order in which depmod meets them, the one it keeps.

    A path is relative to the modules directory, or absolute where it lies in an external directory.
    """
    held = candidates[0]
    for path in candidates[1:]:
        if _replaces(config, path, held):
            held = path
    return held


def _replaces(config: DepmodConfig, new: str, old: str) -> bool:
    for override in config.overrides:
        if _stem(new) == override:
            return True
        if _stem(old) == override:
            return False
    new_rank, old_rank = _ranks(config, new, old)
    return new_rank > old_rank


def _ranks(config: DepmodConfig, new: str, old: str) -> tuple[int, int]:
    """depmod's own loop, its `else` included: an entry that holds both ranks only the newer one."""
    rank, built_in, new_rank, old_rank = 0, -1, -1, -1
    for entry in reversed(config.search):
        if entry == BUILT_IN:
            built_in = rank
        elif entry == EXTERNAL:
            for directory in reversed(config.externals):
                new_rank = rank if new.startswith(directory + "/") else new_rank
                old_rank = rank if old.startswith(directory + "/") else old_rank
                rank += 1
        elif new.startswith(entry + "/"):
            new_rank = rank
        elif old.startswith(entry + "/"):
            old_rank = rank
        rank += 1
    return (built_in if new_rank < 0 else new_rank), (built_in if old_rank < 0 else old_rank)


def _stem(path: str) -> str:
    directory, slash, name = path.rpartition("/")
    return directory + slash + name.partition(".")[0]


# ---- what is there


# Directory, prefix, excluded names → the modules below it; valid while no directory on the way changes.
Listings = StatCache[tuple[str, str, frozenset[str]], tuple[str, ...]]


def find_modules(
    paths: Paths, krel: str, config: DepmodConfig, listings: Listings | None = None
) -> dict[str, list[str]]:
    """Module name → its files in the order in which depmod meets them, as `picked` wants them."""
    found: dict[str, list[str]] = {}
    for file in list_modules(paths, krel, config, listings):
        found.setdefault(module_name(file), []).append(file)
    return found


def list_modules(paths: Paths, krel: str, config: DepmodConfig, listings: Listings | None = None) -> list[str]:
    """Every module file, in the order in which depmod meets them."""
    known: Listings = listings if listings is not None else StatCache(0)
    places = [(str(paths.modulesd(krel)), ""), *((str(paths.at(d)), f"{d}/") for d in reversed(config.externals))]
    files: list[str] = []
    for directory, prefix in places:
        key = (directory, prefix, config.excludes)
        listed = known.get(key)
        if listed is None:
            seen: list[str] = []
            listed = known.keep(key, tuple(_walk(paths, directory, prefix, config.excludes, seen, ())), seen)
        files += listed
    return files


def _walk(
    paths: Paths,
    directory: str,
    prefix: str,
    excludes: frozenset[str],
    seen: list[str],
    above: tuple[tuple[int, int], ...],
) -> Iterator[str]:
    """`seen` collects all that the answer depends on: directories, and what links lead to."""
    seen.append(directory)
    try:
        entries = list(os.scandir(directory))  # in readdir order: that is what depmod goes by
    except (FileNotFoundError, NotADirectoryError):
        return
    here = os.stat(directory)
    if len(above) >= MAX_DEPTH or (here.st_dev, here.st_ino) in above:
        return
    above = (*above, (here.st_dev, here.st_ino))
    for entry in entries:
        if entry.name in NOT_WALKED or entry.name in excludes:
            continue
        host, kind = _follow(paths, entry)
        if entry.is_symlink():
            seen.append(host)
        if kind == stat.S_IFDIR:
            yield from _walk(paths, host, f"{prefix}{entry.name}/", excludes, seen, above)
        elif kind == stat.S_IFREG and entry.name.endswith(SUFFIXES):
            yield prefix + entry.name


def _follow(paths: Paths, entry: os.DirEntry[str]) -> tuple[str, int]:
    """Where it leads inside the root, and of which kind that is; 0 for what leads nowhere."""
    if entry.is_file(follow_symlinks=False):
        return entry.path, stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return entry.path, stat.S_IFDIR
    try:
        target = str(paths.resolve(entry.path))
        return target, stat.S_IFMT(os.stat(target).st_mode)
    except (OSError, FormatError):
        return entry.path, 0


def read_modules_dep(modulesd: Path) -> dict[str, str]:
    """Module name → path relative to the modules directory, as depmod last wrote it.

    Raises FormatError, and OSError where there is none.
    """
    path = modulesd / "modules.dep"
    found: dict[str, str] = {}
    for number, line in enumerate(read_bounded(path, limit=DEP_LIMIT).splitlines(), 1):
        file, colon, _ = line.partition(b":")
        name = os.fsdecode(file)
        if not colon or not name.endswith(SUFFIXES):
            raise FormatError(str(path), f"line {number} is not `module: dependencies`")
        found[module_name(name)] = name
    return found


def read_needs(modulesd: Path) -> dict[str, frozenset[str]]:
    """Kernel name → names of what modules.dep, all the way down, and soft dependencies want loaded with it.

    A missing index is empty: depmod has not run, and nothing can be loaded by name anyway.
    """
    needs: dict[str, frozenset[str]] = {}
    for line in _lines(modulesd / "modules.dep"):
        path, colon, rest = line.partition(":")
        if colon:
            needs[module_name(path)] = frozenset(module_name(p) for p in rest.split())
    for line in _lines(modulesd / "modules.softdep"):
        words = line.split()
        if words[:1] == ["softdep"]:
            wanted = frozenset(module_name(w) for w in words[2:] if not w.endswith(":"))
            needs[words[1]] = needs.get(words[1], frozenset()) | wanted
    return needs


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path).decode("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []
