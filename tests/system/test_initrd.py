"""The step after the modules: real initramfs-tools and dracut, right and gone wrong in each way."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from autokmod.config import Config, InitrdConfig
from autokmod.config_load import load_config
from autokmod.jobs.engine import Engine
from autokmod.model import KernelRecord, Reason
from autokmod.observe.image.carried import read_carried
from autokmod.observe.initrd import NEW, PREVIOUS
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.realroot import RealRoot, mount

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

CONF = """PACKAGE_NAME={name}
PACKAGE_VERSION=1
BUILT_MODULE_NAME={name}
DEST_MODULE_LOCATION=/updates
AUTOINSTALL=yes
"""
SOURCE = """#include <linux/module.h>
MODULE_LICENSE("GPL");
static int __init start(void) {{ pr_info("{name} {text}\\n"); return 0; }}
module_init(start);
"""
LIST = "MODULES=list\nBUSYBOX=no\nCOMPRESS=zstd\nDEVICE=\nNFSROOT=auto\nRUNSIZE=10%\nFSTYPE=auto\n"
COUNTING = '#!/bin/sh\necho run >>/tmp/runs\n{then}\nexec /usr/sbin/{program}.real "$@"\n'


def add_module(root: RealRoot, name: str, text: str = "one") -> None:
    files = {"dkms.conf": CONF.format(name=name), f"{name}.c": SOURCE.format(name=name, text=text),
             "Makefile": f"obj-m := {name}.o\n"}  # fmt: skip
    root.add_source(name, "1", files)


class World:
    def __init__(self, root: RealRoot, krels: tuple[str, ...]) -> None:
        self.root, self.krels, self.krel = root, krels, krels[0]
        conf = root.path / "etc/initramfs-tools"
        (conf / "initramfs.conf").write_text(LIST)
        (conf / "modules").write_text("rootdrv\n")
        add_module(root, "rootdrv")
        self.wrap("")

    def wrap(self, then: str, program: str = "mkinitramfs") -> None:
        """Counts the runs, and does something first."""
        path = self.root.path / "usr/sbin" / program
        real = path.with_name(f"{program}.real")
        if not real.exists():
            path.rename(real)
        path.write_text(COUNTING.format(program=program, then=then))
        path.chmod(0o755)

    def image(self, krel: str = "") -> Path:
        return self.root.paths.boot / f"initrd.img-{krel or self.krel}"

    def make_image(self) -> None:
        for krel in self.krels:
            assert self.root.chroot("mkinitramfs.real", "-o", f"/boot/initrd.img-{krel}", krel).returncode == 0

    def reconcile(self, krel: str = "", *, asked: bool = True, later_s: float = 0.0, **initrd: object) -> KernelRecord:
        config = Config(initrd=InitrdConfig(**initrd))  # type: ignore[arg-type]
        with closing(Engine(self.root.paths, config, lambda: time.time() + later_s)) as engine:
            return engine.reconcile(krel or self.krel, asked=asked)

    def reconcile_configured(self) -> KernelRecord:
        """By the files below /etc/autokmod."""
        with closing(Engine(self.root.paths, load_config(self.root.paths), time.time)) as engine:
            return engine.reconcile(self.krel)

    @property
    def runs(self) -> int:
        log = self.root.path / "tmp/runs"
        return len(log.read_text().splitlines()) if log.exists() else 0


def word(record: KernelRecord) -> Reason:
    assert record.initrd is not None
    return record.initrd


@pytest.fixture
def world(real_root: MakeRoot, corpus: Corpus) -> Iterator[World]:
    krels = (corpus.trio.first, corpus.trio.equal)
    root = real_root(kernels=krels)
    for krel in krels:
        assert root.chroot("depmod", krel).returncode == 0
    world = World(root, krels)
    world.make_image()
    yield world
    left = [p.name for p in root.paths.boot.iterdir() if p.name.endswith((NEW, ".autokmod-aside", ".part"))]
    assert not left


def test_one_run_for_all_that_changed_and_none_for_nothing(world: World) -> None:
    """The image was made before the module was there, and the generator's configuration names it."""
    for i in range(20):
        add_module(world.root, f"extra{i}")
    names = ["rootdrv", *(f"extra{i}" for i in range(20))]
    (world.root.path / "etc/initramfs-tools/modules").write_text("\n".join(names))
    for krel in world.krels:
        record = world.reconcile(krel)
        assert (record.initrd_ok, word(record).kind) == (True, "initrd-refreshed")
        assert set(record.initrd_modules) == set(names)
        assert read_carried(str(world.image(krel)), krel, ["rootdrv"]).modules["rootdrv"]
        assert world.image(krel).with_name(world.image(krel).name + PREVIOUS).exists()
    assert world.runs == 2
    for krel in world.krels:
        assert world.reconcile(krel).initrd_ok
    assert world.runs == 2
    add_module(world.root, "bystander")
    assert word(world.reconcile()).kind == "initrd-right"
    assert world.runs == 2
    add_module(world.root, "rootdrv", "two")
    assert word(world.reconcile()).kind == "initrd-refreshed"
    assert world.runs == 3


