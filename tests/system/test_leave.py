"""Whoever uninstalls autokmod gets the boot loader's default back, whatever the configuration says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from autokmod.observe.bootguard import read_guard
from tests.system.test_bootguard_real import NO_LOOP, World, world  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.kbuild, NO_LOOP]


def test_the_default_is_given_back(world: World) -> None:  # noqa: F811
    disk, newer = world.disk, world.newer
    disk.configure("saved")
    disk.chroot("grub-editenv", "/boot/grub/grubenv", "create")
    world.job(world.older)
    world.job(newer)
    assert read_guard(disk.paths).hold is not None
    (disk.paths.etc / "autokmod.toml").write_text("no TOML")
    argv = (sys.executable, "-m", "autokmod.daemon.main", "--root", str(disk.path), "--leave")
    for _ in range(2):
        assert subprocess.run(argv).returncode == 0
        assert (disk.grubenv(), world.next_boot().krel) == ("", newer)
    assert read_guard(disk.paths).hold is None
