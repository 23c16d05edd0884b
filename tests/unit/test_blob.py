"""Compressed files, whole and broken; and files that are none."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from autokmod.errors import FormatError
from autokmod.observe.blob import STEP, decompress, read_blob

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


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (lzma.compress, "xz")])
def test_damage_has_a_place(pack: Callable[[bytes], bytes], kind: str) -> None:
    whole = bytearray(pack(TEXT))
    at = 3 * STEP + 9
    whole[at : at + 64] = bytes(64)
    with pytest.raises(FormatError, match=f"damaged {kind} stream") as caught:
        decompress(bytes(whole), "file")
    assert caught.value.offset is not None
    assert at - STEP <= caught.value.offset < len(whole)


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


def many_blocks(data: bytes, times: int) -> bytes:
    """An .xz whose one block stands in it again and again (tukaani.org/xz/xz-file-format.txt)."""
    one = lzma.compress(data, check=lzma.CHECK_CRC32)
    index_size = 4 * (int.from_bytes(one[-8:-4], "little") + 1)
    head, block, flags = one[:12], one[12 : -12 - index_size], one[-4:-2]
    record = one[-12 - index_size + 2 :]  # sizes of the block: two numbers of 7 bits a byte, the last without bit 7
    ends = [i for i, byte in enumerate(record) if byte < 0x80]
    records, count = record[: ends[1] + 1] * times, bytes([times & 0x7F | 0x80, times >> 7])
    index = b"\0" + count + records
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    tail = (len(index) // 4 - 1).to_bytes(4, "little") + flags
    return head + block * times + index + zlib.crc32(tail).to_bytes(4, "little") + tail + b"YZ"


def test_many_blocks_are_one_stream() -> None:
    assert decompress(many_blocks(TEXT, 200), "file") == TEXT * 200


LIMITED = """\
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (800 << 20, 800 << 20))
from autokmod.observe.blob import read_blob
try:
    print(len(read_blob(sys.argv[1])))
except Exception as exc:
    print(type(exc).__name__, exc)
"""


@pytest.mark.parametrize(
    ("bomb", "said"),
    [
        (lambda: many_blocks(bytes(40 << 20), 200), "FormatError {}: unpacks to more than 268435456 bytes at offset"),
        (lambda: lzma.compress(bytes(64 << 20)), "67108864"),  # 10 KiB: no .xz can do much better
        (lambda: zstandard.ZstdCompressor().compress(bytes(320 << 20)), "FormatError {}: unpacks to more than"),
    ],
    ids=["8 GiB in 1 MiB of xz", "64 MiB in 10 KiB of xz", "320 MiB in 10 KiB of zstd"],
)
def test_bombs_as_files(tmp_path: Path, bomb: Callable[[], bytes], said: str) -> None:
    """A process that may take 800 MiB in all: 256 MiB are the largest module, and no copy of it is made in failing."""
    file = tmp_path / "bomb.ko"
    file.write_bytes(bomb())
    assert file.stat().st_size < 2 << 20
    done = subprocess.run([sys.executable, "-c", LIMITED, str(file)], capture_output=True, text=True)
    assert done.stdout.startswith(said.format(file)), done


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
