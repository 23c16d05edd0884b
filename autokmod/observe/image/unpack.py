"""The compressions that kernels unpack initrds with, each as a generator of bounded chunks.

A segment is one stream: where it ends, the kernel's unpacker stops, and an archive may not go on in the next one.
Libraries that a machine need not have are imported where they are used; without them a segment cannot be looked into.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any, TypeAlias

from autokmod.observe import lz4legacy
from autokmod.observe.image.input import CHUNK, Input
from autokmod.observe.image.reader import Chunks

MEMORY = 256 << 20  # that a dictionary or window may ask for
GZIP_UNREAD = 0xF6  # flags: of the optional fields, lib/decompress_inflate.c skips the name alone
XZ_CHECKS = (0, 1)  # none and CRC32: lib/xz has no others
LZMA_MAGIC = b"\x5d\0\0"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
LZO_MAGIC = b"\x89LZO\0\r\n\x1a\n"
Unpacker: TypeAlias = Callable[[memoryview, int, str], Chunks]  # all of the file, offset, path


def unpack_plain(data: memoryview, at: int, path: str) -> Chunks:
    del path
    while at < len(data):
        yield bytes(data[at : at + CHUNK])
        at += CHUNK
    return len(data)


def _unpack_gzip(data: memoryview, at: int, path: str) -> Chunks:
    source, stream, rest = Input(data, at, path, "gzip"), zlib.decompressobj(wbits=31), b""
    if any(flags & GZIP_UNREAD for flags in data[at + 3 : at + 4]):
        raise source.fail("a gzip header with fields that kernels do not expect")
    while not stream.eof:
        with source.watched(zlib.error):
            yield stream.decompress(rest or source.some(), CHUNK)
        rest = stream.unconsumed_tail
    return source.at - len(stream.unused_data)


def _unpack_with(kind: str, make: Callable[[], Any]) -> Unpacker:
    """For the decompressors of lzma and bz2, which keep what they were given and did not use yet."""

    def unpack(data: memoryview, at: int, path: str) -> Chunks:
        source, stream = Input(data, at, path, kind), make()
        while not stream.eof:
            with source.watched(lzma.LZMAError, OSError):
                yield stream.decompress(source.some() if stream.needs_input else b"", CHUNK)
        return source.at - len(stream.unused_data)

    return unpack


def _unpack_xz(data: memoryview, at: int, path: str) -> Chunks:
    if any(check not in XZ_CHECKS for check in data[at + 7 : at + 8]):
        raise Input(data, at, path, "xz").fail(f"a check of kind {data[at + 7]}, and kernels know none but CRC32")
    return (yield from _unpack_any_xz(data, at, path))


_unpack_any_xz = _unpack_with("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY))


def _unpack_zstd(data: memoryview, at: int, path: str) -> Chunks:
    """One frame. The library does not say where it ended, but its blocks are easily counted (RFC 8878, 3.1.1)."""
    source = Input(data, at, path, "zstd")
    zstandard = source.library("zstandard", "python3-zstandard")
    end = _end_of_frame(source)
    stream = zstandard.ZstdDecompressor(max_window_size=MEMORY // 2).stream_reader(data[at:end])
    while True:
        with source.watched(zstandard.ZstdError):
            chunk = stream.read(CHUNK)
        if not chunk:
            return end
        yield chunk


def _end_of_frame(source: Input) -> int:
    (descriptor,) = source.take(5)[4:]
    single = descriptor >> 5 & 1
    source.take((1 - single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6])
    last = False
    while not last:
        header = int.from_bytes(source.take(3), "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if kind == 3:
            raise source.fail("damaged zstd stream: a block of reserved type")
        source.take(1 if kind == 1 else size)
    source.take(4 if descriptor & 4 else 0)
    return source.at


def _unpack_lzo(data: memoryview, at: int, path: str) -> Chunks:
    """As lzop writes it (lib/decompress_unlzo.c): blocks behind both their sizes and a checksum, the last size is 0."""
    source = Input(data, at, path, "lzo")
    lzo = source.library("lzo", "python3-lzo")
    _skip_lzop_header(source)
    while unpacked := int.from_bytes(source.take(4), "big"):
        packed = int.from_bytes(source.take(4), "big")
        checksum = int.from_bytes(source.take(4), "big")
        if not 0 < packed <= unpacked <= CHUNK:
            raise source.fail("damaged lzo stream: sizes of a block that no kernel takes")
        block = source.take(packed)
        with source.watched(lzo.error):
            chunk = block if packed == unpacked else lzo.decompress(block, False, unpacked)  # noqa: FBT003  # no header
        if zlib.adler32(chunk) != checksum:
            raise source.fail("damaged lzo stream: the checksum of a block is wrong")
        yield chunk
    return source.at


def _skip_lzop_header(source: Input) -> None:
    source.take(len(LZO_MAGIC))
    version, _, _ = struct.unpack(">HHH", source.take(6))
    source.take(2 if version >= 0x940 else 1)  # method, and since then level
    (flags,) = struct.unpack(">I", source.take(4))
    source.take((4 if flags & 0x800 else 0) + 4 + 4 + (4 if version >= 0x940 else 0))  # filter, mode, times
    source.take(source.take(1)[0] + 4)  # name, checksum
    if flags & 0x03 != 0x01:
        raise source.fail("damaged lzo stream: the kernel wants one Adler-32 a block")


UNPACKERS: tuple[tuple[bytes, str, Unpacker], ...] = (
    (b"\x1f\x8b", "gzip", _unpack_gzip),
    (b"\xfd7zXZ\0", "xz", _unpack_xz),
    (LZMA_MAGIC, "lzma", _unpack_with("lzma", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MEMORY))),
    (b"BZh", "bzip2", _unpack_with("bzip2", bz2.BZ2Decompressor)),
    (ZSTD_MAGIC, "zstd", _unpack_zstd),
    (lz4legacy.MAGIC, "lz4", lz4legacy.unpack_blocks),
    (LZO_MAGIC, "lzo", _unpack_lzo),
)
