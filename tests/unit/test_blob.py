"""Compressed files, whole and broken; and files that are none."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from autokmod.errors import FormatError
from autokmod.observe.blob import decompress, read_blob

TEXT = b"".join(f"{i * i}\n".encode() for i in range(20000))


def streamed_zstd(data: bytes) -> bytes:
    """Without the size in the header, as `zstd < FILE` writes it."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


PACKERS: list[Callable[[bytes], bytes]] = [
    gzip.compress,
    lzma.compress,
    lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),  # as kernels want it
    zstandard.ZstdCompressor().compress,
    streamed_zstd,
]


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("text", [TEXT, b"", b"x"])
def test_whole(tmp_path: Path, pack: Callable[[bytes], bytes], text: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(pack(text))
    assert read_blob(file) == text


def test_plain(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(TEXT)
    assert read_blob(tmp_path / "file") == TEXT
    assert decompress(b"", "empty") == b""


@pytest.mark.parametrize("pack", PACKERS)
def test_truncated_anywhere(pack: Callable[[bytes], bytes]) -> None:
    whole = pack(TEXT)
    for end in [*range(6, 40), len(whole) // 2, len(whole) - 1]:
        with pytest.raises(FormatError, match=r"truncated|damaged"):
            decompress(whole[:end], "file")


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("rest", [b"\0", b"more", gzip.compress(b"another")])
def test_something_behind(pack: Callable[[bytes], bytes], rest: bytes) -> None:
    whole = pack(TEXT)
    with pytest.raises(FormatError, match="something follows") as caught:
        decompress(whole + rest, "file")
    assert caught.value.offset == len(whole)


@pytest.mark.parametrize("pack", PACKERS)
def test_damaged(pack: Callable[[bytes], bytes]) -> None:
    whole = bytearray(pack(TEXT))
    whole[len(whole) // 2] ^= 0xFF
    whole[-6] ^= 0xFF  # zstd's frames need not have a checksum
    with contextlib.suppress(FormatError):
        assert decompress(bytes(whole), "file") != TEXT


@pytest.mark.parametrize("pack", PACKERS)
def test_a_bomb_is_refused_in_little_memory(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(32 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="unpacks to more than"):
            decompress(bomb, "bomb", limit=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_itself_is_allowed() -> None:
    for pack in PACKERS:
        assert len(decompress(pack(bytes(1000)), "file", limit=1000)) == 1000
        with pytest.raises(FormatError, match="more than 999"):
            decompress(pack(bytes(1000)), "file", limit=999)


def test_a_dictionary_that_asks_for_much_memory() -> None:
    """Its size is the fifth byte of the block's header, which ends in its own checksum."""
    whole = bytearray(lzma.compress(b"x"))
    end = 12 + 4 * whole[12]
    whole[12 + 4] = 38  # 2 GiB
    whole[end : end + 4] = zlib.crc32(whole[12:end]).to_bytes(4, "little")
    with pytest.raises(FormatError, match="damaged xz stream: Memory usage limit"):
        decompress(bytes(whole), "file")


def test_a_large_file(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as f:
        f.truncate(1 << 30)
    with pytest.raises(FormatError, match="larger than 4096 bytes"):
        read_blob(tmp_path / "sparse", limit=4096)


def test_what_is_no_file(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to must not wait."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(FormatError, match="not a regular file"):
            read_blob(path)
    with pytest.raises(IsADirectoryError):
        read_blob(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_blob(tmp_path / "gone")


def test_what_the_tools_write(tmp_path: Path) -> None:
    """Those that distributions compress their modules with; zstd comes by package and may be missing."""
    file = tmp_path / "file"
    file.write_bytes(TEXT)
    for tool, suffix in (("gzip", ".gz"), ("xz", ".xz")):
        subprocess.run([tool, "-k", str(file)], check=True)
        assert read_blob(f"{file}{suffix}") == TEXT
