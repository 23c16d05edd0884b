"""What an unpacked image cannot say by its files alone: kinds, order, padding, and all that headers hold.

MANIFEST lies beside the directories, one for each archive. A segment is compressed or not; a compressed one may hold
several archives. Device nodes stand here alone, and owners, setuid bits and modes count from here: whoever unpacks an
image, root or not, gets plain files of their own.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autokmod.errors import FormatError
from autokmod.files import read_json
from autokmod.jsonvalue import from_json
from autokmod.observe.image.cpio import Entry

MANIFEST = "manifest.json"
FORMAT = 1
LIMIT = 512 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive."""

    name: str
    mode: str  # octal, with the file's kind
    inode: int
    uid: int
    gid: int
    links: int
    mtime: int
    size: int
    device: tuple[int, ...]  # major and minor of where the file was, and of what a device node is
    zeros: int  # behind the name; more than one where somebody aligned what follows
    summed: bool = False

    @property
    def path(self) -> str:
        """Below its archive's directory; "" is that itself."""
        return "/".join(part for part in PurePosixPath(self.name).parts if part.strip("/"))

    @property
    def bits(self) -> int:
        return int(self.mode, 8)


@dataclass(frozen=True, slots=True)
class Archive:
    directory: str
    zeros: int  # before it, in the stream
    uppercase: bool  # hex digits in its headers
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One segment."""

    kind: str  # cpio, or the compression
    offset: int  # from where the initrd begins
    size: int
    zeros: int  # before it
    archives: tuple[Archive, ...]
    zeros_behind: int  # the last archive, in the stream


@dataclass(frozen=True, slots=True)
class Manifest:
    parts: tuple[Part, ...]
    zeros_behind: int
    format: int = FORMAT


def read_manifest(directory: Path) -> Manifest:
    """Raises FormatError; OSError travels."""
    path = directory / MANIFEST
    manifest = from_json(Manifest, read_json(path, limit=LIMIT), str(path))
    if manifest.format != FORMAT:
        raise FormatError(str(path), f"format {manifest.format} is not known, {FORMAT} expected")
    for archive in (a for part in manifest.parts for a in part.archives):
        if archive.directory in ("", ".", "..") or not {"/", "\0"}.isdisjoint(archive.directory):
            raise FormatError(str(path), f"{archive.directory!r} is no name for a directory")
        for member in archive.members:
            why = _check_numbers(member) or check_path(member)
            if why:
                raise FormatError(str(path), f"{member.name!r} {why}")
    return manifest


def _check_numbers(member: Member) -> str | None:
    numbers = (member.inode, member.uid, member.gid, member.links, member.mtime, member.size, *member.device)
    if any(not 0 <= n < 1 << 32 for n in numbers) or len(member.device) != 4 or not 0 < member.zeros < 4096:
        return "has numbers that no header can hold"
    try:
        is_mode = 0 <= member.bits < 1 << 32
    except ValueError:
        is_mode = False
    return None if is_mode else f"has a mode that is none: {member.mode}"


def check_path(member: Member) -> str | None:
    """What is wrong with it."""
    if ".." in PurePosixPath(member.name).parts:
        return "leads out of its directory"
    if not member.path and not stat.S_ISDIR(member.bits):
        return "is the top itself, and no directory"
    return "holds a zero" if "\0" in member.name else None


def member_of(entry: Entry) -> Member:
    fields = [int(entry.header[i : i + 8], 16) for i in range(6, 110, 8)]
    ino, mode, uid, gid, links, mtime, size, *device, name_size, _ = fields
    name = entry.name.decode("utf-8", "surrogateescape")
    summed = entry.header.startswith(b"070702")
    zeros = name_size - len(entry.name)
    return Member(name, f"{mode:o}", ino, uid, gid, links, mtime, size, tuple(device), zeros, summed)


def kind_of(mode: int) -> str:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    return kinds.get(stat.S_IFMT(mode), "special")
