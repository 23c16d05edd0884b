"""Where a kernel's initrd is, by the names that generators and boot loaders have for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autokmod.paths import Paths

PREVIOUS = ".autokmod-previous"
NEW = ".autokmod-new"
ASIDE = ".autokmod-aside"  # a copy, while a generator writes into the image itself


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
    candidates = (Found(path, place) for path, place in _candidates(paths, krel))
    return next((c for c in candidates if c.path.is_file() and not c.path.name.endswith((PREVIOUS, NEW, ASIDE))), None)


def _candidates(paths: Paths, krel: str) -> Iterator[tuple[Path, Place]]:
    yield paths.boot / f"initrd.img-{krel}", Place.DEBIAN
    for name in (f"initramfs-{krel}.img", f"initrd-{krel}", f"initrd-{krel}.img"):
        yield paths.boot / name, Place.PLAIN
    with contextlib.suppress(OSError, UnicodeDecodeError):
        package = (paths.modulesd(krel) / "pkgbase").read_text().strip()
        if package and "/" not in package:
            yield paths.boot / f"initramfs-{package}.img", Place.PACKAGE
            yield paths.boot / f"booster-{package}.img", Place.PACKAGE
    for top in (paths.at("efi"), paths.at("boot/efi"), paths.boot):
        yield from ((path, Place.ENTRY) for path in sorted(top.glob(f"*/{_plain(krel)}/initrd*")))
        yield from ((path, Place.ENTRY) for path in sorted(top.glob(f"EFI/Linux/*{_plain(krel)}*.efi")))


def _plain(krel: str) -> str:
    """Nothing in it is a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in krel)


def identify(image: Path) -> tuple[int, ...]:
    """Changes whenever the image is written or replaced."""
    info = image.stat()
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
