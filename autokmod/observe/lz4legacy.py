"""The format of `lz4 -l`: kernels and initrds are compressed with it, modules are not.

Blocks of 8 MiB of content, each behind its size (le32). Nothing says where it ends: a stream that was cut off between
two blocks looks whole.
"""

from __future__ import annotations

import struct

from autokmod.errors import FormatError

MAGIC = b"\x02\x21\x4c\x18"
BLOCK = 8 << 20
SIZE = struct.Struct("<I")


def unpack(data: bytes, path: str, *, limit: int) -> bytes:
    """Raises FormatError: damaged, truncated, more than `limit` bytes, or the library is not there."""
    try:
        from lz4.block import LZ4BlockError, decompress
    except ImportError as exc:
        raise FormatError(path, "to unpack lz4 takes Python's lz4 (python3-lz4)") from exc
    parts: list[bytes] = []
    at, size = len(MAGIC), 0
    while at < len(data) and size <= limit:
        end = _end_of_block(data, path, at)
        try:
            parts.append(decompress(data[at + SIZE.size : end], uncompressed_size=BLOCK))
        except LZ4BlockError as exc:
            raise FormatError(path, f"damaged lz4 stream: {exc}", at) from exc
        at, size = end, size + len(parts[-1])
    if size > limit:
        raise FormatError(path, f"unpacks to more than {limit} bytes", at)
    return b"".join(parts)


def _end_of_block(data: bytes, path: str, at: int) -> int:
    if at + SIZE.size <= len(data):
        end: int = at + SIZE.size + SIZE.unpack_from(data, at)[0]
        if at + SIZE.size < end <= len(data):
            return end
    raise FormatError(path, "the lz4 stream is truncated", at)
