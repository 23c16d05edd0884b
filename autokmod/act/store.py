"""The store: builds by key, each in a directory of its own that appears whole, by rename, or not at all.

    builds/KEY/manifest.json   model.Build
    builds/KEY/build.log       all output, shortened in the middle where it is long
    builds/KEY/NAME.ko         unsigned, uncompressed
    builds/KEY/Module.symvers  what the modules export, for packages that build upon this one

A damaged entry is set aside and counts as absent: what it said is made again by building.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autokmod import journal
from autokmod.act.publish import sync_files
from autokmod.act.scratch import remove_tree, scratch
from autokmod.decide.collect import Damaged, Entry
from autokmod.errors import FormatError
from autokmod.events import Event
from autokmod.files import fsync_dir, read_json, set_aside, write_json
from autokmod.jsonvalue import from_json, to_json
from autokmod.model import Build, BuiltModule
from autokmod.observe.statcache import StatCache
from autokmod.paths import Paths

FORMAT = 1
MANIFEST = "manifest.json"
LOG = "build.log"
SYMVERS = "Module.symvers"
ASIDE = ".damaged"
BLOCK = 512  # what st_blocks counts in
_KEY = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.ko")

log = journal.get()


@dataclass(frozen=True, slots=True)
class Manifest:
    format: int
    build: Build


def list_builds(paths: Paths, known: StatCache[str, Build] | None = None) -> tuple[Build, ...]:
    """Successful and failed ones, in order of key. Damaged entries are set aside. OSError travels."""
    try:
        names = sorted(os.listdir(paths.builds))
    except FileNotFoundError:
        return ()
    found = (find_build(paths, name, known) for name in names if _KEY.fullmatch(name))
    return tuple(build for build in found if build is not None)


def find_build(paths: Paths, key: str, known: StatCache[str, Build] | None = None) -> Build | None:
    build = known.get(key) if known is not None else None
    if build is not None:
        return build
    directory = paths.builds / key
    try:
        build = _read(directory)
        return known.keep(key, build, (str(directory / MANIFEST),)) if known is not None else build
    except FileNotFoundError:
        if not directory.is_dir():
            return None
        _set_aside(directory, FormatError(str(directory / MANIFEST), "is missing"))
    except NotADirectoryError:
        _set_aside(directory, FormatError(str(directory), "is not a directory"))
    except FormatError as exc:
        _set_aside(directory, exc)
    return None


def _read(directory: Path) -> Build:
    path = directory / MANIFEST
    manifest = from_json(Manifest, read_json(path), str(path))
    if manifest.format != FORMAT:
        raise FormatError(str(path), f"format {manifest.format}, not {FORMAT}")
    build = manifest.build
    if build.key != directory.name:
        raise FormatError(str(path), f"is of build {build.key}")
    for module in build.modules:
        if not _FILE.fullmatch(module.file):
            raise FormatError(str(path), f"{module.file!a} is not the name of a module's file")
    return replace(build, directory=str(directory))


def read_built(build: Build, module: BuiltModule) -> bytes:
    """A module's bytes. Raises FormatError, and the build is set aside, where the manifest says otherwise."""
    path = Path(build.directory, module.file)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    if len(data) == module.size and hashlib.sha256(data).hexdigest() == module.sha256:
        return data
    damage = FormatError(str(path), "is not what was built")
    _set_aside(Path(build.directory), damage)
    raise damage


def verify_build(build: Build) -> None:
    """Raises FormatError."""
    for module in build.modules:
        read_built(build, module)


def _set_aside(directory: Path, why: FormatError) -> None:
    remove_tree(directory.with_name(f"{directory.name}{ASIDE}"))
    with contextlib.suppress(FileNotFoundError):  # another process was quicker
        aside = set_aside(directory)
        log.warning(f"{why}; set aside as {aside}, it is built again when needed", kind=Event.STATE_DAMAGED)


def read_store(paths: Paths) -> tuple[tuple[Entry, ...], tuple[Damaged, ...]]:
    """Everything in it with the room that it takes; nothing is set aside by this. OSError travels."""
    entries, damaged = [], []
    for directory in _directories(paths.builds):
        found = _read_entry(directory)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            damaged.append(found)
    return tuple(entries), tuple(damaged)


def _directories(builds: Path) -> list[Path]:
    """Entries, and those that were set aside. What else lies there is not ours to judge."""
    try:
        names = sorted(os.listdir(builds))
    except FileNotFoundError:
        return []
    known = (builds / name for name in names if _KEY.fullmatch(name.removesuffix(ASIDE)))
    return [path for path in known if path.is_dir() and not path.is_symlink()]


def _read_entry(directory: Path) -> Entry | Damaged:
    size = _room(directory)
    try:
        if directory.name.endswith(ASIDE):
            raise FormatError(str(directory), "was set aside")
        return Entry(_read(directory), size)
    except FileNotFoundError:
        why = FormatError(str(directory / MANIFEST), "is missing")
    except FormatError as exc:
        why = exc
    return Damaged(directory.name, size, directory.stat().st_ctime, str(why))


def _room(directory: Path) -> int:
    """Bytes on the disk, as du(1) counts them."""
    return BLOCK * sum(e.stat(follow_symlinks=False).st_blocks for e in os.scandir(directory))


def remove_build(paths: Paths, name: str) -> None:
    """A key, or the name of what was set aside; gone at once for every reader. No error if there is none."""
    with scratch(paths.builds) as place, contextlib.suppress(FileNotFoundError):
        os.rename(paths.builds / name, place / name)
        fsync_dir(paths.builds)


@contextlib.contextmanager
def new_entry(paths: Paths) -> Iterator[Path]:
    """An empty directory on the store's file system, for what `publish` will take."""
    with scratch(paths.builds) as place:
        entry = place / "entry"
        entry.mkdir()
        entry.chmod(0o755)  # whatever the umask is: logs and manifests are for everyone to read
        yield entry


def write_entry_file(entry: Path, name: str, data: bytes) -> None:
    with open(entry / name, "xb") as f:
        f.write(data)
        os.fchmod(f.fileno(), 0o644)


def publish(paths: Paths, entry: Path, build: Build) -> Build:
    """The entry becomes builds/KEY, in place of one that may be there: first its files to disk, then its manifest."""
    sync_files(file.path for file in os.scandir(entry))
    write_json(entry / MANIFEST, to_json(Manifest(FORMAT, replace(build, directory=""))))
    fsync_dir(entry)
    target = paths.builds / build.key
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, entry.parent / "old")
    os.rename(entry, target)
    fsync_dir(paths.builds)
    return replace(build, directory=str(target))
