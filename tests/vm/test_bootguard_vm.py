"""GRUB itself, started by QEMU from a disk that autokmod's guard has written to: which kernel comes up?"""

from __future__ import annotations

from pathlib import Path

import pytest

from autokmod.jobs.machine import read_next_boot
from tests import grubdisk
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.grubdisk import GrubDisk
from tests.system.test_bootguard_real import World
from tests.vm.qemu import QEMU, output

pytestmark = [pytest.mark.vm, pytest.mark.root]

OPTIONS = 'GRUB_CMDLINE_LINUX="console=ttyS0 panic=-1 quiet mitigations=off"'


def booted(disk: GrubDisk, grub: Path) -> str:
    """What the kernel that came up says that it is; what QEMU said where none did."""
    lines = []
    with disk.at_rest() as image:
        drive = ("-drive", f"file={image},format=raw,if=ide,snapshot=on")
        for line in output([*QEMU, "-m", "512M", "-kernel", str(grub), *drive]):
            lines.append(line.decode("utf-8", "replace").strip())
            if lines[-1].startswith("BOOTED "):
                return lines[-1].removeprefix("BOOTED ")
    return "\n".join(lines)


def test_grub_boots_what_was_told(real_root: MakeRoot, corpus: Corpus, tmp_path: Path) -> None:
    """A required package fails for the new kernel: the old one is booted; the package is mended: the new one is."""
    older, newer = corpus.trio.other, corpus.trio.first
    root = real_root(kernels=(older, newer), packages=grubdisk.PACKAGES)
    with grubdisk.made(root) as disk:
        world = World(disk, older, newer)
        disk.add_initrds(tmp_path)
        disk.configure("saved", OPTIONS)
        grub = disk.make_bootable(tmp_path)
        disk.chroot("grub-editenv", "/boot/grub/grubenv", "create")
        assert booted(disk, grub) == newer == world.next_boot().krel
        world.job(older)
        world.job(newer)
        assert booted(disk, grub) == older == world.next_boot().krel
        world.mend()
        world.job(newer)
        assert booted(disk, grub) == newer == world.next_boot().krel


ENTRIES = ("0", "1", "1>0", "1>2", "1>9", "9", "01>02", "0x1>0x2", "no such entry", "1>2>3", "2nd", "1st", ">", "")


def test_grub_and_autokmod_find_the_same_entry(real_root: MakeRoot, corpus: Corpus, tmp_path: Path) -> None:
    """Whatever is saved: GRUB boots what autokmod says that it will, unless autokmod says that it does not know."""
    older, newer = corpus.trio.other, corpus.trio.first
    root = real_root(kernels=(older, newer), packages=grubdisk.PACKAGES)
    with grubdisk.made(root) as disk:
        disk.add_initrds(tmp_path)
        disk.configure("saved", OPTIONS)
        grub = disk.make_bootable(tmp_path)
        said, came = {}, {}
        for entry in ENTRIES:
            disk.chroot("grub-editenv", "/boot/grub/grubenv", "set", f"saved_entry={entry}")
            said[entry], came[entry] = read_next_boot(disk.paths).krel, booted(disk, grub)
        known = {entry for entry, krel in said.items() if krel is not None}
        assert {entry: came[entry] for entry in known} == {entry: said[entry] for entry in known}
        assert set(ENTRIES) - known <= {"2nd", "1st"}
        assert set(came.values()) == {older, newer}
