"""Images that initramfs-tools and dracut really make, read back and compared with what their own tools unpack."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autokmod.act.archive import archive
from autokmod.errors import FormatError
from autokmod.observe.blob import read_blob
from autokmod.observe.image.carried import read_carried
from autokmod.observe.image.contents import Image, read_image
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.realroot import RealRoot

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

SMALL = "MODULES=list\nBUSYBOX=no\nDEVICE=\nNFSROOT=auto\nRUNSIZE=10%\nFSTYPE=auto\n"
DRACUT = ("dracut", "--force", "--no-hostonly", "--modules", "base", "--drivers", "dummy virtio_blk")
DAMAGES = 200
QUICK = (("gzip", 0), ("lz4", 1), ("zstd", 0))  # the rest takes minutes, and comes with `make test-vm`
EACH = pytest.mark.parametrize(
    ("compression", "which"),
    [
        pytest.param(c, k, marks=() if (c, k) in QUICK else pytest.mark.vm)
        for c in ("gzip", "bzip2", "xz", "lzma", "lzop", "lz4", "zstd")
        for k in (0, 1)
    ],
)


@pytest.fixture(scope="module")
def kernels(corpus: Corpus) -> list[str]:
    return [corpus.trio.first, corpus.trio.other]


@pytest.fixture
def system(real_root: MakeRoot, kernels: list[str]) -> RealRoot:
    root = real_root()
    for krel in kernels:
        root.add_kernel(krel, headers=False)
        assert root.chroot("depmod", krel).returncode == 0
    conf = root.path / "tmp/conf"
    shutil.copytree(root.path / "etc/initramfs-tools", conf)
    (conf / "initramfs.conf").write_text(SMALL)
    (conf / "modules").write_text("dummy\nvirtio_blk\n")
    return root


def make_image(root: RealRoot, *command: str) -> str:
    done = root.chroot(*command)
    assert done.returncode == 0, done.stdout
    return str(root.path / "boot/image")


def initramfs_tools(root: RealRoot, krel: str, compression: str) -> str:
    return make_image(root, "mkinitramfs", "-d", "/tmp/conf", "-c", compression, "-o", "/boot/image", krel)


def dracut(root: RealRoot, krel: str, compression: str) -> str:
    return make_image(root, *DRACUT, f"--{compression}", "/boot/image", krel)


def unpacked(tmp_path: Path, image: str, *command: str) -> Path:
    """By the generator's own tool."""
    shutil.rmtree(tmp_path / "unpacked", ignore_errors=True)
    (tmp_path / "unpacked").mkdir()
    subprocess.run([*command, image, *(["."] if command[0] == "unmkinitramfs" else [])], check=True,
                   cwd=tmp_path / "unpacked", stdout=subprocess.DEVNULL)  # fmt: skip
    return tmp_path / "unpacked"


def on_disk(top: Path) -> Iterator[tuple[str, str]]:
    """Path and what is there, in words that can be compared."""
    for directory, subdirectories, files in os.walk(top):
        for name in [*subdirectories, *files]:
            path = Path(directory, name)
            yield str(path.relative_to(top)), describe(path.lstat().st_mode, content_of(path))


def content_of(path: Path) -> bytes | None:
    if path.is_symlink():
        return os.readlink(path).encode()
    return path.read_bytes() if path.is_file() else None


def describe(mode: int, content: bytes | None) -> str:
    digest = hashlib.sha256(content).hexdigest() if content and not stat.S_ISDIR(mode) else ""
    return f"{stat.S_IFMT(mode):o} {digest}"


def in_image(image: Image) -> dict[str, str]:
    return {p: describe(e.mode, e.content) for p, e in image.files.items() if p != "."}


@EACH
def test_initramfs_tools(system: RealRoot, kernels: list[str], tmp_path: Path, compression: str, which: int) -> None:
    krel = kernels[which]
    file = initramfs_tools(system, krel, compression)
    image = read_image(file, lambda _: True)
    assert [s.kind for s in image.segments] == [{"lzop": "lzo"}.get(compression, compression)]
    assert in_image(image) == dict(on_disk(unpacked(tmp_path, file, "unmkinitramfs")))
    assert any(p.endswith(f"/{krel}/kernel/drivers/net/dummy.ko") for p in image.files)


@EACH
def test_dracut(system: RealRoot, kernels: list[str], tmp_path: Path, compression: str, which: int) -> None:
    krel = kernels[which]
    compression = {"lzop": "lzo"}.get(compression, compression)
    file = dracut(system, krel, compression)
    image = read_image(file, lambda _: True)
    assert in_image(image) == dict(on_disk(unpacked(tmp_path, file, "lsinitrd", "--unpack")))
    assert any(p.endswith(f"/{krel}/kernel/drivers/net/dummy.ko") for p in image.files)


def test_dracut_with_a_squashed_root(system: RealRoot, kernels: list[str], tmp_path: Path) -> None:
    """All but a loader is hidden: the names are those that its own lister shows, the contents those on disk."""
    krel = kernels[0]
    command = [*DRACUT, "--add", "squash", "--kver", krel, "/boot/image"]
    file = make_image(system, *command)
    assert read_image(file, lambda _: False).opaque == ("squash-root.img",)
    carried = read_carried(file, krel, ["dummy", "loop"])
    modulesd = system.paths.modulesd(krel)
    for name in ("dummy", "loop"):
        (path,) = carried.modules[name]
        assert carried.digests[path] == hashlib.sha256(read_blob(modulesd / path)).hexdigest()
        assert f"{path}:".encode() in carried.index
    assert carried.opaque == ()
    listed = subprocess.run(["lsinitrd", file], check=True, capture_output=True, text=True).stdout
    outside, inside = (modules_in(part, krel) for part in listed.split("Squashed content (squash-root.img):"))
    assert {p for found in carried.modules.values() for p in found} == outside | inside
    assert "dummy" not in {Path(p).stem for p in outside}


def modules_in(listing: str, krel: str) -> set[str]:
    return set(re.findall(rf"lib/modules/{re.escape(krel)}/(\S+\.ko)$", listing, re.MULTILINE))


def test_damaged_at_many_places(system: RealRoot, kernels: list[str], tmp_path: Path) -> None:
    """Each time an error that says where, or a module that is seen to differ, or one that is whole."""
    data = Path(initramfs_tools(system, kernels[0], "zstd")).read_bytes()
    early = archive({"kernel/x86/microcode/GenuineIntel.bin": bytes(5000)})
    modules = read_or_say(str(system.path / "boot/image"))
    draw = random.Random(1)
    errors: list[int | None] = []
    for _ in range(DAMAGES):
        broken = bytearray(early + data)
        at = draw.randrange(len(broken))
        broken[at] ^= draw.randrange(1, 256)
        (tmp_path / "broken").write_bytes(broken)
        found = read_or_say(str(tmp_path / "broken"))
        if isinstance(found, FormatError):
            errors.append(found.offset)
        else:
            assert found == modules, at
    assert len(errors) > DAMAGES * 0.9
    assert all(offset is not None and 0 <= offset <= len(early + data) for offset in errors)


def read_or_say(file: str) -> dict[str, bytes | None] | FormatError:
    try:
        image = read_image(file, lambda p: p.endswith(".ko"))
    except FormatError as exc:
        return exc
    return {p: e.content for p, e in image.files.items() if p.endswith(".ko")}
