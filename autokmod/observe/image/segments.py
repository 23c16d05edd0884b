"""An image, segment by segment: what the kernel would unpack, or why it could not.

initrd := ( zeros | archive | compressed(archives) )*

as in Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autokmod.errors import FormatError
from autokmod.observe.image.cpio import ENTRY_LIMIT, MAGIC, MAGIC_SUMMED, Entry, Wanted, read_archive
from autokmod.observe.image.reader import Reader
from autokmod.observe.image.unpack import UNPACKERS, unpack_plain

UNPACKED_LIMIT = 4 << 30  # bytes, of all of them
KEPT_LIMIT = 1 << 30  # bytes of what is wanted
PLAIN = "cpio"


@dataclass(frozen=True, slots=True)
class Segment:
    offset: int  # in the file
    end: int
    kind: str  # cpio, or the compression
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A segment while it is read: all its archives, then finish()."""

    offset: int
    kind: str
    reader: Reader

    def archives(self, wanted: Wanted) -> Iterator[Iterator[Entry]]:
        """Each to be read to its end before the next. Raises FormatError, as they do."""
        number = 0
        while number == 0 if self.kind == PLAIN else self.reader.skip_zeros():
            yield read_archive(self.reader, wanted, (self.offset << 20) + number)
            number += 1

    def finish(self) -> int:
        """Where it ends in the file. Raises FormatError."""
        return self.offset + self.reader.at if self.kind == PLAIN else self.reader.finish()


def read_segments(data: memoryview, path: str, wanted: Wanted, start: int = 0) -> Iterator[Segment]:
    """From `start` to the end of `data`. Raises FormatError with the offset of the segment that is damaged."""
    kept = count = 0
    for opened in open_segments(data, path, start):
        entries: list[Entry] = []
        for entry in (entry for archive in opened.archives(wanted) for entry in archive):
            entries.append(entry)
            count, kept = count + 1, kept + len(entry.content or b"")
            if count > ENTRY_LIMIT or kept > KEPT_LIMIT:
                raise opened.reader.fail(f"{count} files, {kept} bytes of them to be looked into: too many")
        yield Segment(opened.offset, opened.finish(), opened.kind, tuple(entries))


def open_segments(data: memoryview, path: str, start: int = 0) -> Iterator[Opened]:
    """Each to be read before the next. Raises FormatError."""
    at, left = _skip_zeros(data, start), UNPACKED_LIMIT
    while at < len(data):
        opened = _open_plain(data, path, at, left) if _is_cpio(data, at) else _open_packed(data, path, at, left)
        yield opened
        at = _skip_zeros(data, opened.finish())
        left -= opened.reader.at


def _is_cpio(data: memoryview, at: int) -> bool:
    return bytes(data[at : at + 6]) in (MAGIC, MAGIC_SUMMED)


def _open_plain(data: memoryview, path: str, at: int, limit: int) -> Opened:
    if at % 4:
        raise FormatError(path, "an archive that does not begin at a multiple of four bytes: no kernel takes it", at)
    return Opened(at, PLAIN, Reader(unpack_plain(data, at, path), path, at, limit))


def _open_packed(data: memoryview, path: str, at: int, limit: int) -> Opened:
    head = bytes(data[at : at + 16])
    for magic, kind, unpack in UNPACKERS:
        if head.startswith(magic):
            return Opened(at, kind, Reader(unpack(data, at, path), path, at, limit))
    raise FormatError(path, f"neither an archive nor a compression that kernels know: {head[:6].hex()}", at)


def _skip_zeros(data: memoryview, at: int) -> int:
    while at < len(data):
        block = bytes(data[at : at + 4096])
        rest = block.lstrip(b"\0")
        if rest:
            return at + len(block) - len(rest)
        at += len(block)
    return at
