"""Images that kernel-install makes: in a boot loader entry's directory, and inside a unified kernel image.

kernel-install and dracut are real; the plugins that lead from the one to the other are dracut's own elsewhere, and are
not in Debian 12.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from autokmod.model import KernelRecord
from autokmod.observe.blob import read_blob
from autokmod.observe.image.carried import read_carried
from autokmod.observe.initrd import ASIDE, PREVIOUS, Place, find_image
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.realroot import RealRoot
from tests.system.test_initrd import World, add_module, word

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

TOKEN = "debian"
DRACUT = 'dracutmodules+=" base "\nhostonly=no\ncompress=gzip\nadd_drivers+=" dummy "\n'
PLUGIN = """#!/bin/sh
[ "$1" = add ] || exit 0
echo run >>/tmp/runs
[ ! -e /tmp/fail ] || {{ echo half >"{image}"; echo no such luck; exit 3; }}
exec dracut --force --quiet --kver "$2" {options}
"""


class Entries(World):
    """A system that boots by /efi alone."""

    def __init__(self, root: RealRoot, krel: str) -> None:
        self.root, self.krels, self.krel = root, (krel,), krel
        self.efi = root.path / "efi"
        (self.efi / TOKEN).mkdir(parents=True)
        self.write("etc/kernel/install.conf", "layout=bls\ninitrd_generator=dracut\n")
        self.write("etc/kernel/entry-token", f"{TOKEN}\n")
        self.write("etc/kernel/cmdline", "root=/dev/vda1 ro\n")
        self.write("etc/dracut.conf.d/1.conf", DRACUT)
        add_module(root, "rootdrv")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def add_plugin(self, image: str, options: str = "") -> None:
        text = PLUGIN.format(image=image, options=f'{options} "{image}"')
        self.write("etc/kernel/install.d/50-dracut.install", text, 0o755)

    def make_image(self) -> None:
        done = self.root.chroot("kernel-install", "add", self.krel, f"/boot/vmlinuz-{self.krel}")
        assert done.returncode == 0, done.stdout

    def image(self, krel: str = "") -> Path:
        found = find_image(self.root.paths, krel or self.krel)
        assert found is not None
        assert found.place is Place.ENTRY
        return found.path

    def carries(self, name: str) -> bool:
        carried = read_carried(str(self.image()), self.krel, [name])
        (path,), (disk,) = carried.modules[name], self.root.paths.modulesd(self.krel).rglob(f"{name}.ko*")
        return carried.digests[path] == hashlib.sha256(read_blob(disk)).hexdigest()


@pytest.fixture
def system(real_root: MakeRoot, corpus: Corpus) -> Iterator[Entries]:
    krel = corpus.trio.first
    root = real_root(kernels=(krel,))
    assert root.chroot("depmod", krel).returncode == 0
    yield Entries(root, krel)
    assert not list((root.path / "efi").rglob(f"*{ASIDE}*"))


def name_it(system: Entries) -> None:
    """From now on dracut is to take the module in."""
    system.write("etc/dracut.conf.d/2.conf", 'add_drivers+=" rootdrv "\n')


def failed(record: KernelRecord) -> str:
    assert (record.initrd_ok, word(record).kind) == (False, "initrd-failed")
    return word(record).text


def test_an_entrys_image(system: Entries) -> None:
    system.add_plugin("$KERNEL_INSTALL_STAGING_AREA/initrd")
    system.make_image()
    image, before = system.image(), system.image().read_bytes()
    assert image == system.efi / TOKEN / system.krel / "initrd"
    name_it(system)
    system.write("tmp/fail", "")
    assert "no such luck" in failed(system.reconcile())
    assert image.read_bytes() == before
    (system.root.path / "tmp/fail").unlink()
    record = system.reconcile()
    assert (record.initrd_ok, word(record).kind, record.initrd_modules) == (True, "initrd-refreshed", ("rootdrv",))
    assert "by kernel-install" in word(record).text
    assert system.carries("rootdrv")
    assert image.with_name(image.name + PREVIOUS).read_bytes() == before
    entry = (system.efi / f"loader/entries/{TOKEN}-{system.krel}.conf").read_text()
    images = [line.split()[1] for line in entry.splitlines() if line.startswith("initrd")]
    assert images == [f"/efi/{TOKEN}/{system.krel}/initrd"]
    assert system.runs == 3
    assert system.reconcile().initrd_ok
    assert system.runs == 3


def test_a_unified_kernel_image(system: Entries) -> None:
    image = f"/efi/EFI/Linux/{TOKEN}-$2.efi"
    system.add_plugin(image, '--uefi --kernel-image "$4"')
    (system.efi / "EFI/Linux").mkdir(parents=True)
    system.make_image()
    before = system.image().read_bytes()
    assert before.startswith(b"MZ")
    name_it(system)
    system.write("tmp/fail", "")
    assert "no such luck" in failed(system.reconcile())
    assert system.image().read_bytes() == before
    (system.root.path / "tmp/fail").unlink()
    record = system.reconcile()
    assert (record.initrd_ok, word(record).kind) == (True, "initrd-refreshed"), word(record).text
    assert system.carries("rootdrv")
