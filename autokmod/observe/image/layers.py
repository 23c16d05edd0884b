"""The files that a kernel makes of an image's entries, one after the other, as init/initramfs.c does.

No directory is made unasked: what has no place is lost without a word. Names lead through links that are there by
then. What is written over keeps its inode, hence its other names; what is of another kind goes first, unless it is a
directory that is not empty, and then what was to come in its place is lost.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from autokmod.observe.image.cpio import Entry

PATH_MAX = 4096
MAX_LINKS = 40  # as the kernel's MAXSYMLINKS
MADE = (stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
ALWAYS = {path: Entry(path, stat.S_IFDIR | 0o755, 0, None, None) for path in ("dev", "root")}  # made by every kernel


@dataclass(slots=True)
class _Inode:
    entry: Entry  # with the content that it has now


def lay_over(entries: Iterable[Entry]) -> dict[str, Entry]:
    """By the paths that they have in the end, which lead through no link."""
    tree = _Tree()
    for entry in entries:
        tree.add(entry)
    return {path: inode.entry for path, inode in tree.inodes.items() if inode.entry is not ALWAYS.get(path)}


def real_path(files: Mapping[str, Entry], path: str) -> str | None:
    """Where it leads, through all links; "" is the top. None where nothing is."""
    todo, done, links = _parts(path)[::-1], list[str](), 0
    while todo:
        part = todo.pop()
        if part == "..":
            done = done[:-1]
            continue
        here = "/".join((*done, part))
        entry = files.get(here, ALWAYS.get(here))
        if entry is None:
            return None
        if entry.is_symlink:
            links += 1
            if links > MAX_LINKS:
                return None
            target = _target(entry)
            done = [] if target.startswith("/") else done
            todo += _parts(target)[::-1]
        elif todo and not stat.S_ISDIR(entry.mode):
            return None
        else:
            done.append(part)
    return "/".join(done)


def resolve(files: Mapping[str, Entry], path: str) -> Entry | None:
    """Through the links on its way (lib → usr/lib), as a program in the initrd would find it."""
    real = real_path(files, path)
    return files.get(real) if real else None


def _target(entry: Entry) -> str:
    return (entry.content or b"").split(b"\0")[0].decode("utf-8", "surrogateescape")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


class _Tree:
    def __init__(self) -> None:
        self.inodes = {path: _Inode(entry) for path, entry in ALWAYS.items()}
        self._files = _Entries(self.inodes)
        self._children: Counter[str] = Counter()
        self._linked: dict[tuple[int, ...], str] = {}  # the first name in its archive
        self._parents: dict[str, str | None] = {}  # until a link or a directory comes or goes

    def add(self, entry: Entry) -> None:
        path = self._place(entry.path)
        first = self._linked.get(entry.link) if entry.link is not None else None
        if entry.link is not None:
            self._linked.setdefault(entry.link, entry.path)
        if path is None:
            return
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFLNK:
            self._add_link(path, entry)
        elif kind == stat.S_IFREG:
            self._add_file(path, first, entry)
        elif not entry.size and self._make_way(path, kind) and kind in MADE:
            self._make(path, entry).entry = entry

    def _place(self, path: str) -> str | None:
        """None: it is the top itself, or lost."""
        parts = _parts(path)
        if not parts or parts[-1] == "..":
            return None
        parent = "/".join(parts[:-1])
        if parent not in self._parents:
            real = real_path(self._files, parent)
            is_there = real is not None and (not real or self._is_directory(real))
            self._parents[parent] = real if is_there else None
        real = self._parents[parent]
        return None if real is None else "/".join((real, parts[-1])).lstrip("/")

    def _is_directory(self, path: str) -> bool:
        inode = self.inodes.get(path)
        return inode is not None and stat.S_ISDIR(inode.entry.mode)

    def _add_link(self, path: str, entry: Entry) -> None:
        if entry.size <= PATH_MAX and self._make_way(path, None) and _target(entry):
            self._make(path, entry)

    def _add_file(self, path: str, first: str | None, entry: Entry) -> None:
        if first is not None:
            self._add_name(path, first, entry)
        elif self._make_way(path, stat.S_IFREG):
            self._make(path, entry).entry = entry

    def _add_name(self, path: str, first: str, entry: Entry) -> None:
        """Of what has the first name by now; with content of its own, that is written into it."""
        if not self._make_way(path, None):
            return
        place = self._place(first)
        inode = self.inodes.get(place) if place is not None else None
        if inode is not None and stat.S_ISREG(inode.entry.mode):
            self._put(path, inode)
            inode.entry = entry if entry.size else inode.entry

    def _make_way(self, path: str, kind: int | None) -> bool:
        """For what is of this kind; None: for what takes the place of anything."""
        inode = self.inodes.get(path)
        if inode is None or stat.S_IFMT(inode.entry.mode) == kind:
            return True
        if self._children[path]:
            return False
        self._parents.clear()
        del self.inodes[path]
        self._children[path.rpartition("/")[0]] -= 1
        return True

    def _make(self, path: str, entry: Entry) -> _Inode:
        if path not in self.inodes:
            self._put(path, _Inode(entry))
        return self.inodes[path]

    def _put(self, path: str, inode: _Inode) -> None:
        if not stat.S_ISREG(inode.entry.mode):
            self._parents.clear()
        self.inodes[path] = inode
        self._children[path.rpartition("/")[0]] += 1


class _Entries(Mapping[str, Entry]):
    """The same, as they are now."""

    def __init__(self, inodes: Mapping[str, _Inode]) -> None:
        self._inodes = inodes

    def __getitem__(self, path: str) -> Entry:
        return self._inodes[path].entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._inodes)

    def __len__(self) -> int:
        return len(self._inodes)
