"""The compressions that kernels unpack initrds with, as the kernel wants them, the same bytes for the same content.

Libraries that a machine need not have are imported where they are used.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from autokmod.errors import ToolMissing
from autokmod.observe import lz4legacy
from autokmod.observe.image.unpack import LZO_MAGIC

XZ_DICTIONARY = 1 << 20  # kernels on small machines cannot have more
LZO_BLOCK = 256 << 10
GZIP_LEVEL = 6
ZSTD_LEVEL = 9


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ToolMissing(f"Python's {module}", f"install {package}") from exc


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, GZIP_LEVEL, mtime=0)


def _xz(data: bytes) -> bytes:
    """The kernel knows no other checksum."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": XZ_DICTIONARY}]
    return lzma.compress(data, check=lzma.CHECK_CRC32, filters=filters)


def _lzma(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


def _zstd(data: bytes) -> bytes:
    packed: bytes = (
        _library("zstandard", "python3-zstandard").ZstdCompressor(ZSTD_LEVEL, write_checksum=True).compress(data)
    )
    return packed


def _lz4(data: bytes) -> bytes:
    block = _library("lz4.block", "python3-lz4")
    packed = (block.compress(part, "high_compression", store_size=False) for part in _parts(data, lz4legacy.BLOCK))
    return lz4legacy.MAGIC + b"".join(lz4legacy.SIZE.pack(len(p)) + p for p in packed)


def _lzo(data: bytes) -> bytes:
    """As `lzop` writes it: version 1.04, library 2.10, LZO1X-1, an Adler-32 of each block's content."""
    lzo = _library("lzo", "python3-lzo")
    head = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 1, 5, 0x00000001, 0o100644, 0, 0, 0)
    out = [LZO_MAGIC, head, struct.pack(">I", zlib.adler32(head))]
    for part in _parts(data, LZO_BLOCK):
        packed = min(lzo.compress(part, 1, False), part, key=len)  # noqa: FBT003  # without its own header
        out += [struct.pack(">III", len(part), len(packed), zlib.adler32(part)), packed]
    return b"".join((*out, bytes(4)))


def _parts(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "cpio": bytes,
    "gzip": _gzip,
    "xz": _xz,
    "lzma": _lzma,
    "bzip2": bz2.compress,
    "zstd": _zstd,
    "lz4": _lz4,
    "lzo": _lzo,
}
