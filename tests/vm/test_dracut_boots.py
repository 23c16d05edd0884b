"""A real kernel boots the image that dracut made at autokmod's word, once for each build of the module.

There is no root file system. What the initrd says before it gives up on one is all that counts.
"""

from __future__ import annotations

import pytest

from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.system.test_initrd import World, add_module, word
from tests.vm.qemu import QEMU, output
from tests.vm.test_overlay_boots import place_of

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.kbuild]

CONF = 'dracutmodules+=" base kernel-modules "\nhostonly=no\nforce_drivers+=" rootdrv "\ndrivers+=" dummy "\n'
# Where it would ask for help it ends, and so does QEMU with the kernel's panic.
CMDLINE = "console=ttyS0 loglevel=7 panic=-1 root=/dev/nowhere rd.shell=0"
NO_ROOT = "Don't know how to handle 'root=/dev/nowhere'"


@pytest.fixture
def world(real_root: MakeRoot, corpus: Corpus) -> World:
    """Its image was made by dracut before the module was there."""
    krel = corpus.trio.first
    root = real_root(kernels=(krel,))
    assert root.chroot("depmod", krel).returncode == 0
    world = World(root, (krel,))
    (root.path / "etc/dracut.conf.d/1.conf").write_text(CONF)
    made = root.chroot("dracut", "--force", f"/boot/initrd.img-{krel}", krel)
    assert made.returncode == 0
    return world


def console(world: World) -> list[str]:
    kernel = world.root.paths.boot / f"vmlinuz-{world.krel}"
    argv = [*QEMU, "-m", "1024M", "-kernel", str(kernel), "-initrd", str(world.image()), "-append", CMDLINE]
    return [line.decode("utf-8", "replace").strip() for line in output(argv)]


def test_a_rebuilt_module_is_loaded_before_root_is_mounted(world: World) -> None:
    for text in ("one", "two"):
        add_module(world.root, "rootdrv", text)
        record = world.reconcile()
        assert "was made anew by dracut" in word(record).text
        lines = console(world)
        loaded, given_up = place_of(f"rootdrv {text}", lines), place_of(NO_ROOT, lines)
        assert loaded is not None, "\n".join(lines[-60:])
        assert given_up is not None, "\n".join(lines[-60:])
        assert loaded < given_up
