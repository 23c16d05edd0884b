"""An image into a directory, each archive in one of its own, so that it can be edited and put together again.

What is in an image is not trusted: nothing is written but regular files, directories and symlinks, all of them below
the directory, and never through a symlink.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from autokmod.errors import FormatError
from autokmod.files import write_json
from autokmod.jsonvalue import to_json
from autokmod.observe.image.contents import open_image
from autokmod.observe.image.cpio import Entry
from autokmod.observe.image.manifest import MANIFEST, Archive, Manifest, Member, Part, check_path, member_of
from autokmod.observe.image.segments import Opened, open_segments

LETTERS = frozenset(b"ABCDEF")


def unpack_image(image: str, directory: Path) -> Manifest:
    """All or nothing; `directory` is made, or empty. Raises FormatError with an offset, OSError."""
    data, start = open_image(image)
    scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        manifest = _unpack(data, image, start, scratch)
        write_json(scratch / MANIFEST, to_json(manifest))
        os.rename(scratch, directory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return manifest


def _unpack(data: memoryview, image: str, start: int, top: Path) -> Manifest:
    parts: list[Part] = []
    at = start
    for number, opened in enumerate(open_segments(data, image, start)):
        archives, inside = _archives(opened, image, top, f"{number}-{opened.kind}")
        behind, end = opened.reader.at - inside, opened.finish()
        part = Part(opened.kind, opened.offset - start, end - opened.offset, opened.offset - at, archives, behind)
        parts.append(part)
        at = end
    return Manifest(tuple(parts), len(data) - at)


def _archives(opened: Opened, image: str, top: Path, name: str) -> tuple[tuple[Archive, ...], int]:
    """And where the last one ends in the stream."""
    end = 0
    archives: list[Archive] = []
    for number, entries in enumerate(opened.archives(lambda _: True)):
        directory = f"{name}-{number}" if number else name
        zeros = opened.reader.at - end
        (top / directory).mkdir(mode=0o755)
        with _Extraction(top / directory, image, opened.offset) as extraction:
            members, uppercase = extraction.write(entries)
        end = opened.reader.at
        archives.append(Archive(directory, zeros, uppercase, members))
    return tuple(archives), end


class _Extraction(contextlib.AbstractContextManager["_Extraction"]):
    def __init__(self, top: Path, image: str, offset: int) -> None:
        self._top = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self._image, self._offset = image, offset
        self._linked: dict[tuple[int, int, int, int], str] = {}

    def __exit__(self, *_: object) -> None:
        os.close(self._top)

    def write(self, entries: Iterable[Entry]) -> tuple[tuple[Member, ...], bool]:
        """What was written, and whether its headers are in capitals."""
        members: dict[str, Member] = {}
        uppercase = False
        for entry in entries:
            uppercase = uppercase or not LETTERS.isdisjoint(entry.header)
            member = member_of(entry)
            self._write(entry, member)
            members.pop(member.path, None)  # what stood there before was replaced
            members[member.path] = member
        return tuple(members.values()), uppercase

    def _fail(self, member: Member, why: str) -> FormatError:
        return FormatError(self._image, f"{member.name!r} {why}", self._offset)

    def _write(self, entry: Entry, member: Member) -> None:
        why = check_path(member)
        if why:
            raise self._fail(member, why)
        parts = PurePosixPath(member.path).parts
        if not parts:
            return
        try:
            with self._parent(parts) as parent:
                self._create(entry, member, parent, parts[-1])
        except OSError as exc:
            raise self._fail(member, f"cannot be unpacked: {exc.strerror}") from exc

    @contextlib.contextmanager
    def _parent(self, parts: tuple[str, ...]) -> Iterator[int]:
        """Down from the top, through directories alone."""
        fd = os.dup(self._top)
        try:
            for part in parts[:-1]:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=fd)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _create(self, entry: Entry, member: Member, parent: int, name: str) -> None:
        if stat.S_ISDIR(entry.mode):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                os.fchmod(fd, given_mode(entry.mode))
            finally:
                os.close(fd)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        if entry.is_symlink:
            os.symlink((entry.content or b"").split(b"\0")[0], name, dir_fd=parent)
        elif entry.is_file:
            self._create_file(entry, member, parent, name)

    def _create_file(self, entry: Entry, member: Member, parent: int, name: str) -> None:
        first = self._linked.get(entry.link) if entry.link is not None else None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        if first is not None:
            with self._parent(PurePosixPath(first).parts) as other:
                os.link(PurePosixPath(first).name, name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
            flags = os.O_WRONLY | os.O_NOFOLLOW
        elif entry.link is not None:
            self._linked[entry.link] = member.path
        fd = os.open(name, flags, 0o600, dir_fd=parent)
        with os.fdopen(fd, "wb") as file:
            file.write(entry.content or b"")
            file.flush()
            os.fchmod(fd, given_mode(entry.mode))
            os.utime(fd, (member.mtime, member.mtime))


def given_mode(mode: int) -> int:
    """What an unpacked file has: no setuid, and always readable for whoever unpacked it."""
    return mode & 0o777 | (0o700 if stat.S_ISDIR(mode) else 0o600)
