"""Compressed as the kernel wants it: read back with the tools that modprobe and the kernel stand for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from autokmod.act.compress import compress, compression_of
from autokmod.model import Compression

DATA = b"\x7fELF" + b"module " * 5000
OLD = {"CONFIG_MODULE_COMPRESS": "y"}
NEW = {"CONFIG_MODULE_COMPRESS": "y", "CONFIG_PAHOLE_VERSION": "128"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Compression.NONE),
        ({"CONFIG_MODULE_COMPRESS_NONE": "y"}, Compression.NONE),
        ({"CONFIG_MODULE_COMPRESS_XZ": "y"}, Compression.XZ),  # 5.13 to 6.11
        ({"CONFIG_MODULE_COMPRESS_GZIP": "y", "CONFIG_PAHOLE_VERSION": "0"}, Compression.GZIP),
        ({"CONFIG_MODULE_COMPRESS_ZSTD": "y"}, Compression.ZSTD),
        ({**OLD, "CONFIG_MODULE_COMPRESS_XZ": "y"}, Compression.XZ),
        ({**NEW, "CONFIG_MODULE_COMPRESS_XZ": "y"}, Compression.NONE),  # only decompression is built in
        ({**NEW, "CONFIG_MODULE_COMPRESS_XZ": "y", "CONFIG_MODULE_COMPRESS_ALL": "y"}, Compression.XZ),
        ({**NEW, "CONFIG_MODULE_COMPRESS_ALL": "y"}, Compression.NONE),
    ],
)
def test_what_the_configuration_means(config: dict[str, str], expected: Compression) -> None:
    assert compression_of(config) is expected


@pytest.mark.parametrize("kind", Compression)
def test_it_is_deterministic(kind: Compression) -> None:
    assert compress(DATA, kind) == compress(DATA, kind)


@pytest.mark.parametrize(
    ("kind", "tool"), [(Compression.GZIP, "gzip"), (Compression.XZ, "xz"), (Compression.ZSTD, "zstd")]
)
def test_the_tools_read_it(tmp_path: Path, kind: Compression, tool: str) -> None:
    file = tmp_path / f"x.ko{kind.value}"
    file.write_bytes(compress(DATA, kind))
    assert subprocess.run([tool, "-dc", file], check=True, capture_output=True).stdout == DATA


def test_xz_is_as_the_kernel_s_decoder_wants_it(tmp_path: Path) -> None:
    """lib/xz knows no other check than CRC32, and MODULE_DECOMPRESS allocates the dictionary."""
    file = tmp_path / "x.ko.xz"
    file.write_bytes(compress(DATA, Compression.XZ))
    listing = subprocess.run(["xz", "-lvv", "--robot", file], check=True, capture_output=True, text=True).stdout
    assert "\tCRC32\t" in listing
    assert "--lzma2=dict=1MiB" in listing


def test_gzip_carries_neither_name_nor_time(tmp_path: Path) -> None:
    header = compress(DATA, Compression.GZIP)[:10]
    assert header[:4] == b"\x1f\x8b\x08\x00"
    assert header[4:8] == b"\0\0\0\0"
