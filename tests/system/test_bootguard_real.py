"""The boot guard on a file system of its own, with GRUB's own tools, real kernels and real builds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from autokmod.config import BootGuardConfig, Config, PackageConfig
from autokmod.decide.grubmenu import Menu
from autokmod.jobs.engine import Engine
from autokmod.jobs.machine import read_next_boot
from autokmod.model import Job, JobResult, NextBoot, Verb
from autokmod.observe.bootguard import read_guard
from autokmod.observe.nextboot import look_at_boot
from autokmod.run import Cancel
from tests import grubdisk
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.grubdisk import GrubDisk

NO_LOOP = pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="needs loop devices")
pytestmark = [pytest.mark.root, pytest.mark.kbuild, NO_LOOP]

CONF = """PACKAGE_NAME=guarded
PACKAGE_VERSION=1
BUILT_MODULE_NAME=guarded
DEST_MODULE_LOCATION=/updates
AUTOINSTALL=yes
MAKE="sh make.sh $kernelver $kernel_source_dir"
"""
MAKE = '[ ! -e "broken-$1" ] || { echo "guarded.c:1: error: broken on purpose"; exit 1; }\nexec make -C "$2" M="$PWD"\n'
SOURCE = """#include <linux/module.h>
MODULE_LICENSE("GPL");
static int __init start(void) { return 0; }
module_init(start);
"""
REQUIRED = Config(packages=(("guarded", PackageConfig(required=True)),))


class World:
    """The newer kernel is what GRUB takes by itself, and the package does not build for it."""

    def __init__(self, disk: GrubDisk, older: str, newer: str) -> None:
        self.disk, self.older, self.newer = disk, older, newer
        root, files = (
            disk.root,
            {"dkms.conf": CONF, "make.sh": MAKE, "guarded.c": SOURCE, "Makefile": "obj-m := guarded.o\n"},
        )
        self.source = root.add_source("guarded", "1", {**files, f"broken-{newer}": ""})
        (disk.path / "etc/autokmod/packages.d").mkdir(parents=True, exist_ok=True)
        (disk.path / "etc/autokmod/packages.d/guarded.toml").write_text("required = true\n")
        for krel in (older, newer):
            disk.chroot("depmod", krel)

    def job(self, krel: str, config: Config = REQUIRED, now: float | None = None) -> JobResult:
        clock = time.time if now is None else lambda: now
        with closing(Engine(self.disk.paths, config, clock)) as engine:
            return engine.run_job(Job(Verb.RECONCILE, krel, "admin", 0.0), Cancel(), lambda _: None)

    def mend(self) -> None:
        (self.source / f"broken-{self.newer}").unlink()

    def next_boot(self) -> NextBoot:
        return read_next_boot(self.disk.paths)

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "autokmod.ctl.main", "--root", str(self.disk.path), *words]
        return subprocess.run(argv, capture_output=True, text=True)


@pytest.fixture
def world(real_root: MakeRoot, corpus: Corpus) -> Iterator[World]:
    older, newer = corpus.trio.other, corpus.trio.first
    with ExitStack() as stack:
        root = real_root(kernels=(older, newer), packages=grubdisk.PACKAGES)
        disk = stack.enter_context(grubdisk.made(root))
        yield World(disk, older, newer)


def test_a_life_of_a_hold(world: World) -> None:
    disk, older, newer = world.disk, world.older, world.newer
    disk.configure("saved")
    disk.chroot("grub-editenv", "/boot/grub/grubenv", "create")
    assert world.next_boot().krel == newer
    assert world.job(older).result == "done"

    assert world.job(newer).result == "failed"
    hold = read_guard(disk.paths).hold
    assert hold is not None
    assert (hold.kernel, hold.keeps, hold.before) == (newer, older, "")
    assert disk.grubenv() == f"saved_entry={hold.entry}\n"
    assert f"gnulinux-{older}-advanced-" in hold.entry
    assert world.next_boot().krel == older
    assert world.ctl("ready").returncode == 0
    assert f"boot guard: {older} is the default while {newer} is not ready" in world.ctl("status").stdout
    told = json.loads(world.ctl("status", "--json").stdout)
    assert [(k["krel"], k["next_boot"]) for k in told["kernels"]] == [(older, True), (newer, False)]
    assert told["boot_guard"]["hold"]["keeps"] == older

    disk.configure("saved")  # update-grub does not undo it
    assert world.job(newer).result == "failed"
    assert world.next_boot().krel == older

    world.mend()
    assert world.job(newer).result == "done"
    assert (disk.grubenv(), world.next_boot().krel) == ("", newer)
    state = read_guard(disk.paths)
    assert (state.hold, state.last_good, state.problem) == (None, newer, None)
    assert "boot guard" not in world.ctl("status").stdout


def test_its_bounds(world: World) -> None:
    disk, older, newer = world.disk, world.older, world.newer
    disk.configure("saved")
    disk.chroot("grub-editenv", "/boot/grub/grubenv", "set", "saved_entry=0")
    world.job(older)
    world.job(newer)
    assert world.next_boot().krel == older
    bounded = Config(packages=REQUIRED.packages, boot_guard=BootGuardConfig(time_limit_s=60))
    world.job(newer, bounded, now=time.time() + 61)
    assert disk.grubenv() == "saved_entry=0\n"
    assert world.next_boot().krel == newer
    assert read_guard(disk.paths).given_up == (newer,)
    world.job(newer)
    assert world.next_boot().krel == newer
    assert f"given up on {newer}" in world.ctl("status").stdout


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("default-0", "guard-not-saved"),
        ("no-grubenv", "guard-no-grubenv"),
        ("odd-grubenv", "guard-grubenv-odd"),
        ("damaged-grubenv", "next-boot-unknown"),
        ("no-kernel", "guard-no-kernel"),
    ],
)
def test_refuses_and_says_why(world: World, what: str, kind: str) -> None:
    disk = world.disk
    disk.configure("0" if what == "default-0" else "saved")
    env = disk.path / "boot/grub/grubenv"
    disk.chroot("grub-editenv", "/boot/grub/grubenv", "create")
    if what == "no-grubenv":
        env.unlink()
    if what == "odd-grubenv":
        env.write_bytes(env.read_bytes()[:1000])
    if what == "damaged-grubenv":
        env.write_bytes(b"# GRUB Environment Clock\n".ljust(1024, b"#"))
    before = env.read_bytes() if env.exists() else None
    if what != "no-kernel":
        world.job(world.older)
    world.job(world.newer)
    state = read_guard(disk.paths)
    assert (state.hold, state.problem.kind if state.problem else "") == (None, kind)
    assert (env.read_bytes() if env.exists() else None) == before
    assert world.next_boot().krel == (None if what == "damaged-grubenv" else world.newer)
    assert "boot guard: cannot help" in world.ctl("status").stdout


def test_every_choice_of_a_real_configuration_leads_where_it_says(world: World) -> None:
    disk = world.disk
    disk.configure("saved")
    look = look_at_boot(disk.paths)
    assert look.grub is not None
    choices = list(Menu(look.grub).choices())
    assert len(choices) == 3
    for choice in choices:
        disk.chroot("grub-editenv", "/boot/grub/grubenv", "set", f"saved_entry={choice.spec}")
        assert choice.image.endswith(str(world.next_boot().krel))


def test_a_kill_between_writing_and_telling(world: World, tmp_path: Path) -> None:
    """Where the boot loader was never told, the next job finds that out and tells it."""
    disk = world.disk
    disk.configure("saved")
    disk.chroot("grub-editenv", "/boot/grub/grubenv", "create")
    world.job(world.older)
    world.job(world.newer)
    disk.chroot("grub-editenv", "/boot/grub/grubenv", "unset", "saved_entry")
    world.job(world.newer)
    assert world.next_boot().krel == world.older


def held(world: World) -> str:
    """The entry that is told."""
    world.disk.configure("saved")
    world.disk.chroot("grub-editenv", "/boot/grub/grubenv", "create")
    world.job(world.older)
    world.job(world.newer)
    hold = read_guard(world.disk.paths).hold
    assert hold is not None
    return hold.entry


def test_the_same_kernel_in_a_persons_words_stays(world: World) -> None:
    """What somebody chose meanwhile is theirs, though it leads to the kernel that is kept, and all is mended."""
    assert held(world) != "1>2"
    world.disk.chroot("grub-editenv", "/boot/grub/grubenv", "set", "saved_entry=1>2")
    assert world.next_boot().krel == world.older
    world.job(world.newer)
    world.mend()
    assert world.job(world.newer).result == "done"
    assert (world.disk.grubenv(), world.next_boot().krel) == ("saved_entry=1>2\n", world.older)
    assert read_guard(world.disk.paths).hold is None


def test_a_tool_that_writes_something_else(world: World) -> None:
    """What is read back is not what was told: the default is put back to what it was, and status says why."""
    disk = world.disk
    disk.configure("saved")
    disk.chroot("grub-editenv", "/boot/grub/grubenv", "create")
    tool = disk.path / "usr/bin/grub-editenv"
    tool.rename(tool.with_name("grub-editenv.real"))
    tool.write_text('#!/bin/sh\n[ "$2" != set ] || set -- "$1" set "$3-and-more"\nexec grub-editenv.real "$@"\n')
    tool.chmod(0o755)
    world.job(world.older)
    world.job(world.newer)
    state = read_guard(disk.paths)
    assert (state.hold, state.problem.kind if state.problem else "") == (None, "guard-failed")
    assert (disk.grubenv(), world.next_boot().krel) == ("", world.newer)


def test_given_back_by_hand(world: World) -> None:
    """And not kept again before the kernel has been ready once."""
    held(world)
    done = world.ctl("release", "boot-guard")
    assert (done.returncode, done.stdout) == (0, f"{world.older} is not kept as the default any more\n")
    assert (world.disk.grubenv(), world.next_boot().krel) == ("", world.newer)
    world.job(world.newer)
    assert world.next_boot().krel == world.newer
    assert f"given up on {world.newer}" in world.ctl("status").stdout


def test_two_required_packages(world: World) -> None:
    """It takes both."""
    disk = world.disk
    files = {"dkms.conf": CONF.replace("guarded", "second"), "make.sh": MAKE, "second.c": SOURCE}
    second = disk.root.add_source(
        "second", "1", {**files, "Makefile": "obj-m := second.o\n", f"broken-{world.newer}": ""}
    )
    both = Config(packages=(*REQUIRED.packages, ("second", PackageConfig(required=True))))
    disk.configure("saved")
    disk.chroot("grub-editenv", "/boot/grub/grubenv", "create")
    world.job(world.older, both)
    world.job(world.newer, both)
    assert world.next_boot().krel == world.older
    world.mend()
    world.job(world.newer, both)
    assert world.next_boot().krel == world.older
    (second / f"broken-{world.newer}").unlink()
    world.job(world.newer, both)
    assert (disk.grubenv(), world.next_boot().krel) == ("", world.newer)


def test_what_is_kept_is_removed_meanwhile(world: World) -> None:
    """There is no other that is ready: the default is what it would be, not an entry that leads nowhere."""
    held(world)
    world.disk.root.remove_kernel(world.older)
    for file in world.disk.paths.boot.glob(f"*{world.older}*"):
        file.unlink()
    world.disk.configure("saved")
    world.job(world.newer)
    assert (world.disk.grubenv(), world.next_boot().krel) == ("", world.newer)
