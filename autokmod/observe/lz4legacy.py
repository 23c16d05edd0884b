"""The format of `lz4 -l`: kernels and initrds are compressed with it, modules are not.

Blocks of 8 MiB of content, each behind its size (le32). Nothing says where it ends: a stream that was cut off between
two blocks looks whole.
"""

from __future__ import annotations

import struct

from autokmod.errors import FormatError
from autokmod.observe.image.input import Input
from autokmod.observe.image.reader import Chunks, Reader

MAGIC = b"\x02\x21\x4c\x18"
BLOCK = 8 << 20
SIZE = struct.Struct("<I")


def unpack_blocks(data: memoryview, at: int, path: str) -> Chunks:
    source = Input(data, at, path, "lz4")
    block = source.library("lz4.block", "python3-lz4")
    source.take(len(MAGIC))
    while source.at < len(data):
        head = source.take(min(4, len(data) - source.at))
        size = int.from_bytes(head, "little")
        if size == 0:  # the padding behind it
            return source.at - len(head)
        if head == MAGIC:
            continue
        with source.watched(block.LZ4BlockError):
            yield block.decompress(source.take(size), uncompressed_size=BLOCK)
    return source.at


def unpack(data: bytes, path: str, *, limit: int) -> bytes:
    """Blocks and nothing else. Raises FormatError: damaged, truncated, more than `limit` bytes, or no library."""
    reader = Reader(unpack_blocks(memoryview(data), 0, path), path, 0, limit)
    whole = reader.rest()
    if reader.end != len(data):
        raise FormatError(path, "the lz4 stream is truncated", reader.end)
    return whole
