"""An image, segment by segment: what the kernel would unpack, or why it could not.

initrd := ( zeros | archive | compressed(archives) )*

as in Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autokmod.errors import FormatError
from autokmod.observe.image.cpio import MAGIC, MAGIC_SUMMED, Entry, Wanted, read_archive, read_archives
from autokmod.observe.image.reader import Reader
from autokmod.observe.image.unpack import UNPACKERS, unpack_plain

UNPACKED_LIMIT = 4 << 30
PLAIN = "cpio"


@dataclass(frozen=True, slots=True)
class Segment:
    offset: int  # in the file
    end: int
    kind: str  # cpio, or the compression
    entries: tuple[Entry, ...]


def read_segments(data: memoryview, path: str, wanted: Wanted, start: int = 0) -> Iterator[Segment]:
    """From `start` to the end of `data`. Raises FormatError with the offset of the segment that is damaged."""
    at = _skip_zeros(data, start)
    while at < len(data):
        segment = _read_plain(data, path, wanted, at) if _is_cpio(data, at) else _read_packed(data, path, wanted, at)
        yield segment
        at = _skip_zeros(data, segment.end)


def _is_cpio(data: memoryview, at: int) -> bool:
    return bytes(data[at : at + 6]) in (MAGIC, MAGIC_SUMMED)


def _read_plain(data: memoryview, path: str, wanted: Wanted, at: int) -> Segment:
    if at % 4:
        raise FormatError(path, "an archive that does not begin at a multiple of four bytes: no kernel takes it", at)
    reader = Reader(unpack_plain(data, at, path), path, at, UNPACKED_LIMIT)
    entries = tuple(read_archive(reader, wanted))
    return Segment(at, at + reader.at, PLAIN, entries)


def _read_packed(data: memoryview, path: str, wanted: Wanted, at: int) -> Segment:
    head = bytes(data[at : at + 16])
    for magic, kind, unpack in UNPACKERS:
        if head.startswith(magic):
            reader = Reader(unpack(data, at, path), path, at, UNPACKED_LIMIT)
            entries = tuple(read_archives(reader, wanted))
            return Segment(at, reader.finish(), kind, entries)
    raise FormatError(path, f"neither an archive nor a compression that kernels know: {head[:6].hex()}", at)


def _skip_zeros(data: memoryview, at: int) -> int:
    while at < len(data):
        block = bytes(data[at : at + 4096])
        rest = block.lstrip(b"\0")
        if rest:
            return at + len(block) - len(rest)
        at += len(block)
    return at
