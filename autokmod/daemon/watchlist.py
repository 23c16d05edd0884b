"""Which directories are worth watching, and which of their names: a look at the disk, done anew after each event.

inotify is not recursive and does not see what is not there yet. A directory that is missing is waited for in the
nearest one above it that exists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.observe.initrd import MARK
from autokmod.observe.kernels import is_krel
from autokmod.paths import Paths


class Hint(StrEnum):
    """What may have changed; the disk says whether it has."""

    KERNELS = "kernels"
    SOURCES = "sources"
    SPOOL = "spool"
    CONFIG = "config"


# Not modules.dep and its kin, not what autokmod places: writing those must not wake whoever wrote them. An initrd that
# autokmod made wakes it once, to find that it is the one that it made; one that it only tried to make, never: else a
# generator that fails each time would be run again and again.
MODULESD_NAMES = ("build", "source", "kernel", "vmlinuz", "config", "modules.order", "modules.builtin")
KDIR_NAMES = ("Makefile", "Module.symvers", ".config", "include", "scripts")
BOOT_NAMES = ("vmlinuz-*", "vmlinux-*", "Image-*", "kernel-*", "initrd[-.]*", "initramfs-*", "booster-*")
# What decides which kernel the next boot takes. Not variables of the firmware, of which nobody is told.
LOADER_DIRECTORIES = ("boot/grub", "boot/grub2", "boot/loader/entries", "boot/efi/loader/entries", "efi/loader/entries")
LOADER_NAMES = ("grub.cfg", "grubenv", "*.conf")


@dataclass(frozen=True, slots=True)
class Interest:
    """A change of these names (shell patterns) in a directory is this hint."""

    hint: Hint
    names: tuple[str, ...]

    def concerns(self, name: str) -> bool:
        return MARK not in name and any(fnmatchcase(name, pattern) for pattern in self.names)


SPOOL = Interest(Hint.SPOOL, ("[!.]*",))  # the one whose events do not change what is watched


def find_directories(paths: Paths) -> dict[Path, frozenset[Interest]]:
    found: dict[Path, set[Interest]] = {}
    for path, interest in _wanted(paths):
        directory, there = _nearest(paths, path, interest)
        found.setdefault(directory, set()).add(there)
    return {directory: frozenset(interests) for directory, interests in found.items()}


def _wanted(paths: Paths) -> Iterator[tuple[Path, Interest]]:
    yield paths.modules, Interest(Hint.KERNELS, ("*",))
    for krel in filter(is_krel, _directories(paths.modules)):
        yield paths.modulesd(krel), Interest(Hint.KERNELS, MODULESD_NAMES)
        yield paths.modulesd(krel) / "build", Interest(Hint.KERNELS, KDIR_NAMES)
        yield from ((directory, Interest(Hint.KERNELS, ("*",))) for directory in _of_others(paths.modulesd(krel)))
    yield paths.boot, Interest(Hint.KERNELS, BOOT_NAMES)
    for directory in LOADER_DIRECTORIES:
        if paths.at(directory).is_dir():
            yield paths.at(directory), Interest(Hint.KERNELS, LOADER_NAMES)
    yield paths.usr_src, Interest(Hint.SOURCES, ("*",))
    for name in _directories(paths.usr_src):
        yield paths.usr_src / name, Interest(Hint.SOURCES, ("*",))
    yield paths.at("etc/dkms"), Interest(Hint.SOURCES, ("*",))
    yield paths.etc, Interest(Hint.CONFIG, ("*.toml",))
    yield paths.etc / "autokmod.toml.d", Interest(Hint.CONFIG, ("*.toml",))
    yield paths.packages_d, Interest(Hint.CONFIG, ("*.toml",))
    # The administrator's patches, and the directories in which they appear.
    yield paths.packages_d, Interest(Hint.SOURCES, ("*",))
    for name in _directories(paths.packages_d):
        yield paths.packages_d / name, Interest(Hint.SOURCES, ("patches",))
        yield paths.packages_d / name / "patches", Interest(Hint.SOURCES, ("*.patch",))
    yield paths.spool, SPOOL


def _of_others(modulesd: Path) -> Iterator[Path]:
    """Where DKMS and vendors put modules: others may link there. Not updates/ itself, as we make our own in there."""
    yield modulesd / "extra"
    yield from (modulesd / "extra" / name for name in _directories(modulesd / "extra"))
    if (modulesd / "updates").is_dir():
        yield modulesd / "updates/dkms"


def _directories(directory: Path) -> list[str]:
    try:
        return sorted(e.name for e in os.scandir(directory) if e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _nearest(paths: Paths, path: Path, interest: Interest) -> tuple[Path, Interest]:
    """The directory itself, or the nearest one above it, where its coming is the hint."""
    try:
        target = paths.resolve(path)
    except FormatError:  # a loop of links: whoever mends it changes the directory that holds it
        return path.parent, Interest(interest.hint, (path.name,))
    waited_for: tuple[str, ...] = ()
    while not target.is_dir() and target != paths.root:
        waited_for = (target.name,)
        target = target.parent
    return target, Interest(interest.hint, waited_for) if waited_for else interest
