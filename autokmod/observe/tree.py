"""A source tree: what is in it, and one digest of all of it.

The digest covers paths, contents, the texts of links and the execute bits (other bits follow umask and decide
nothing). Version control's directories are neither digested nor copied: they change with every look at them, and
a build that asks git for its version would differ from that of a released source. No link is ever followed.

Reading the contents is what takes time, so the digests of files are kept by what stat says of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.files import read_json, write_json
from autokmod.jsonvalue import from_json, to_json
from autokmod.model import Reason
from autokmod.paths import Paths

VCS = frozenset({".git", ".hg", ".svn", ".bzr", "CVS", "_darcs"})
MAX_ENTRIES = 200_000
MAX_BYTES = 4 << 30
# A file that changed this shortly before it was read may change again within the same tick of the file
# system's clock: such a digest is not kept.
RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    path: str  # relative to the top
    stat: os.stat_result
    link: str | None  # its text

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    @property
    def executable(self) -> bool:
        return bool(self.stat.st_mode & 0o111)


@dataclass(frozen=True, slots=True)
class Tree:
    top: Path
    entries: tuple[Entry, ...]  # in order of path
    problem: Reason | None = None


@dataclass(frozen=True, slots=True)
class DigestCache:
    format: int
    files: Mapping[str, str]  # path → what stat said of it, a space, hex sha256


FORMAT = 1


def read_tree(top: Path) -> Tree:
    """Every entry below `top`; stops at the first that makes the tree unusable."""
    entries: list[Entry] = []
    size = 0
    try:
        for entry in _walk(top):
            entries.append(entry)
            size += entry.stat.st_size
            problem = _entry_problem(top, entry) or _size_problem(top, len(entries), size)
            if problem is not None:
                return Tree(top, (), problem)
    except OSError as exc:
        return Tree(top, (), unreadable(top, exc))
    return Tree(top, tuple(sorted(entries, key=lambda e: e.path)))


def _walk(top: Path) -> Iterator[Entry]:
    todo = [""]
    while todo:
        directory = todo.pop()
        with os.scandir(os.path.join(top, directory)) as found:
            for item in found:
                path = f"{directory}/{item.name}" if directory else item.name
                status = item.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if item.name in VCS:
                        continue
                    todo.append(path)
                link = os.readlink(item.path) if stat.S_ISLNK(status.st_mode) else None
                yield Entry(path, status, link)


def _entry_problem(top: Path, entry: Entry) -> Reason | None:
    mode = entry.stat.st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        return None
    text = f"{top / entry.path} is a device, a socket or a pipe: a source holds files, directories and links"
    return Reason("source-special-file", text, hint="remove it")


def _size_problem(top: Path, entries: int, size: int) -> Reason | None:
    if entries > MAX_ENTRIES:
        return Reason("source-too-large", f"{top} holds more than {MAX_ENTRIES} files")
    if size > MAX_BYTES:
        return Reason("source-too-large", f"{top} holds more than {MAX_BYTES >> 30} GiB")
    return None


def unreadable(top: Path, exc: OSError) -> Reason:
    return Reason("source-unreadable", f"{exc.filename or top} cannot be read: {exc.strerror}")


# ---- links ---------------------------------------------------------------------------------------


def link_problem(paths: Paths, tree: Tree, spoken: str) -> Reason | None:
    """The first link that leads nowhere or out. `spoken` is the tree's place as seen from inside the root.

    Links into the rest of /usr may stand (Debian's ipt-netflow links to its README in /usr/share/doc): they are
    read-only in the sandbox, and are no part of the digest.
    """
    top = paths.resolve(tree.top)
    for entry in tree.entries:
        if entry.link is not None:
            problem = _link_problem(paths, top, entry, spoken)
            if problem is not None:
                return problem
    return None


def _link_problem(paths: Paths, top: Path, entry: Entry, spoken: str) -> Reason | None:
    where = f"the link {spoken}/{entry.path} -> {entry.link}"
    try:
        target = paths.resolve(top / entry.path)
    except FormatError:
        return Reason("source-link-dangling", f"{where} goes round in circles", hint="remove it")
    inward = target.is_relative_to(top)
    if not inward and not target.is_relative_to(paths.at("usr")):
        text = f"{where} leads out of the source, to {paths.inside(target)}"
        return Reason("source-link-outward", text, hint="replace it with what it leads to")
    # dpkg's path-exclude leaves documentation out, and links to it dangle
    if target.exists() or target.is_relative_to(paths.at("usr/share/doc")):
        return None
    return Reason("source-link-dangling", f"{where} leads to nothing", hint="remove it, or restore what it leads to")


# ---- the digest ----------------------------------------------------------------------------------


def tree_digest(tree: Tree, cache: Path | None = None) -> str:
    """Hex sha256. `cache` is a JSON file that is read and brought up to date. OSError for a file that vanished."""
    known = _read_cache(cache) if cache is not None else {}
    files = {e.path: e.stat for e in tree.entries if stat.S_ISREG(e.stat.st_mode)}
    now = {path: _file_digest(tree.top, path, status, known.get(path, "")) for path, status in files.items()}
    if cache is not None:
        _write_cache(cache, known, {path: d for path, d in now.items() if not _is_racy(files[path])})
    return combine(tree, {path: d.rpartition(" ")[2] for path, d in now.items()})


def identify_tree(tree: Tree) -> tuple[object, ...] | None:
    """All that stat says of it; None where something changed too shortly ago for that to tell."""
    if any(_is_racy(entry.stat) for entry in tree.entries):
        return None
    return tuple((e.path, e.link, e.executable, _identity(e.stat)) for e in tree.entries)


def combine(tree: Tree, digests: Mapping[str, str]) -> str:
    whole = hashlib.sha256()
    for entry in tree.entries:
        kind, content = _content(entry, digests)
        for part in (kind, entry.path, content):
            whole.update(os.fsencode(part) + b"\0")
    return whole.hexdigest()


def _content(entry: Entry, digests: Mapping[str, str]) -> tuple[str, str]:
    if entry.is_dir:
        return "dir", ""
    if entry.link is not None:
        return "link", entry.link
    return "program" if entry.executable else "file", digests[entry.path]


def _file_digest(top: Path, path: str, seen: os.stat_result, known: str) -> str:
    if known.startswith(_identity(seen) + " "):
        return known
    fd = os.open(os.path.join(top, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as f:
        sha256 = hashlib.file_digest(f, "sha256").hexdigest()
        return f"{_identity(os.fstat(fd))} {sha256}"


def _identity(seen: os.stat_result) -> str:
    return f"{seen.st_ino}:{seen.st_size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}"


def _is_racy(seen: os.stat_result) -> bool:
    return max(seen.st_mtime_ns, seen.st_ctime_ns) > time.time_ns() - RACY_NS


def _read_cache(path: Path) -> Mapping[str, str]:
    """Whatever is wrong with a cache, the answer is to do without."""
    try:
        cache = from_json(DigestCache, read_json(path), str(path))
    except (OSError, FormatError):
        return {}
    return cache.files if cache.format == FORMAT else {}


def _write_cache(path: Path, known: Mapping[str, str], files: Mapping[str, str]) -> None:
    if files == known:
        return
    with contextlib.suppress(OSError):  # a read-only or full disk only costs time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, to_json(DigestCache(FORMAT, files)))
