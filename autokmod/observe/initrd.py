"""Where a kernel's initrd is, by the names that generators and boot loaders have for it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.paths import Paths

MARK = ".autokmod-"  # in the name of each file that autokmod keeps beside an image
PREVIOUS = ".autokmod-previous"
NEW = ".autokmod-new"
ASIDE = ".autokmod-aside"  # a copy, while a generator writes into the image itself
SWAP = ".autokmod-swap"  # the image, while the former one takes its place
OURS = (PREVIOUS, NEW, ASIDE, SWAP)
PART = ".part"  # behind these, of a copy that is not whole


class Place(StrEnum):
    """What its name and directory say of who makes it."""

    DEBIAN = "debian"  # /boot/initrd.img-KREL
    PLAIN = "plain"  # /boot/initramfs-KREL.img and the like
    PACKAGE = "package"  # named after the kernel's package: Arch
    ENTRY = "entry"  # of kernel-install: a boot loader entry's directory, or a unified kernel image
    PRESET = "preset"  # a unified kernel image that a preset of mkinitcpio's names


@dataclass(frozen=True, slots=True)
class Found:
    path: Path
    place: Place


def find_image(paths: Paths, krel: str) -> Found | None:
    """The file itself, where its name is a link: who boots may take either."""
    found = (Found(file, place) for path, place in _candidates(paths, krel) if (file := _file(paths, path)) is not None)
    return next(found, None)


def _file(paths: Paths, path: Path) -> Path | None:
    try:
        file = paths.resolve(path) if os.path.islink(path) else path
    except (FormatError, OSError):
        return None
    return file if os.path.isfile(file) and MARK not in file.name else None


def named_images(paths: Paths, krel: str) -> tuple[Path, ...]:
    """Where a kernel's image may be that is named after the kernel alone."""
    plain = (f"initramfs-{krel}.img", f"initrd-{krel}", f"initrd-{krel}.img")
    return tuple(paths.boot / name for name in (f"initrd.img-{krel}", *plain))


def _candidates(paths: Paths, krel: str) -> Iterator[tuple[Path, Place]]:
    debian, *plain = named_images(paths, krel)
    yield debian, Place.DEBIAN
    yield from ((path, Place.PLAIN) for path in plain)
    yield from _of_package(paths, krel)
    for top in esp_candidates(paths):
        yield from ((path, Place.ENTRY) for path in _glob(top, f"*/{_plain(krel)}/initrd*"))
        unified = _glob(top, f"EFI/Linux/*{_plain(krel)}*.efi")
        yield from ((path, Place.ENTRY) for path in unified if is_unified_of(path.name, krel))


def esp_candidates(paths: Paths) -> tuple[Path, ...]:
    return (paths.at("efi"), paths.at("boot/efi"), paths.boot)


def _glob(top: Path, pattern: str) -> list[Path]:
    """Nothing where a file system is to be mounted at first sight, and cannot."""
    try:
        return sorted(top.glob(pattern))
    except OSError:
        return []


def is_unified_of(name: str, krel: str) -> bool:
    """kernel-install's TOKEN-KREL.efi, dracut's linux-KREL-MACHINE.efi, with the tries left ("+3-1") before the suffix.

    6.1.0-56 is not 6.1.0-5.
    """
    tail = r"(\+\d+(-\d+)?)?"
    of_dracut = rf"linux-{re.escape(krel)}-[0-9a-f]{{32}}(-.*)?"
    return re.fullmatch(rf"((.*-)?{re.escape(krel)}|{of_dracut}){tail}\.efi", name) is not None


# ---- named after the kernel's package


def _of_package(paths: Paths, krel: str) -> Iterator[tuple[Path, Place]]:
    """Unified images first: their preset makes the plain one as well."""
    package = package_of(paths, krel)
    if package is not None:
        presets = dict(_PRESET.findall(_text(paths.at(f"etc/mkinitcpio.d/{package}.preset"))))
        yield from ((paths.at(presets[kind]), place) for kind, place in _KINDS if kind in presets)
        yield paths.boot / f"initramfs-{package}.img", Place.PACKAGE
        yield paths.boot / f"booster-{package}.img", Place.PACKAGE


_PRESET = re.compile(r"""^\s*default_(uki|image)=["']?(/[^"'\s]+)""", re.MULTILINE)
_KINDS = (("uki", Place.PRESET), ("image", Place.PACKAGE))


def package_of(paths: Paths, krel: str) -> str | None:
    """As Arch names it in the kernel's modules directory."""
    package = _text(paths.modulesd(krel) / "pkgbase").strip()
    return package if package and "/" not in package and package.isprintable() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# ---- not to be seen


def find_away(paths: Paths, krel: str) -> str | None:
    """Where a file system that boot loaders read is to be mounted, and is not: this kernel's image may be there."""
    if _glob(paths.boot, f"*{_plain(krel)}*") or any(_glob(t, f"*/{_plain(krel)}") for t in esp_candidates(paths)):
        return None
    return next((place for place in BOOT_PLACES if _is_away(paths, place)), None)


BOOT_PLACES = ("/boot", "/efi", "/boot/efi")
UNIT_DIRS = ("etc/systemd/system", "run/systemd/generator", "run/systemd/generator.late", "run/systemd/transient")


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
    lines = (line.split() for line in _text(paths.at("etc/fstab")).splitlines())
    if any(len(f) > 1 and f[0][0] != "#" and f[1].rstrip("/") == place for f in lines):
        return True
    unit = place.strip("/").replace("/", "-")
    names = (f"{d}/{unit}.{kind}" for d in UNIT_DIRS for kind in ("mount", "automount"))
    return any(paths.at(name).exists() for name in names)


# ---- what was kept of a kernel that is gone


def find_leftovers(paths: Paths, krel: str) -> Iterator[Path]:
    """Whatever autokmod kept beside images of this kernel, and beside those of packages that are gone."""
    others = [path.name for path in _glob(paths.modules, "*") if path.name != krel]
    for top in esp_candidates(paths):
        for directory in _glob(top, f"*/{_plain(krel)}"):
            yield from _kept(directory)
    for directory in (paths.boot, *(top / "EFI/Linux" for top in esp_candidates(paths))):
        for path in _kept(directory):
            image = path.with_name(path.name.partition(MARK)[0])
            is_there = image.exists() or is_of_one_kernel(image)
            if _is_named(paths, krel, image) or not (is_there or any(_is_for(paths, o, image) for o in others)):
                yield path


def is_of_one_kernel(image: Path) -> bool:
    """By its name; what is named after a package is of whichever kernel that has at the time."""
    return re.search(r"\d\.\d", f"{image.parent.name}/{image.name}") is not None


def _is_named(paths: Paths, krel: str, image: Path) -> bool:
    return image in named_images(paths, krel) or is_unified_of(image.name, krel)


def _is_for(paths: Paths, krel: str, image: Path) -> bool:
    return any(image == path for path, _ in _of_package(paths, krel))


def _kept(directory: Path) -> list[Path]:
    return [path for suffix in OURS for end in ("", PART) for path in _glob(directory, f"*{suffix}{end}")]


# ----


def _plain(krel: str) -> str:
    """Nothing in it is a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in krel)


def identify(image: Path) -> tuple[int, ...]:
    """Changes whenever the image is written or replaced."""
    info = image.stat()
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
