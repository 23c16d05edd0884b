"""File systems that boot loaders read, which need not be mounted, or can be looked into by root alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from autokmod.files import read_regular
from autokmod.paths import Paths

BOOT_PLACES = ("/boot", "/efi", "/boot/efi")
UNIT_DIRS = ("etc/systemd/system", "run/systemd/generator", "run/systemd/generator.late", "run/systemd/transient")


def esp_candidates(paths: Paths) -> tuple[Path, ...]:
    return (paths.at("efi"), paths.at("boot/efi"), paths.boot)


def glob_quietly(top: Path, pattern: str) -> list[Path]:
    """Nothing where a file system is to be mounted at first sight, and cannot."""
    try:
        return sorted(top.glob(pattern))
    except OSError:
        return []


def find_away(paths: Paths, krel: str) -> str | None:
    """Where a file system that boot loaders read is to be mounted, and is not: this kernel's image may be there."""
    name = plain_pattern(krel)
    if glob_quietly(paths.boot, f"*{name}*") or any(glob_quietly(top, f"*/{name}") for top in esp_candidates(paths)):
        return None
    return next((place for place in BOOT_PLACES if _is_away(paths, place)), None)


def _is_away(paths: Paths, place: str) -> bool:
    """An automount point cannot be listed as long as nothing can be mounted there."""
    top = paths.at(place)
    try:
        os.listdir(top)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
            return True
    return _is_to_be_mounted(paths, place) and not top.is_mount()


def _is_to_be_mounted(paths: Paths, place: str) -> bool:
    """By fstab or by a unit: systemd's generator makes one for what it finds on the disk."""
    lines = (line.split() for line in read_quietly(paths.at("etc/fstab")).splitlines())
    if any(len(f) > 1 and f[0][0] != "#" and f[1].rstrip("/") == place for f in lines):
        return True
    unit = place.strip("/").replace("/", "-")
    names = (f"{d}/{unit}.{kind}" for d in UNIT_DIRS for kind in ("mount", "automount"))
    return any(paths.at(name).exists() for name in names)


def plain_pattern(krel: str) -> str:
    """Nothing in it is a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in krel)


def read_quietly(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8", "replace")
    except OSError:
        return ""
