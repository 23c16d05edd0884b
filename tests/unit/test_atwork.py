"""Who else is at work."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from autokmod.observe.atwork import PACMAN_LIMIT_S, find_package_manager, maker_of
from autokmod.paths import Paths

KREL = "6.1.0-56-amd64"
COMMANDS: list[tuple[str, str | None]] = [
    (f"kernel-install add {KREL} /boot/vmlinuz", "kernel-install"),
    (f"/bin/sh /usr/bin/kernel-install add {KREL} /boot/vmlinuz", "kernel-install"),
    ("/bin/sh -e /usr/sbin/mkinitramfs -o /boot/x", "mkinitramfs"),
    ("/usr/bin/bash -p /usr/bin/dracut --force", "dracut"),
    (f"run-parts --report --arg={KREL} --arg=/boot/vmlinuz /etc/kernel/postinst.d", "run-parts"),
    ("run-parts --report /etc/cron.daily", None),
    ("vi /usr/bin/dracut.conf", None),
    ("grep -r x y /usr/sbin/update-initramfs", None),
    ("", None),
]


@pytest.mark.parametrize(("command", "maker"), COMMANDS)
def test_makers(command: str, maker: str | None) -> None:
    assert maker_of(command.split(" ")) == maker


def lock(tmp_path: Path, name: str, text: str = "") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_pacman_that_was_killed(tmp_path: Path) -> None:
    path = lock(tmp_path, "var/lib/pacman/db.lck")
    assert find_package_manager(Paths(tmp_path)) == "pacman (/var/lib/pacman/db.lck)"
    long_ago = time.time() - PACMAN_LIMIT_S - 60
    os.utime(path, (long_ago, long_ago))
    assert find_package_manager(Paths(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "works"), [(f"{os.getpid()}\n", True), ("4194304", False), ("", False), ("../1", False)]
)
def test_zypper_that_was_killed(tmp_path: Path, text: str, works: bool) -> None:
    lock(tmp_path, "run/zypp.pid", text)
    assert (find_package_manager(Paths(tmp_path)) is not None) == works
