"""Modules as a kernel's configuration wants them stored, in a form that the kernel itself can read.

The settings are those of scripts/Makefile.modinst: `gzip -n`, `xz --check=crc32 --lzma2=dict=1MiB`, `zstd`. The same
bytes in give the same bytes out: what stands already is recognised and left alone.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Mapping

import zstandard

from autokmod.model import Compression

XZ_FILTERS = ({"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20},)
ZSTD_LEVEL = 3


def compress(data: bytes, kind: Compression) -> bytes:
    match kind:
        case Compression.NONE:
            return data
        case Compression.GZIP:
            return gzip.compress(data, compresslevel=6, mtime=0)
        case Compression.XZ:
            return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=XZ_FILTERS)
        case Compression.ZSTD:
            return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(data)


def compression_of(config: Mapping[str, str]) -> Compression:
    """What `make modules_install` would do.

    Until 5.12 CONFIG_MODULE_COMPRESS switched it on; from 5.13 the choice alone did; since 6.12 there is
    CONFIG_MODULE_COMPRESS again, and modules are only stored compressed with CONFIG_MODULE_COMPRESS_ALL. The first
    and the last are told apart by a number that is in every configuration since 5.16.
    """
    is_new = "CONFIG_PAHOLE_VERSION" in config and config.get("CONFIG_MODULE_COMPRESS") == "y"
    if is_new and config.get("CONFIG_MODULE_COMPRESS_ALL") != "y":
        return Compression.NONE
    for option, kind in (("GZIP", Compression.GZIP), ("XZ", Compression.XZ), ("ZSTD", Compression.ZSTD)):
        if config.get(f"CONFIG_MODULE_COMPRESS_{option}") == "y":
            return kind
    return Compression.NONE
