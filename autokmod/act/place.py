"""Modules of ours in a kernel's modules directory: own files below updates/autokmod, links below weak-updates/autokmod.

Every file and link appears under its name by rename; what a package had there before and has no more goes last, so
that no moment shows less than before or after. Nothing outside these two directories is ever written or removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path

from autokmod.act.publish import write_files
from autokmod.errors import PlacementFailed
from autokmod.files import open_regular, write_link
from autokmod.model import BuiltModule, PlacedFile, Placement
from autokmod.observe.modtree import SUFFIXES, module_name
from autokmod.paths import OWN, WEAK, Paths


def place_files(
    paths: Paths,
    krel: str,
    package: str,
    modules: Sequence[BuiltModule],
    content: Callable[[BuiltModule], bytes],
    suffix: str,
) -> tuple[PlacedFile, ...]:
    """Own files. `content` gives a module's bytes as they are to stand there: signed, compressed."""
    directory = _directory(paths, krel, OWN, package)
    names = [f"{module.dest_name}.ko{suffix}" for module in modules]
    wanted = ((name, content(module)) for name, module in zip(names, modules, strict=True))
    write_files(directory, ((name, data) for name, data in wanted if not _holds(directory / name, data)))
    return tuple(placed_file(paths, krel, m.name, directory / name) for name, m in zip(names, modules, strict=True))


def place_links(
    paths: Paths, krel: str, package: str, owner: str, files: Iterable[PlacedFile]
) -> tuple[PlacedFile, ...]:
    """Links to the own files that the same package has in kernel `owner`. PlacementFailed where they are damaged."""
    directory = _directory(paths, krel, WEAK, package)
    placed = []
    for file in files:
        target = os.path.relpath(paths.modulesd(owner) / file.path, directory)
        path = directory / os.path.basename(file.path)
        if not (path.is_symlink() and os.readlink(path) == target):
            write_link(path, target)
        placed.append(placed_file(paths, krel, file.module, path))
        if placed[-1].sha256 != file.sha256:
            raise PlacementFailed(krel, f"{file.path} of {owner} is not what was placed there; it is mended first")
    return tuple(placed)


def placed_file(paths: Paths, krel: str, module: str, path: Path) -> PlacedFile:
    """What stands at `path` now, read back from the disk."""
    target = os.readlink(path) if path.is_symlink() else None
    with open_regular(path) as f:
        info = os.fstat(f.fileno())
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    where = os.path.relpath(path, paths.modulesd(krel))
    return PlacedFile(module, where, target, digest, info.st_size, info.st_mtime_ns)


def remove_others(paths: Paths, krel: str, package: str, keep: Iterable[PlacedFile]) -> bool:
    """Remove what the package has in this kernel beside `keep`. True if anything was there."""
    wanted = {paths.modulesd(krel) / file.path for file in keep}
    removed = False
    for base in (paths.own_dir(krel, package), paths.link_dir(krel, package)):
        for path in _entries(base):
            if path not in wanted:
                _remove(path)
                removed = True
        _remove_empty(base, paths.modulesd(krel))
    return removed


def placed_packages(paths: Paths, krel: str) -> frozenset[str]:
    """Names of the packages that have a directory of ours in this kernel, recorded or not."""
    bases = (paths.modulesd(krel) / OWN, paths.modulesd(krel) / WEAK)
    return frozenset(entry.name for base in bases for entry in _entries(base))


def standing_files(paths: Paths, krel: str, package: str) -> tuple[PlacedFile, ...]:
    """The modules that the package has in this kernel, whatever was recorded, without links that lead nowhere."""
    if package not in placed_packages(paths, krel):
        return ()
    found = [path for base in (paths.own_dir, paths.link_dir) for path in _entries(base(krel, package))]
    modules = [p for p in found if p.name.endswith(SUFFIXES) and p.name[0] != "." and p.is_file()]
    return tuple(placed_file(paths, krel, module_name(path.name), path) for path in modules)


def owner_of(paths: Paths, krel: str, file: PlacedFile) -> str | None:
    """The kernel that a link of ours leads to."""
    if file.target is None:
        return None
    target = os.path.normpath((paths.modulesd(krel) / file.path).parent / file.target)
    return os.path.relpath(target, paths.modules).split("/")[0]


def placed_at_ns(paths: Paths, krel: str, file: PlacedFile) -> int:
    """mtime of what appeared last: a link may be much younger than the file that it leads to."""
    return max(file.mtime_ns, (paths.modulesd(krel) / file.path).lstat().st_mtime_ns)


def remove_all(paths: Paths, krel: str, *, but: Container[str] = ()) -> None:
    """Everything of ours in this kernel, but for the packages `but`: it is about to go."""
    for package in placed_packages(paths, krel):
        if package not in but:
            remove_others(paths, krel, package, ())


def is_intact(paths: Paths, krel: str, placement: Placement) -> bool:
    """Whether every file stands as recorded: link text, and size and mtime of what it leads to."""
    modulesd = os.fspath(paths.modulesd(krel))
    return bool(placement.files) and all(_as_recorded(os.path.join(modulesd, f.path), f) for f in placement.files)


def _as_recorded(path: str, file: PlacedFile) -> bool:
    try:
        target = os.readlink(path) if os.path.islink(path) else None
        info = os.stat(path)
    except OSError:
        return False
    return (target, info.st_size, info.st_mtime_ns) == (file.target, file.size, file.mtime_ns)


def _directory(paths: Paths, krel: str, base: str, package: str) -> Path:
    """Made where missing. A link on the way is somebody else's: it is not followed."""
    path = paths.modulesd(krel)
    for part in (*base.split("/"), package):
        path = path / part
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o755)
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise PlacementFailed(krel, f"{paths.inside(path)} is not a directory, and not autokmod's: move it away")
    _refuse_foreign_links(paths, krel, path, links_are_ours=base == WEAK)
    return path


def _refuse_foreign_links(paths: Paths, krel: str, directory: Path, *, links_are_ours: bool) -> None:
    for path in _entries(directory):
        if path.is_symlink() and not links_are_ours:
            where = paths.inside(path)
            raise PlacementFailed(krel, f"{where} is a symbolic link that autokmod did not make: move it away")


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _entries(directory: Path) -> list[Path]:
    """None behind a link, on this level or the two above: it is somebody else's, and what it leads to as well."""
    if any(path.is_symlink() for path in (directory, directory.parent, directory.parent.parent)):
        return []
    try:
        return sorted(Path(entry.path) for entry in os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remove_empty(directory: Path, top: Path) -> None:
    """The directory and its parents below `top`, as far as they are empty: a kernel's removal must find none left."""
    while directory != top:
        try:
            directory.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        directory = directory.parent
