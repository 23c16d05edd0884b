"""Where a kernel's initrd is, by the names that generators and boot loaders have for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.files import read_regular
from autokmod.paths import Paths

MARK = ".autokmod-"  # in the name of each file that autokmod keeps beside an image
PREVIOUS = ".autokmod-previous"
NEW = ".autokmod-new"
ASIDE = ".autokmod-aside"  # a copy, while a generator writes into the image itself
SWAP = ".autokmod-swap"  # the image, while the former one takes its place
OURS = (PREVIOUS, NEW, ASIDE, SWAP)


class Place(StrEnum):
    """What its name and directory say of who makes it."""

    DEBIAN = "debian"  # /boot/initrd.img-KREL
    PLAIN = "plain"  # /boot/initramfs-KREL.img and the like
    PACKAGE = "package"  # named after the kernel's package: Arch
    ENTRY = "entry"  # of kernel-install: a boot loader entry's directory, or a unified kernel image


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
        file = paths.resolve(path) if path.is_symlink() else path
    except FormatError:
        return None
    return file if file.is_file() and MARK not in file.name else None


def named_images(paths: Paths, krel: str) -> tuple[Path, ...]:
    """Where a kernel's image may be that is named after the kernel alone."""
    plain = (f"initramfs-{krel}.img", f"initrd-{krel}", f"initrd-{krel}.img")
    return tuple(paths.boot / name for name in (f"initrd.img-{krel}", *plain))


def _candidates(paths: Paths, krel: str) -> Iterator[tuple[Path, Place]]:
    debian, *plain = named_images(paths, krel)
    yield debian, Place.DEBIAN
    yield from ((path, Place.PLAIN) for path in plain)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        package = read_regular(paths.modulesd(krel) / "pkgbase").decode().strip()
        if package and "/" not in package:
            yield paths.boot / f"initramfs-{package}.img", Place.PACKAGE
            yield paths.boot / f"booster-{package}.img", Place.PACKAGE
    for top in (paths.at("efi"), paths.at("boot/efi"), paths.boot):
        yield from ((path, Place.ENTRY) for path in sorted(top.glob(f"*/{_plain(krel)}/initrd*")))
        yield from ((path, Place.ENTRY) for path in sorted(top.glob(f"EFI/Linux/*{_plain(krel)}*.efi")))


def is_boot_away(paths: Paths, krel: str) -> bool:
    """Whether /boot is a file system of its own that is not mounted, so that nothing of this kernel is seen there."""
    try:
        table = read_regular(paths.at("etc/fstab")).decode("utf-8", "replace")
    except OSError:
        return False
    mounts = [fields[1] for line in table.splitlines() if len(fields := line.split()) > 1 and fields[0][0] != "#"]
    is_empty = not any(paths.boot.glob(f"*{_plain(krel)}*"))
    return "/boot" in mounts and is_empty and not paths.boot.is_mount()


def _plain(krel: str) -> str:
    """Nothing in it is a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in krel)


def identify(image: Path) -> tuple[int, ...]:
    """Changes whenever the image is written or replaced."""
    info = image.stat()
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
