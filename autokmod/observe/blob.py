"""Files that may be compressed: modules and symvers. What a file is, its first bytes say, not its name.

One stream is accepted, no more: whatever follows it is refused, as is anything that unpacks to more than the limit.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from autokmod.errors import FormatError

LIMIT = 256 << 20
XZ_MEMORY = 128 << 20  # the dictionary that an .xz header may ask for
ZSTD_WINDOW = 128 << 20  # as `zstd -d` accepts without --long
# 4 bytes of input can make 128 KiB of output: what one step may add beyond the limit stays below 8 MiB.
ZSTD_STEP = 256
CHUNK = 4 << 20  # os.read() allocates what it is asked for


def read_blob(path: str | os.PathLike[str], *, limit: int = LIMIT) -> bytes:
    """Raises FormatError, and OSError where the file cannot be read. Neither input nor output exceeds `limit`."""
    return decompress(read_bounded(path, limit=limit), os.fspath(path), limit=limit)


def read_bounded(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """The bytes of a regular file. Anything else is refused: reading a pipe or a device may never end."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise FormatError(os.fspath(path), "not a regular file")
        data = _read_all(fd, limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise FormatError(os.fspath(path), f"larger than {limit} bytes")
    return data


def _read_all(fd: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.read(fd, min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def decompress(data: bytes, path: str, *, limit: int = LIMIT) -> bytes:
    """Raises FormatError: damaged, truncated, something behind the end, or more than `limit` bytes."""
    for magic, unpack in _UNPACKERS:
        if data.startswith(magic):
            return unpack(data, path, limit)
    return data


# The decompressors are imported where they are used: most machines need one of them, `status` none.


def _gunzip(data: bytes, path: str, limit: int) -> bytes:
    import zlib

    stream = zlib.decompressobj(wbits=31)
    try:
        out = stream.decompress(data, limit + 1)
    except zlib.error as exc:
        raise FormatError(path, f"damaged gzip stream: {exc}") from exc
    _check_end(path, out, limit, eof=stream.eof, end=len(data) - len(stream.unused_data), size=len(data))
    return out


def _unxz(data: bytes, path: str, limit: int) -> bytes:
    import lzma

    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    try:
        out = stream.decompress(data, limit + 1)
    except lzma.LZMAError as exc:
        raise FormatError(path, f"damaged xz stream: {exc}") from exc
    _check_end(path, out, limit, eof=stream.eof, end=len(data) - len(stream.unused_data), size=len(data))
    return out


def _unzstd(data: bytes, path: str, limit: int) -> bytes:
    import zstandard

    stream = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
    parts: list[bytes] = []
    size = fed = 0
    while fed < len(data) and size <= limit and not stream.eof:
        try:
            part = stream.decompress(data[fed : fed + ZSTD_STEP])
        except zstandard.ZstdError as exc:
            raise FormatError(path, f"damaged zstd stream: {exc}") from exc
        fed += ZSTD_STEP
        parts.append(part)
        size += len(part)
    out, end = b"".join(parts), min(fed, len(data)) - len(stream.unused_data)
    _check_end(path, out, limit, eof=stream.eof, end=end, size=len(data))
    return out


def _check_end(path: str, out: bytes, limit: int, *, eof: bool, end: int, size: int) -> None:
    if len(out) > limit:
        raise FormatError(path, f"unpacks to more than {limit} bytes")
    if not eof:
        raise FormatError(path, "the compressed stream is truncated", size)
    if end < size:
        raise FormatError(path, "something follows the compressed stream", end)


_UNPACKERS: tuple[tuple[bytes, Callable[[bytes, str, int], bytes]], ...] = (
    (b"\x1f\x8b", _gunzip),
    (b"\xfd7zXZ\0", _unxz),
    (b"\x28\xb5\x2f\xfd", _unzstd),
)
