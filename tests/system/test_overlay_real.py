"""Overlays instead of generator runs: real kernels and modules, and the images of real initramfs-tools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autokmod.observe.image.contents import read_image
from autokmod.observe.initrd import NEW, PREVIOUS
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.system.test_initrd import World, add_module, word
from tests.unit.test_ctl import ctl, data

pytestmark = [pytest.mark.root, pytest.mark.kbuild]


@pytest.fixture
def world(real_root: MakeRoot, corpus: Corpus) -> Iterator[World]:
    krels = (corpus.trio.first,)
    root = real_root(kernels=krels)
    for krel in krels:
        assert root.chroot("depmod", krel).returncode == 0
    world = World(root, krels)
    world.make_image()
    (root.path / "etc/autokmod/packages.d").mkdir(parents=True)
    yield world
    left = [p.name for p in root.paths.boot.iterdir() if p.name.endswith((NEW, ".autokmod-aside", ".part"))]
    assert not left


def kinds(world: World) -> list[str]:
    return [s.kind for s in read_image(str(world.image()), lambda _: False).segments]


def test_appended_replaced_and_never_a_generator(world: World) -> None:
    before = world.image().read_bytes()
    record = world.reconcile(overlay=True)
    assert (record.initrd_ok, word(record).kind) == (True, "initrd-overlaid"), word(record).text
    assert "with rootdrv" in word(record).text
    assert kinds(world) == ["zstd", "cpio"]
    size = world.image().stat().st_size
    assert world.image().read_bytes().startswith(before)
    assert world.image().with_name(world.image().name + PREVIOUS).read_bytes() == before
    assert world.reconcile(overlay=True).initrd_seen == record.initrd_seen
    add_module(world.root, "rootdrv", "two")
    assert word(world.reconcile(overlay=True)).kind == "initrd-overlaid"
    assert kinds(world) == ["zstd", "cpio"]
    assert abs(world.image().stat().st_size - size) < 1024
    world.image().write_bytes(before)  # as somebody who knows nothing of overlays would
    assert kinds(world) == ["zstd"]
    assert word(world.reconcile(overlay=True)).kind == "initrd-overlaid"
    assert kinds(world) == ["zstd", "cpio"]
    assert world.runs == 0


def test_one_package_by_overlay_and_another_by_the_generator(world: World) -> None:
    """The generator is run for the other's sake, and leaves out what nobody told it of."""
    (world.root.path / "etc/initramfs-tools/modules").write_text("byhand\n")
    add_module(world.root, "byhand")
    (world.root.path / "etc/autokmod/packages.d/rootdrv.toml").write_text('initrd = "overlay"\n')
    record = world.reconcile_configured()
    assert (record.initrd_ok, word(record).kind) == (True, "initrd-refreshed"), word(record).text
    assert record.initrd_modules == ("byhand", "rootdrv")
    assert (kinds(world), world.runs) == (["zstd", "cpio"], 1)
    add_module(world.root, "rootdrv", "two")
    assert word(world.reconcile_configured()).kind == "initrd-overlaid"
    assert world.runs == 1


def test_told_no_more_to_lay_over_it_asks_the_generator_first(world: World) -> None:
    """What that leaves out is not lost all the same: the image carried it."""
    world.reconcile(overlay=True)
    add_module(world.root, "rootdrv", "two")
    assert word(world.reconcile()).kind == "initrd-refreshed"
    assert (kinds(world), world.runs) == (["zstd"], 1)
    add_module(world.root, "other")
    (world.root.path / "etc/autokmod/packages.d/other.toml").write_text('initrd = "overlay"\n')
    assert word(world.reconcile_configured()).kind == "initrd-overlaid"
    (world.root.path / "etc/autokmod/packages.d/other.toml").unlink()
    add_module(world.root, "other", "two")
    record = world.reconcile_configured()
    assert (record.initrd_ok, word(record).kind) == (True, "initrd-refreshed"), word(record).text
    assert (kinds(world), world.runs) == (["zstd", "cpio"], 2)
    assert record.initrd_modules == ("other", "rootdrv")


def test_an_overlay_that_cannot_be_made_changes_nothing(world: World) -> None:
    before = world.image().read_bytes()
    record = world.reconcile(overlay=True, modprobe_conf=("/etc/modprobe.d/not-there.conf",))
    assert (record.initrd_ok, word(record).kind) == (False, "initrd-failed")
    assert "not-there.conf" in word(record).text
    assert world.image().read_bytes() == before


def test_by_hand(world: World, tmp_path: Path) -> None:
    """The same that a job appends, as a file; with what modprobe is to be told."""
    world.reconcile(overlay=True)
    appended = world.image().read_bytes()
    made = tmp_path / "overlay"
    done = ctl(world.root.paths, "initrd", "overlay", world.krel, "-o", str(made), "--json=short")
    assert data(done)["modules"] == ["rootdrv"]
    assert appended.endswith(made.read_bytes())
    (tmp_path / "x.conf").write_text("options rootdrv\n")
    conf = ("--modprobe-conf", str(tmp_path / "x.conf"))
    done = ctl(world.root.paths, "initrd", "overlay", world.krel, "--output", str(made), *conf)
    assert (done.returncode, done.stderr) == (0, "")
    assert "with rootdrv" in done.stdout
    assert read_image(str(made), lambda _: True).files["etc/modprobe.d/x.conf"].content == b"options rootdrv\n"
    world.image().unlink()
    done = ctl(world.root.paths, "initrd", "overlay", world.krel, "-o", str(made))
    assert (done.returncode, "no initrd" in done.stderr) == (2, True)


def test_nothing_belongs_there(world: World, tmp_path: Path) -> None:
    (world.root.path / "etc/initramfs-tools/modules").write_text("")
    world.reconcile()
    done = ctl(world.root.paths, "initrd", "overlay", world.krel, "-o", str(tmp_path / "x"))
    assert done.returncode == 2
    assert "initrd = true" in done.stderr
    assert not (tmp_path / "x").exists()
