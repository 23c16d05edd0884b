"""Images taken apart and put together again: as they were, as they were edited, and made to do harm."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autokmod.act.archive import archive
from autokmod.act.imagepack import PACKERS
from autokmod.act.imagerepack import encode, repack_image
from autokmod.act.imageunpack import unpack_image
from autokmod.errors import FormatError, ToolMissing
from autokmod.observe.image.contents import read_image
from autokmod.observe.image.cpio import TRAILER
from autokmod.observe.image.layers import lay_over
from autokmod.observe.image.manifest import MANIFEST, Member
from autokmod.observe.image.segments import read_segments
from tests.conftest import open_files

KINDS = [k for k in PACKERS if k != "cpio"]
EARLY = archive({"kernel/x86/microcode/GenuineIntel.bin": b"\x01" * 999})
FILE, PROGRAM, DIRECTORY, LINK, DEVICE = "100644", "104755", "40755", "120777", "20600"


def member(name: str, mode: str = FILE, *, inode: int = 1, links: int = 1, size: int = 0) -> Member:
    return Member(name, mode, inode, 7, 8, links, 1234567, size, (8, 1, 5, 1), 1)


def made(*entries: tuple[Member, bytes], uppercase: bool = True) -> bytes:
    trailer = Member(TRAILER, "0", 0, 0, 0, 1, 0, 0, (0, 0, 0, 0), 1)
    return b"".join(encode(m, data, uppercase=uppercase) for m, data in (*entries, (trailer, b"")))


MAIN = made(
    (member(".", DIRECTORY), b""),
    (member("lib", LINK), b"usr/lib"),
    (member("usr", DIRECTORY), b""),
    (member("usr/a", FILE, inode=9, links=2), b""),
    (member("usr/b", FILE, inode=9, links=2, size=4), b"both"),
    (member("dev", "40700"), b""),
    (member("dev/console", DEVICE), b""),
    (member("./usr/su", PROGRAM), b"#!"),
    (member("usr/\udcff", FILE), b"not text"),
    (member("usr/closed", "100000"), b"unreadable"),
    (member("usr/./odd//name"), b"x"),
)


def write(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "image").write_bytes(data)
    return str(tmp_path / "image")


def edit(tmp_path: Path, data: bytes, change: Callable[[Path], object]) -> bytes:
    directory = tmp_path / "unpacked"
    unpack_image(write(tmp_path, data), directory)
    change(directory)
    return repack_image(directory)


def nothing(_: Path) -> None:
    pass


def files_of(data: bytes) -> dict[str, tuple[int, bytes | None]]:
    segments = read_segments(memoryview(data), "image", lambda _: True)
    return {p: (e.mode, e.content) for p, e in lay_over(e for s in segments for e in s.entries).items()}


@pytest.mark.parametrize("uppercase", [True, False])
def test_not_touched_it_is_the_same_byte_by_byte(tmp_path: Path, uppercase: bool) -> None:
    second = archive({"usr/lib/x": b"1"}) if not uppercase else made((member("FFF", FILE, inode=0xABC), b"x"))
    data = EARLY + bytes(-len(EARLY) % 512) + bytes(512) + MAIN + bytes(100) + second + bytes(13)
    assert edit(tmp_path, data, nothing) == data


@pytest.mark.parametrize("kind", KINDS)
def test_each_compression(tmp_path: Path, kind: str) -> None:
    inner = MAIN + bytes(256) + archive({"second": b"archive"}) + bytes(512)
    early = EARLY + bytes(-len(EARLY) % 512)
    packed = PACKERS[kind](inner)
    overlay = archive({"usr/lib/overlay": b"1"})
    data = early + packed + bytes(64 + -(len(early + packed)) % 64) + overlay
    again = edit(tmp_path, data, nothing)
    assert again == data
    assert [s.kind for s in read_segments(memoryview(again), "", lambda _: False)] == ["cpio", kind, "cpio"]


def test_every_compression_is_read_back(tmp_path: Path) -> None:
    big = bytes(range(251)) * 36000  # more than two of lz4's blocks
    for kind in KINDS:
        image = read_image(write(tmp_path, PACKERS[kind](archive({"big": big}))), lambda _: True)
        assert image.files["big"].content == big


def test_what_is_edited_counts_and_what_is_not_stays(tmp_path: Path) -> None:
    def change(top: Path) -> None:
        (top / "0-cpio/usr/su").write_bytes(b"#!/bin/other")
        (top / "0-cpio/usr/closed").unlink()
        (top / "0-cpio/new").mkdir(mode=0o755)
        (top / "0-cpio/new/tool").write_bytes(b"new")
        (top / "0-cpio/new/tool").chmod(0o750)
        (top / "0-cpio/new/link").symlink_to("tool")
        (top / "0-cpio/lib").unlink()
        (top / "0-cpio/lib").symlink_to("usr/lib64")

    again = edit(tmp_path, MAIN + bytes(-len(MAIN) % 512) + EARLY, change)
    files = files_of(again)
    assert files["usr/su"] == (0o104755, b"#!/bin/other")
    assert "usr/closed" not in files
    assert files["new/tool"] == (0o100750, b"new")
    assert files["new/link"] == (0o120777, b"tool")
    assert files["lib"] == (0o120777, b"usr/lib64")
    assert files["dev/console"][0] == 0o20600
    assert files["usr/a"][1] == files["usr/b"][1] == b"both"
    first, second = read_segments(memoryview(again), "", lambda _: False)
    assert (first.end, second.offset % 512) != (len(MAIN), 1)
    assert second.offset % 512 == 0
    header = next(e.header for e in first.entries if e.path == "new/tool")
    assert header[22:38] == b"0" * 16  # root's


def test_hard_links_that_were_parted(tmp_path: Path) -> None:
    def change(top: Path) -> None:
        assert (top / "0-cpio/usr/a").samefile(top / "0-cpio/usr/b")
        (top / "0-cpio/usr/a").unlink()
        (top / "0-cpio/usr/a").write_bytes(b"other")

    files = files_of(edit(tmp_path, MAIN, change))
    assert (files["usr/a"][1], files["usr/b"][1]) == (b"other", b"both")


def test_one_of_two_hard_links_is_gone(tmp_path: Path) -> None:
    files = files_of(edit(tmp_path, MAIN, lambda top: (top / "0-cpio/usr/b").unlink()))
    assert files["usr/a"][1] == b"both"


def test_a_mode_that_is_changed(tmp_path: Path) -> None:
    files = files_of(edit(tmp_path, MAIN, lambda top: (top / "0-cpio/usr/su").chmod(0o711)))
    assert files["usr/su"][0] == 0o100711


def test_unpacked_it_is_nobodys_root(tmp_path: Path) -> None:
    unpack_image(write(tmp_path, MAIN), tmp_path / "unpacked")
    for directory, _, names in os.walk(tmp_path / "unpacked"):
        for name in names:
            mode = Path(directory, name).lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISLNK(mode)
            assert not mode & 0o7000
    assert not (tmp_path / "unpacked/0-cpio/dev/console").exists()


HOSTILE: list[tuple[str, bytes]] = [
    ("leads out", made((member("../out"), b"x"))),
    ("leads out", made((member("a/../../out"), b"x"))),
    ("the top itself", made((member("."), b"x"))),
    ("the top itself", made((member("", LINK), b"/"))),
    ("cannot be unpacked", made((member("a", LINK), b".."), (member("a/out"), b"x"))),
    ("cannot be unpacked", made((member("a", LINK), b"/"), (member("a/tmp/out", DIRECTORY), b""))),
    ("cannot be unpacked", made((member("a", LINK), b".."), (member("a", DIRECTORY), b""))),
    ("cannot be unpacked", made((member("a"), b"x"), (member("a/out"), b"x"))),
    ("cannot be unpacked", made((member("a", DIRECTORY), b""), (member("a"), b"x"))),
    ("cannot be unpacked", made((member("a", LINK), b""))),
    ("cannot be unpacked", made((member("x" * 300), b"x"))),
    ("truncated", made((member("a"), b"x"))[:-30]),
]


@pytest.mark.parametrize(("says", "data"), HOSTILE, ids=range(len(HOSTILE)))
def test_made_to_do_harm(tmp_path: Path, says: str, data: bytes) -> None:
    (tmp_path / "out").write_bytes(b"before")
    before = open_files()
    with pytest.raises(FormatError, match=says) as caught:
        unpack_image(write(tmp_path, EARLY + data), tmp_path / "unpacked")
    assert caught.value.offset == len(EARLY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image", "out"]
    assert (tmp_path / "out").read_bytes() == b"before"
    assert open_files() == before


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"before")
    target = str(tmp_path / "out").encode()
    data = made((member("a", LINK), target), (member("a"), b"x"), (member("./b", LINK), b"\0rubbish" + target))
    with pytest.raises(FormatError, match="cannot be unpacked"):
        unpack_image(write(tmp_path, data), tmp_path / "unpacked")
    unpack_image(write(tmp_path, made((member("a", LINK), target), (member("/a"), b"x"))), tmp_path / "unpacked")
    assert (tmp_path / "unpacked/0-cpio/a").read_bytes() == b"x"
    assert (tmp_path / "out").read_bytes() == b"before"


BROKEN: list[tuple[str, Callable[[dict[str, object]], object]]] = [
    ("leads out", lambda m: m.update(name="../../secret")),
    ("a mode that is none", lambda m: m.update(mode="rwx")),
    ("no header can hold", lambda m: m.update(uid=-1)),
    ("no header can hold", lambda m: m.update(device=[0])),
    ("no header can hold", lambda m: m.update(zeros=0)),
    ("a whole number expected", lambda m: m.update(uid="root")),
]


@pytest.mark.parametrize(("says", "change"), BROKEN, ids=range(len(BROKEN)))
def test_a_manifest_that_is_wrong(tmp_path: Path, says: str, change: Callable[[dict[str, object]], object]) -> None:
    def spoil(top: Path) -> None:
        manifest = json.loads((top / MANIFEST).read_text())
        change(manifest["parts"][0]["archives"][0]["members"][1])
        (top / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(FormatError, match=says):
        edit(tmp_path, MAIN, spoil)


@pytest.mark.parametrize(("key", "value"), [("directory", "../x"), ("kind", "rar"), ("format", 2)])
def test_a_manifest_of_another_kind(tmp_path: Path, key: str, value: object) -> None:
    def spoil(top: Path) -> None:
        manifest = json.loads((top / MANIFEST).read_text())
        part = manifest["parts"][0]
        {"directory": part["archives"][0], "kind": part, "format": manifest}[key][key] = value
        (top / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(FormatError):
        edit(tmp_path, MAIN, spoil)


def test_a_new_device_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="manifest"):
        edit(tmp_path, MAIN, lambda top: os.mkfifo(top / "0-cpio/pipe"))


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lzo", None)
    with pytest.raises(ToolMissing, match="python3-lzo"):
        PACKERS["lzo"](b"x")


@given(st.integers(0, len(MAIN) - 1), st.binary(min_size=1, max_size=12))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_it_nothing_gets_out(tmp_path: Path, at: int, bytes_: bytes) -> None:
    """Damaged anywhere, it is refused with its place, or unpacked where it belongs and can be put together again."""
    data = MAIN[:at] + bytes_ + MAIN[at + len(bytes_) :]
    directory = tmp_path / "unpacked"
    with suppress(FormatError):
        unpack_image(write(tmp_path, data), directory)
        repack_image(directory)
    shutil.rmtree(directory, ignore_errors=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image"]
