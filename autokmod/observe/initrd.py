"""Where a kernel's initrd is, by the names that generators and boot loaders have for it."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.observe.bootplaces import esp_candidates, glob_quietly, plain_pattern, read_quietly
from autokmod.paths import Paths
from autokmod.versions import sort_key

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
        yield from ((path, Place.ENTRY) for path in glob_quietly(top, f"*/{plain_pattern(krel)}/initrd*"))
        unified = glob_quietly(top, f"EFI/Linux/*{plain_pattern(krel)}*.efi")
        yield from ((path, Place.ENTRY) for path in unified if is_unified_of(path.name, krel))


def is_unified_of(name: str, krel: str) -> bool:
    """kernel-install's TOKEN-KREL.efi, dracut's linux-KREL-MACHINE.efi, with the tries left ("+3-1") before the suffix.

    6.1.0-56 is not 6.1.0-5.
    """
    tail = r"(\+\d+(-\d+)?)?"
    of_dracut = rf"linux-{re.escape(krel)}-[0-9a-f]{{32}}(-.*)?"
    return re.fullmatch(rf"((.*-)?{re.escape(krel)}|{of_dracut}){tail}\.efi", name) is not None


# ---- copies for the boot loader


def find_copies(paths: Paths, krel: str, found: Found) -> tuple[tuple[Path, ...], ...]:
    """Of an image below /boot what kernel-install made for a boot loader that does not read it there: the images of
    each boot entry of this system, and each unified one. One of an entry's images may be another part of it."""
    if found.place is Place.ENTRY:
        return ()
    tokens = _entry_tokens(paths)
    by_entry: dict[Path, list[Path]] = {}
    for path, place in _candidates(paths, krel):
        if place is Place.ENTRY and path != found.path and _file(paths, path) is not None:
            by_entry.setdefault(path if path.suffix == ".efi" else path.parent, []).append(path)
    mine = (e for e in by_entry if any(e.parent.name == t or e.name.startswith(f"{t}-{krel}") for t in tokens))
    return tuple(tuple(by_entry[entry]) for entry in mine)


def _entry_tokens(paths: Paths) -> frozenset[str]:
    """Another system on the same disk may have entries of the same kernel. kernel-install(8), --entry-token=."""
    release = dict(_RELEASE.findall(read_quietly(paths.at("etc/os-release"))))
    files = (read_quietly(paths.at(f"etc/{name}")).strip() for name in ("kernel/entry-token", "machine-id"))
    return frozenset(filter(None, (*files, *release.values())))


_RELEASE = re.compile(r"""^(ID|IMAGE_ID)=["']?([^"'\s]+)""", re.MULTILINE)


# ---- named after the kernel's package


def _of_package(paths: Paths, krel: str) -> Iterator[tuple[Path, Place]]:
    """Unified images first: their preset makes the plain one as well."""
    package = package_of(paths, krel)
    if package is not None and _has_now(paths, package) in (krel, None):
        presets = dict(_PRESET.findall(read_quietly(paths.at(f"etc/mkinitcpio.d/{package}.preset"))))
        yield from ((paths.at(presets[kind]), place) for kind, place in _KINDS if kind in presets)
        yield paths.boot / f"initramfs-{package}.img", Place.PACKAGE
        yield paths.boot / f"booster-{package}.img", Place.PACKAGE


_PRESET = re.compile(r"""^\s*default_(uki|image)=["']?(/[^"'\s]+)""", re.MULTILINE)
_KINDS = (("uki", Place.PRESET), ("image", Place.PACKAGE))


def _has_now(paths: Paths, package: str) -> str | None:
    """The package's kernel. Modules of a former one may have been kept for as long as it runs; its image is gone, and
    one that is made for it would take the place of the new kernel's."""
    krels = [path.name for path in glob_quietly(paths.modules, "*") if package_of(paths, path.name) == package]
    kernel = paths.boot / f"vmlinuz-{package}"
    if len(krels) > 1 and os.path.isfile(kernel):
        krels = [krel for krel in krels if _is_same(paths.modulesd(krel) / "vmlinuz", kernel)] or krels
    return max(krels, key=sort_key, default=None)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def package_of(paths: Paths, krel: str) -> str | None:
    """As Arch names it in the kernel's modules directory."""
    package = read_quietly(paths.modulesd(krel) / "pkgbase").strip()
    return package if package and "/" not in package and package.isprintable() else None


# ---- what was kept of a kernel that is gone


def find_leftovers(paths: Paths, krel: str) -> Iterator[Path]:
    """Whatever autokmod kept beside images of this kernel, and beside those of packages that are gone."""
    others = [path.name for path in glob_quietly(paths.modules, "*") if path.name != krel]
    for top in esp_candidates(paths):
        for directory in glob_quietly(top, f"*/{plain_pattern(krel)}"):
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
    return [path for suffix in OURS for end in ("", PART) for path in glob_quietly(directory, f"*{suffix}{end}")]


def identify(image: Path) -> tuple[int, ...]:
    """Changes whenever the image is written or replaced."""
    info = image.stat()
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
