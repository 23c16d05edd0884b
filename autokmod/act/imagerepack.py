"""What was unpacked, and perhaps edited, as an image again: kinds, order, headers and padding as they were.

What was not touched comes out as it was, byte by byte before compression. Files that are gone are left out, new ones
stand at the end of their archive, and belong to root. A mode or time that was changed on disk counts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from autokmod.act.imagepack import PACKERS
from autokmod.act.imageunpack import given_mode
from autokmod.errors import FormatError
from autokmod.observe.blob import read_bounded
from autokmod.observe.image.cpio import TRAILER
from autokmod.observe.image.manifest import MANIFEST, Archive, Manifest, Member, Part, kind_of, read_manifest
from autokmod.observe.image.segments import UNPACKED_LIMIT

MOST_ALIGNED = 4096
NO_MEMBER = Member(TRAILER, "0", 0, 0, 0, 1, 0, 0, (0, 0, 0, 0), 1)


def repack_image(directory: Path) -> bytes:
    """Raises FormatError, ToolMissing, OSError."""
    manifest = read_manifest(directory)
    _check_kinds(directory, manifest)
    out = bytearray()
    before: Part | None = None
    is_moved = False
    for part in manifest.parts:
        is_moved = is_moved or (before is not None and len(out) != before.offset + before.size)
        out += bytes(-len(out) % _alignment(part) if is_moved else part.zeros)
        out += PACKERS[part.kind](_stream(directory, part))
        before = part
    return bytes(out) + bytes(manifest.zeros_behind)


def _check_kinds(directory: Path, manifest: Manifest) -> None:
    wrong = next((p.kind for p in manifest.parts if p.kind not in PACKERS), None)
    if wrong is not None:
        raise FormatError(str(directory / MANIFEST), f"nothing is known of a segment's kind {wrong!r}")


def _alignment(part: Part) -> int:
    """That it had; an archive that is not compressed needs four."""
    return max(4, min(part.offset & -part.offset, MOST_ALIGNED))


def _stream(directory: Path, part: Part) -> bytes:
    out = bytearray()
    for archive in part.archives:
        out += bytes(archive.zeros + -(len(out) + archive.zeros) % 4)
        out += b"".join(_entries(directory / archive.directory, archive))
    return bytes(out) + bytes(part.zeros_behind)


# ---- one archive


@dataclass(frozen=True, slots=True)
class _File:
    """On disk."""

    path: str  # below its archive's directory
    info: os.stat_result

    @property
    def kind(self) -> str:
        return kind_of(self.info.st_mode)


def _entries(top: Path, archive: Archive) -> Iterator[bytes]:
    files = {f.path: f for f in _walk(top)}
    members = [*_kept(archive.members, files), *_new(archive.members, files)]
    contents = {m.path: _content(top, m) for m in members}
    for member, content in _with_links(members, contents):
        yield encode(member, content, uppercase=archive.uppercase)
    yield encode(NO_MEMBER, b"", uppercase=archive.uppercase)


def _walk(top: Path) -> Iterator[_File]:
    for directory, subdirectories, names in os.walk(top, onerror=_raise):
        for name in sorted((*subdirectories, *names)):
            path = os.path.join(directory, name)
            yield _File(os.path.relpath(path, top), os.lstat(path))


def _raise(error: OSError) -> None:
    raise error


def _kept(members: Iterable[Member], files: Mapping[str, _File]) -> Iterator[Member]:
    for member in members:
        file = files.get(member.path)
        if not member.path or (file is None and kind_of(member.bits) == "special"):
            yield member
        elif file is not None:
            yield _as_on_disk(member, file)


def _as_on_disk(member: Member, file: _File) -> Member:
    mode, now = member.bits, file.info.st_mode
    is_same_kind = kind_of(mode) == file.kind
    if not is_same_kind or (file.kind != "symlink" and stat.S_IMODE(now) != given_mode(mode)):
        member = replace(member, mode=f"{now:o}")
    if file.kind == "file":
        member = replace(member, mtime=_time(file))
    return member if is_same_kind else replace(member, links=1)


def _time(file: _File) -> int:
    return min(max(int(file.info.st_mtime), 0), 0xFFFFFFFF)


def _new(members: Iterable[Member], files: Mapping[str, _File]) -> Iterator[Member]:
    """Directories that an archive leaves to another one were made by unpacking it, and by nobody else."""
    known = {m.path for m in members} | {str(p) for m in members for p in PurePosixPath(m.path).parents}
    inode = max((m.inode for m in members), default=0)
    for number, path in enumerate(sorted(set(files) - known), 1):
        file = files[path]
        if file.kind == "special":
            raise FormatError(path, "neither a file, a directory nor a symlink: device nodes belong in the manifest")
        links = 2 if file.kind == "directory" else 1
        device = (0, 0, 0, 0)
        yield Member(path, f"{file.info.st_mode:o}", inode + number, 0, 0, links, _time(file), 0, device, 1)


def _content(top: Path, member: Member) -> bytes:
    kind = kind_of(member.bits)
    if kind == "symlink":
        return os.fsencode(os.readlink(top / member.path))
    return read_bounded(top / member.path, limit=UNPACKED_LIMIT) if kind == "file" else b""


def _with_links(members: Iterable[Member], contents: Mapping[str, bytes]) -> Iterator[tuple[Member, bytes]]:
    """Files that were one, and still hold the same, stay one: one of them carries the content for all."""
    members = list(members)
    groups: dict[tuple[int, ...], list[Member]] = {}
    for member in members:
        if kind_of(member.bits) == "file" and member.links > 1:
            groups.setdefault((*member.device[:2], member.inode), []).append(member)
    carried = {m.path: m is _carrier(group) for group in groups.values() if _is_one(group, contents) for m in group}
    fresh = max((m.inode for m in members), default=0)
    for member in members:
        if member.path in carried:
            yield member, contents[member.path] if carried[member.path] else b""
        elif kind_of(member.bits) == "file" and member.links > 1:
            fresh += 1
            yield replace(member, links=1, inode=fresh), contents[member.path]
        else:
            yield member, contents[member.path]


def _is_one(group: list[Member], contents: Mapping[str, bytes]) -> bool:
    return len(group) > 1 and len({contents[m.path] for m in group}) == 1


def _carrier(group: list[Member]) -> Member:
    return next((m for m in reversed(group) if m.size), group[-1])


def encode(member: Member, content: bytes, *, uppercase: bool) -> bytes:
    """Header, name and content, each filled up to four bytes. Raises FormatError for what no header can hold."""
    name = member.name.encode("utf-8", "surrogateescape") + bytes(member.zeros)
    total = sum(content) & 0xFFFFFFFF if member.summed and kind_of(member.bits) == "file" else 0
    fields = (member.inode, member.bits, member.uid, member.gid, member.links, member.mtime, len(content))
    numbers = (*fields, *member.device, len(name), total)
    if len(content) > 0xFFFFFFFF:
        raise FormatError(member.name, "too large for this kind of archive")
    digits = "".join(f"{n:08X}" if uppercase else f"{n:08x}" for n in numbers)
    head = (b"070702" if member.summed else b"070701") + digits.encode() + name
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
