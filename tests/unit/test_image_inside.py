"""File systems inside an image, made by the programs that dracut makes them with."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from autokmod.act.archive import archive
from autokmod.errors import FormatError
from autokmod.observe.image import inside
from autokmod.observe.image.base import MARK, read_base
from autokmod.observe.image.carried import read_carried
from autokmod.observe.image.contents import read_image
from autokmod.run import ENV
from tests.unit.test_image_carried import DRV, KREL, NEW, OLD, STANDING, TOP, image, problems

TWIN = "kernel/drv.ko"
MAKERS = {"squashfs": ["mksquashfs", "TREE", "FILE", "-quiet", "-no-progress"], "erofs": ["mkfs.erofs", "FILE", "TREE"]}
ROOTS = {"squashfs": "squash-root.img", "erofs": "erofs-root.img"}
OUTER = archive({"init": b"#!/bin/sh\n", f"{TOP}/modules.dep": b"kernel/loop.ko:\n", f"{TOP}/kernel/loop.ko": OLD})
LINK = {"lib": "usr/lib"}


def tree(modules: Mapping[str, bytes], dep: str | None = None) -> dict[str, bytes]:
    lines = "".join(f"{path}:\n" for path in modules) if dep is None else dep
    return {f"{TOP}/{path}": data for path, data in modules.items()} | {f"{TOP}/modules.dep": lines.encode()}


def packed(tmp_path: Path, kind: str, files: Mapping[str, bytes], links: Mapping[str, str] = LINK) -> bytes:
    top = tmp_path / "tree"
    shutil.rmtree(top, ignore_errors=True)
    for path, data in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
    for path, target in links.items():
        (top / path).symlink_to(target)
    (tmp_path / "packed").unlink(missing_ok=True)
    names = {"TREE": str(top), "FILE": str(tmp_path / "packed")}
    subprocess.run([names.get(a, a) for a in MAKERS[kind]], check=True, stdout=subprocess.DEVNULL)
    return (tmp_path / "packed").read_bytes()


INSIDE: list[tuple[str, dict[str, bytes], str | None, list[str]]] = [
    ("right", {DRV: NEW}, None, []),
    ("right, and packed", {f"{DRV}.xz": lzma.compress(NEW, check=lzma.CHECK_CRC32)}, None, []),
    ("another", {DRV: OLD}, None, ["initrd-stale"]),
    ("the twin as well", {DRV: NEW, TWIN: OLD}, None, ["initrd-stale"]),
    ("not listed", {DRV: NEW}, "", ["initrd-unlisted"]),
    ("not there", {"kernel/x.ko": NEW}, None, ["initrd-lacks"]),
]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(("_name", "modules", "dep", "wanted"), INSIDE, ids=[i[0] for i in INSIDE])
def test_what_is_inside_is_compared(
    tmp_path: Path, kind: str, _name: str, modules: dict[str, bytes], dep: str | None, wanted: list[str]
) -> None:
    root = archive({ROOTS[kind]: packed(tmp_path, kind, tree(modules, dep))})
    file = image(tmp_path, gzip.compress(OUTER + root))
    assert problems(file) == wanted
    assert "loop" in read_carried(file, KREL, STANDING).modules


@pytest.mark.parametrize("kind", MAKERS)
def test_beside_a_root_nothing_counts(tmp_path: Path, kind: str) -> None:
    """Neither makes a right module outside up for a wrong one inside, nor is an overlay seen."""
    right = archive(tree({DRV: NEW}))
    old = archive({ROOTS[kind]: packed(tmp_path, kind, tree({DRV: OLD}))})
    assert problems(image(tmp_path, right, gzip.compress(old))) == ["initrd-stale"]
    without = archive({"init": b"", ROOTS[kind]: packed(tmp_path, kind, tree({"kernel/x.ko": OLD}))})
    overlay = archive(tree({DRV: NEW}) | {f"{TOP}/{MARK}": b""})
    file = image(tmp_path, without, overlay)
    assert problems(file) == ["initrd-lacks"]
    assert read_carried(file, KREL, STANDING).modules["drv"] == ()
    with pytest.raises(FormatError, match="nothing is laid over it"):
        read_base(file, KREL, tmp_path)


@pytest.mark.parametrize("name", ["live/filesystem.squashfs", "root.sfs", "no-suffix"])
def test_a_file_system_is_known_by_its_mark(tmp_path: Path, name: str) -> None:
    data = packed(tmp_path, "squashfs", tree({DRV: OLD}))
    file = image(tmp_path, archive(tree({DRV: NEW})), archive({name: data}))
    assert read_image(file, lambda _: False).opaque == (name,)
    assert problems(file) == ["initrd-stale"]


def test_links_inside_are_followed(tmp_path: Path) -> None:
    """As weak-updates has them."""
    files = {f"usr/lib/modules/other/extra/{Path(DRV).name}": NEW, f"{TOP}/modules.dep": f"{DRV}:\n".encode()}
    files[f"{TOP}/{Path(DRV).parent}/x"] = b""
    links = {**LINK, f"{TOP}/{DRV}": f"/lib/modules/other/extra/{Path(DRV).name}"}
    data = packed(tmp_path, "squashfs", files, links)
    assert problems(image(tmp_path, OUTER, archive({"squash-root.img": data}))) == []


def closed(file: str) -> tuple[str, ...]:
    assert problems(file) == ["initrd-opaque"]
    return read_carried(file, KREL, STANDING).opaque


@pytest.mark.parametrize(("kind", "says"), [("squashfs", "install squashfs-tools"), ("erofs", "install erofs-utils")])
def test_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, says: str) -> None:
    """Unknown, even where the module is right beside it."""
    data = packed(tmp_path, kind, tree({DRV: NEW}))
    file = image(tmp_path, archive(tree({DRV: NEW})), archive({ROOTS[kind]: data}))
    monkeypatch.setattr("autokmod.run.ENV", {**ENV, "PATH": str(tmp_path)})
    assert says in closed(file)[0]


def test_damaged(tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path, "squashfs", tree({DRV: NEW})))
    data[96:160] = b"\xa5" * 64
    assert "unsquashfs cannot read it" in closed(image(tmp_path, OUTER, archive({"squash-root.img": bytes(data)})))[0]


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = image(tmp_path, OUTER, archive({"squash-root.img": packed(tmp_path, "squashfs", tree({DRV: NEW}))}))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr(inside, "FILE_LIMIT", 4)
    assert "larger than" in closed(file)[0]
    monkeypatch.setattr(inside, "SIZE_LIMIT", 100)
    assert "larger than" in closed(file)[0]
    assert list((tmp_path / "scratch").iterdir()) == []