def test_a_package_that_goes_leaves_the_image(world: World) -> None:
    """The generator's configuration may go on naming it."""
    assert world.reconcile().initrd_modules == ("rootdrv",)
    shutil.rmtree(world.root.path / "usr/src/rootdrv-1")
    record = world.reconcile()
    assert (record.initrd_ok, word(record).kind, record.initrd_modules) == (True, "initrd-refreshed", ())
    assert "rootdrv" not in read_carried(str(world.image()), world.krel, ()).modules
    assert world.runs == 2
    assert word(world.reconcile()).kind == "initrd-refreshed"
    assert world.runs == 2


def test_dracut(world: World) -> None:
    (world.root.path / "etc/dracut.conf.d/1.conf").write_text('add_drivers+=" rootdrv "\n')
    made = world.root.chroot("dracut", "--force", "--no-hostonly", "-m", "base kernel-modules", "--drivers", "dummy",
                             f"/boot/initrd.img-{world.krel}", world.krel)  # fmt: skip
    assert made.returncode == 0
    (world.root.path / "etc/dracut.conf.d/2.conf").write_text('dracutmodules+=" base kernel-modules "\nhostonly=no\n')
    record = world.reconcile()
    assert (record.initrd_ok, word(record).kind) == (True, "initrd-refreshed"), word(record).text
    assert "dracut" in word(record).text
    assert world.runs == 0


LEAVING_OUT = (
    'cp -a /etc/initramfs-tools /tmp/other; : >/tmp/other/modules\nexec /usr/sbin/mkinitramfs.real -d /tmp/other "$@"'
)
WRONG: list[tuple[str, str, str]] = [
    ("fails", "echo no such luck; exit 3", "no such luck"),
    ("says nothing and makes nothing", "exit 0", "made no image"),
    ("makes an empty image", ': >"$2"; exit 0', "made no image"),
    ("makes rubbish", 'echo rubbish >"$2"; exit 0', "no kernel would unpack it"),
    ("hangs", "sleep 1000", "time limit"),
    ("leaves it out", LEAVING_OUT, "lacks rootdrv"),
    ("is not there", "", "mkinitramfs"),
]


@pytest.mark.parametrize(("how", "then", "says"), WRONG, ids=[w[0] for w in WRONG])
def test_a_generator_that(world: World, how: str, then: str, says: str) -> None:
    before = world.image().read_bytes()
    (world.root.path / "etc/autokmod/packages.d").mkdir(parents=True)
    world.wrap(then)
    if how == "is not there":
        (world.root.path / "usr/sbin/mkinitramfs").unlink()
    record = world.reconcile(time_limit_s=5 if how == "hangs" else 300)
    assert (record.initrd_ok, word(record).kind) == (False, "initrd-failed")
    assert says in word(record).text, word(record).text
    assert "it stays as it was" in word(record).text
    assert world.image().read_bytes() == before
    world.wrap("")
    (world.root.path / "etc/initramfs-tools/modules").write_text("rootdrv\n")
    assert word(world.reconcile()).kind == "initrd-refreshed"


def test_boot_is_full(world: World) -> None:
    size = world.image().stat().st_size
    files = {p.name: p.read_bytes() for p in world.root.paths.boot.iterdir() if p.is_file()}
    total = sum(map(len, files.values()))
    mount("-t", "tmpfs", "-o", f"size={total + size // 2}", "tmpfs", str(world.root.paths.boot))
    for name, data in files.items():
        (world.root.paths.boot / name).write_bytes(data)
    record = world.reconcile()
    assert (record.initrd_ok, word(record).kind) == (False, "initrd-failed")
    assert "MiB free" in word(record).text
    assert "enlarge /boot" in (word(record).hint or "")
    assert world.image().read_bytes() == files[world.image().name]
    assert world.runs == 0


def test_told_not_to(world: World) -> None:
    record = world.reconcile(regenerate=False)
    assert (record.initrd_ok, word(record).kind, world.runs) == (False, "initrd-stale", 0)
