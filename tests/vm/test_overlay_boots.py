"""A real kernel boots the image of initramfs-tools with an overlay behind it: as a part of it, and as a second initrd.

There is no root file system. What the initrd says before it looks for one is all that counts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from autokmod.observe.image.carried import read_carried
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.system.test_initrd import World, word
from tests.unit.test_ctl import ctl
from tests.vm.qemu import QEMU, output

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.kbuild]

# initramfs-tools reboots where it would ask for help; QEMU then leaves.
CMDLINE = "console=ttyS0 loglevel=7 panic=-1 root=/dev/nowhere rootdelay=1 mitigations=off nokaslr"
LOADED, MOUNTING = "rootdrv one", "Begin: Mounting root file system"


@pytest.fixture
def world(real_root: MakeRoot, corpus: Corpus) -> World:
    root = real_root(kernels=(corpus.trio.first,))
    assert root.chroot("depmod", corpus.trio.first).returncode == 0
    world = World(root, (corpus.trio.first,))
    world.make_image()
    assert "rootdrv" not in read_carried(str(world.image()), world.krel, ["rootdrv"]).modules
    return world


def console(world: World, *images: Path, together: Path) -> list[str]:
    """What is said on it. Several images are what a boot loader would load one behind the other."""
    together.write_bytes(b"".join(padded(image.read_bytes()) for image in images))
    kernel = world.root.paths.boot / f"vmlinuz-{world.krel}"
    argv = [*QEMU, "-m", "1024M", "-kernel", str(kernel), "-initrd", str(together), "-append", CMDLINE]
    return [line.decode("utf-8", "replace").strip() for line in output(argv)]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def place_of(what: str, lines: list[str]) -> int | None:
    return next((i for i, line in enumerate(lines) if what in line), None)


def test_what_only_the_overlay_carries_is_loaded_before_root_is_mounted(world: World, tmp_path: Path) -> None:
    former = tmp_path / "former"
    former.write_bytes(world.image().read_bytes())
    record = world.reconcile(overlay=True)
    assert word(record).kind == "initrd-overlaid", word(record).text
    overlay = tmp_path / "overlay"
    done = ctl(world.root.paths, "initrd", "overlay", world.krel, "--image", str(former), "-o", str(overlay))
    assert done.returncode == 0, done.stderr
    for images in ((world.image(),), (former, overlay)):
        lines = console(world, *images, together=tmp_path / "together")
        loaded, mounting = place_of(LOADED, lines), place_of(MOUNTING, lines)
        assert loaded is not None, "\n".join(lines[-40:])
        assert mounting is not None, "\n".join(lines[-40:])
        assert loaded < mounting
    lines = console(world, former, together=tmp_path / "together")
    assert place_of(LOADED, lines) is None
    assert place_of(MOUNTING, lines) is not None


def test_an_image_that_was_taken_apart_and_put_together_boots(world: World, tmp_path: Path) -> None:
    world.reconcile(overlay=True)
    there, again = tmp_path / "there", tmp_path / "again"
    assert ctl(world.root.paths, "initrd", "unpack", world.krel, str(there)).returncode == 0
    script = there / "0-zstd/init"
    script.write_text(script.read_text().replace("maybe_break top\n", 'echo "edited by hand"\nmaybe_break top\n', 1))
    assert ctl(world.root.paths, "initrd", "repack", str(there), "-o", str(again)).returncode == 0
    lines = console(world, again, together=tmp_path / "together")
    assert place_of("edited by hand", lines) is not None, "\n".join(lines[-40:])
    assert place_of(LOADED, lines) is not None
