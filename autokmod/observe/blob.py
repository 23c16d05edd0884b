"""Files that may be compressed: modules and symvers. What a file is, its first bytes say, not its name.

One stream is accepted, no more: whatever follows it is refused, as is anything that unpacks to more than the limit.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple, Protocol

from autokmod.errors import FormatError

LIMIT = 256 << 20
XZ_MEMORY = 128 << 20  # the dictionary that an .xz header may ask for
ZSTD_WINDOW = 128 << 20  # as `zstd -d` accepts without --long
STEP = 4096  # of input; an error's offset is that of its step
# This one cannot be told how much it may unpack at once. 4 bytes of input can make 128 KiB of output: what one step
# may add beyond the limit stays below 8 MiB.
ZSTD_STEP = 256
CHUNK = 64 << 10  # os.read() allocates what it is asked for; of a file that grows, or says that it is empty


def read_blob(path: str | os.PathLike[str], *, limit: int = LIMIT) -> bytes:
    """Raises FormatError, and OSError where the file cannot be read. Neither input nor output exceeds `limit`."""
    return decompress(read_bounded(path, limit=limit), os.fspath(path), limit=limit)


def read_bounded(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """The bytes of a regular file. Anything else is refused: reading a pipe or a device may never end."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode, expected = (info := os.fstat(fd)).st_mode, info.st_size
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise FormatError(os.fspath(path), "not a regular file")
        data = _read_all(fd, limit + 1, expected + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise FormatError(os.fspath(path), f"larger than {limit} bytes")
    return data


def _read_all(fd: int, size: int, expected: int) -> bytes:
    """In one piece, most often: joining large ones takes as long as reading them."""
    parts = []
    while size > 0 and (part := os.read(fd, min(size, max(expected, CHUNK)))):
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


class _Stream(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


def _gunzip(data: bytes, path: str, limit: int) -> bytes:
    import zlib

    stream = zlib.decompressobj(wbits=31)
    return _feed(_Input(data, path, "gzip", STEP, zlib.error), stream, stream.decompress, limit)


def _unxz(data: bytes, path: str, limit: int) -> bytes:
    import lzma

    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    return _feed(_Input(data, path, "xz", STEP, lzma.LZMAError), stream, stream.decompress, limit)


def _unzstd(data: bytes, path: str, limit: int) -> bytes:
    import zstandard

    stream = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
    source = _Input(data, path, "zstd", ZSTD_STEP, zstandard.ZstdError)
    return _feed(source, stream, lambda part, _most: stream.decompress(part), limit)


class _Input(NamedTuple):
    data: bytes
    path: str
    kind: str
    step: int
    error: type[Exception]  # of the library, for damage


def _feed(source: _Input, stream: _Stream, decompress: Callable[[bytes, int], bytes], limit: int) -> bytes:
    """Step by step: so it is known where the damage is, and nothing is unpacked beyond the limit."""
    parts: list[bytes] = []
    size = fed = 0
    while fed < len(source.data) and size <= limit and not stream.eof:
        try:
            part = decompress(source.data[fed : fed + source.step], limit + 1 - size)
        except source.error as exc:
            raise FormatError(source.path, f"damaged {source.kind} stream: {exc}", fed) from exc
        fed += source.step
        parts.append(part)
        size += len(part)
    end = min(fed, len(source.data)) - len(stream.unused_data)
    if size > limit:
        raise FormatError(source.path, f"unpacks to more than {limit} bytes", end)
    if not stream.eof:
        raise FormatError(source.path, "the compressed stream is truncated", len(source.data))
    if end < len(source.data):
        raise FormatError(source.path, "something follows the compressed stream", end)
    return b"".join(parts)


_UNPACKERS: tuple[tuple[bytes, Callable[[bytes, str, int], bytes]], ...] = (
    (b"\x1f\x8b", _gunzip),
    (b"\xfd7zXZ\0", _unxz),
    (b"\x28\xb5\x2f\xfd", _unzstd),
)
