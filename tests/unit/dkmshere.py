"""DKMS as its packages install it, of a few bytes each: what starts it, without what it does."""

from __future__ import annotations

from pathlib import Path

from autokmod.paths import Paths

SCRIPT = "#!/bin/sh\nexit 0\n"
DEBIAN = ("etc/kernel/postinst.d/dkms", "etc/kernel/header_postinst.d/dkms", "etc/kernel/prerm.d/dkms")
PLUGIN = "usr/lib/kernel/install.d/40-dkms.install"
UNIT = "usr/lib/systemd/system/dkms.service"
WANTED = "etc/systemd/system/multi-user.target.wants/dkms.service"
ALPM = "usr/share/libalpm/hooks/70-dkms-install.hook"
POSTINST = "usr/lib/dkms/common.postinst"


def write(paths: Paths, name: str, text: str = SCRIPT, mode: int = 0o755) -> Path:
    path = paths.at(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def link(paths: Paths, name: str, target: str) -> Path:
    path = paths.at(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def debian(paths: Paths) -> None:
    for name in ("usr/sbin/dkms", *DEBIAN, POSTINST):
        write(paths, name)


def fedora(paths: Paths) -> None:
    for name in ("usr/sbin/dkms", PLUGIN, POSTINST):
        write(paths, name)
    write(paths, UNIT, "[Service]\n", 0o644)
    link(paths, WANTED, f"/{UNIT}")


def arch(paths: Paths) -> None:
    write(paths, "usr/bin/dkms")
    write(paths, ALPM, "[Action]\n", 0o644)
    write(paths, "usr/share/libalpm/hooks/71-dkms-remove.hook", "[Action]\n", 0o644)
