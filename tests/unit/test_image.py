"""Initrds made of every kind of segment, whole and damaged."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.block
import lzo
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from autokmod.act.archive import archive
from autokmod.errors import FormatError
from autokmod.observe.image.contents import read_image
from autokmod.observe.image.cpio import Entry
from autokmod.observe.image.layers import lay_over, resolve
from autokmod.observe.image.segments import read_segments

MODULE = b"\x7fELF" + bytes(range(256)) * 40
FILES = {"usr/lib/modules/6.1/kernel/x.ko": MODULE, "init": b"#!/bin/sh\n", "empty": b""}
MAIN = archive(FILES)
TRAILER = archive({})
EARLY = archive({"kernel/x86/microcode/GenuineIntel.bin": b"\x01" * 999})


def lz4_legacy(data: bytes) -> bytes:
    blocks = [lz4.block.compress(data[i : i + (8 << 20)], store_size=False) for i in range(0, len(data), 8 << 20)]
    return b"\x02\x21\x4c\x18" + b"".join(len(b).to_bytes(4, "little") + b for b in blocks)


def lzop(data: bytes) -> bytes:
    """As `lzop` without a name: version 1.04, library 2.10, LZO1X-1, one Adler-32 a block."""
    head = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 1, 5, 0x00000001, 0o100644, 0, 0, 0)
    out = b"\x89LZO\0\r\n\x1a\n" + head + zlib.adler32(head).to_bytes(4, "big")
    for i in range(0, len(data), 256 << 10):
        chunk = data[i : i + (256 << 10)]
        packed = min(lzo.compress(chunk, 1, False), chunk, key=len)
        out += struct.pack(">III", len(chunk), len(packed), zlib.adler32(chunk)) + packed
    return out + bytes(4)


def with_extra_field(packed: bytes) -> bytes:
    """RFC 1952, 2.3.1.1."""
    return packed[:3] + bytes([packed[3] | 4]) + packed[4:10] + b"\x04\0ABCD" + packed[10:]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": lz4_legacy,
    "lzo": lzop,
}
UNCHECKED = ("lz4", "lzma")  # carry no checksum: damage may pass, and is found by comparing contents


def write(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "image").write_bytes(data)
    return str(tmp_path / "image")


def kept(path: str) -> bool:
    return path.endswith(".ko")


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("size", [0, 3, 3 << 20])
def test_each_compression(tmp_path: Path, kind: str, size: int) -> None:
    big = archive({**FILES, "big.ko": bytes(range(251)) * (size // 251)})
    image = read_image(write(tmp_path, EARLY + PACKERS[kind](big)), kept)
    assert [s.kind for s in image.segments] == ["cpio", kind]
    assert image.segments[1].offset == len(EARLY)
    assert image.files["usr/lib/modules/6.1/kernel/x.ko"].content == MODULE
    assert image.files["big.ko"].size == size // 251 * 251
    assert image.files["init"].content is None


@pytest.mark.parametrize("kind", PACKERS)
def test_what_follows_a_compressed_segment(tmp_path: Path, kind: str) -> None:
    packed = PACKERS[kind](MAIN)
    padded = packed + bytes(512 + -len(packed) % 4)
    overlay = archive({"usr/lib/modules/6.1/kernel/x.ko": b"newer"})
    image = read_image(write(tmp_path, padded + overlay + bytes(7)), kept)
    assert [s.kind for s in image.segments] == [kind, "cpio"]
    assert image.files["usr/lib/modules/6.1/kernel/x.ko"].content == b"newer"


@pytest.mark.parametrize("kind", PACKERS)
def test_truncated_anywhere(tmp_path: Path, kind: str) -> None:
    packed = PACKERS[kind](MAIN)
    for end in [*range(1, 60), len(packed) // 2, len(packed) - 1]:
        with pytest.raises(FormatError, match=r"image: .*( offset |there is nothing in it)"):
            read_image(write(tmp_path, packed[:end]), kept)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (bytes(4096), "nothing in it"),
        (MAIN[:-100], "truncated"),
        (b"\0\0\0" + MAIN, "multiple of four"),
        (MAIN + b"rubbish", "neither an archive nor a compression"),
        (gzip.compress(MAIN + b"rubbish" * 20), "no cpio header"),
        (gzip.compress(MAIN[:600]), "truncated"),
        (MAIN.replace(b"070701", b"07070x", 1), "neither"),
        (MAIN[:6] + b"zz" + MAIN[8:], "damaged cpio header"),
        (MAIN[:6] + b" 1" + MAIN[8:], "damaged cpio header"),
        (MAIN[:94] + b"00000000" + MAIN[102:], "a name of 0 bytes"),
        (MAIN[:94] + b"7fffffff" + MAIN[102:], "a name of 2147483647 bytes"),
        (b"MZ" + bytes(100), "PE"),
        (b"\x28\xb5\x2f\xfd" + b"\x00\x58" + b"\x07\x00\x00", "reserved"),
        (lz4_legacy(MAIN) + MAIN, "truncated"),  # nor would the kernel find its end
        # What other programs unpack, and kernels do not.
        (lzma.compress(MAIN, check=lzma.CHECK_CRC64), "a check of kind 4"),
        (lzma.compress(MAIN, check=lzma.CHECK_SHA256), "a check of kind 10"),
        (with_extra_field(gzip.compress(MAIN)), "fields that kernels do not expect"),
        (MAIN.replace(TRAILER, TRAILER[:54] + b"00000004" + TRAILER[62:]) + b"more", "a trailer with content"),
    ],
    ids=itertools.count(),
)
def test_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        read_image(write(tmp_path, data), kept)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autokmod.observe.image.segments.UNPACKED_LIMIT", 1 << 20)
    with pytest.raises(FormatError, match="unpacks to more than"):
        read_image(write(tmp_path, gzip.compress(archive({"big": bytes(4 << 20)}))), kept)


@given(st.integers(0, len(MAIN) - 1), st.integers(1, 255), st.sampled_from(["plain", *PACKERS]))
@settings(max_examples=600, deadline=None)
def test_damage_is_an_error_or_is_seen(at: int, flip: int, kind: str) -> None:
    """Never a crash; and a module whose content changed is not taken for what it was."""
    whole = PACKERS.get(kind, bytes)(MAIN)
    at %= len(whole)
    data = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    try:
        segments = list(read_segments(memoryview(data), "image", kept))
    except FormatError:
        return
    files = lay_over(e for s in segments for e in s.entries)
    entry = files.get("usr/lib/modules/6.1/kernel/x.ko")
    if kind not in (*UNCHECKED, "plain"):
        assert entry is None or entry.content == MODULE


# ---- what the files are in the end


def entry(path: str, content: bytes = b"", mode: int = 0o100644, link: int = 0) -> Entry:
    return Entry(path, mode, len(content), (0, 0, 0, link) if link else None, content)


def test_hard_links_share_the_content_that_one_of_them_carries() -> None:
    files = lay_over([entry("a", b"", link=7), entry("b", b"text", link=7), entry("c", b"other", link=8)])
    assert (files["a"].content, files["b"].content, files["c"].content) == (b"text", b"text", b"other")


def test_resolved_through_links() -> None:
    links = [("lib", b"usr/lib"), ("loop", b"loop"), ("abs", b"/usr/lib"), ("usr/up", b"../usr/lib/x")]
    directories = [entry(path, mode=0o040755) for path in ("usr", "usr/lib")]
    files = lay_over([*directories, entry("usr/lib/x", b"1"), *(entry(p, to, 0o120777) for p, to in links)])
    for path in ("lib/x", "usr/lib/x", "abs/x", "usr/up"):
        found = resolve(files, path)
        assert found is not None
        assert found.content == b"1"
    assert resolve(files, "lib/y") is None
    assert resolve(files, "nowhere/x") is None
    resolve(files, "loop/x")  # ends


def test_file_systems_inside_are_opaque(tmp_path: Path) -> None:
    image = read_image(write(tmp_path, archive({"squashfs-root.img": b"hsqs" + bytes(99), "a.img": b"text"})), kept)
    assert image.opaque == ("squashfs-root.img",)


def test_a_unified_kernel_image(tmp_path: Path) -> None:
    stub = bytearray(0x200)
    stub[:2], stub[0x3C:0x40] = b"MZ", struct.pack("<I", 0x40)
    stub[0x40:0x58] = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 2, 0, 0, 0, 0, 0)
    initrd = gzip.compress(MAIN)
    stub[0x58:0x80] = struct.pack("<8sIIII", b".linux", 4, 0, 4, 0x1F0).ljust(40, b"\0")
    stub[0x80:0xA8] = struct.pack("<8sIIII", b".initrd", len(initrd), 0, len(initrd) + 100, 0x200).ljust(40, b"\0")
    image = read_image(write(tmp_path, bytes(stub) + initrd + bytes(100) + b"behind"), kept)
    assert [(s.offset, s.kind) for s in image.segments] == [(0x200, "gzip")]
    assert image.files["usr/lib/modules/6.1/kernel/x.ko"].content == MODULE
    with pytest.raises(FormatError, match="truncated"):
        read_image(write(tmp_path, bytes(stub) + initrd[:-9]), kept)


def test_an_archive_is_the_same_every_time() -> None:
    assert archive(FILES, links={"lib": "usr/lib"}) == archive(dict(FILES), links={"lib": "usr/lib"})
