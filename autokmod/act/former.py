"""What is kept beside a kernel's image: the former one, and copies while something is at work.

At no moment, and after no power cut, there is neither the image nor what it is to be put back from.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from autokmod.errors import AutokmodError, FormatError
from autokmod.files import fsync_dir
from autokmod.observe.image.contents import read_image
from autokmod.observe.image.kernels import is_config, kernels_in
from autokmod.observe.initrd import ASIDE, PART, PREVIOUS, SWAP, find_leftovers, is_of_one_kernel
from autokmod.paths import Paths

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without hard links say


class NoPrevious(AutokmodError):
    """There is no former image to put back."""

    dbus_name = "NoPrevious"

    def __init__(self, krel: str, why: str) -> None:
        super().__init__(krel, why)
        self.krel, self.why = krel, why

    def __str__(self) -> str:
        return f"there is no former initrd of {self.krel} to put back: {self.why}"


def beside(image: Path, suffix: str) -> Path:
    return image.with_name(image.name + suffix)


def take_over(new: Path, image: Path) -> None:
    """Its owner and mode; and all of it on the disk, before its name is."""
    info = image.stat()
    os.chown(new, info.st_uid, info.st_gid)
    os.chmod(new, stat.S_IMODE(info.st_mode))
    _sync(new)


def forget_other(image: Path, new: Path) -> None:
    """What is named after a package was kept for whichever kernel that package had then."""
    previous = beside(image, PREVIOUS)
    if is_of_one_kernel(image) or not previous.exists():
        return
    try:
        former, present = (kernels_in(read_image(str(path), is_config)) for path in (previous, new))
    except FormatError:
        return
    if former and present and not former & present:
        previous.unlink()


def keep_previous(image: Path) -> None:
    """The image that booted last, or that the kernel came with: not one of those that were made since."""
    previous = beside(image, PREVIOUS)
    if not previous.exists():
        _keep(image, previous)


def _keep(image: Path, name: Path) -> None:
    try:
        os.link(image, name)
    except OSError as exc:
        if exc.errno not in NO_LINKS:
            raise
        _copy(image, name)


def set_aside(image: Path) -> None:
    if not is_aside(image):
        _copy(image, beside(image, ASIDE))


def is_aside(image: Path) -> bool:
    """A copy that is there already is of a run that a power cut ended: the image may be half of what it was to be."""
    return beside(image, ASIDE).exists() and _is_damaged(image)


def put_back(image: Path, is_going: Callable[[], bool]) -> None:
    if not image.exists() and is_going():
        beside(image, ASIDE).unlink()
        return
    os.replace(beside(image, ASIDE), image)
    fsync_dir(image.parent)


def _is_damaged(image: Path) -> bool:
    try:
        read_image(str(image), lambda _: False)
    except FormatError:
        return True
    return False


def _copy(source: Path, target: Path) -> None:
    """Images may hold keys: nobody else may read what is not whole yet."""
    half = beside(target, PART)
    half.unlink(missing_ok=True)
    try:
        os.close(os.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        shutil.copy2(source, half)
        _sync(half)
        os.replace(half, target)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def restore(image: Path) -> None:
    """PREVIOUS becomes the image again, and the image PREVIOUS; at no moment there is none.

    Raises FileNotFoundError where there is no PREVIOUS.
    """
    previous, swap = beside(image, PREVIOUS), beside(image, SWAP)
    swap.unlink(missing_ok=True)
    os.stat(previous)
    if image.exists():
        _keep(image, swap)
    os.replace(previous, image)
    if swap.exists():
        os.replace(swap, previous)
    fsync_dir(image.parent)


def forget_leftovers(paths: Paths, krel: str) -> None:
    """What was kept beside the image of a kernel that is gone: nobody else removes it."""
    for path in list(find_leftovers(paths, krel)):
        path.unlink(missing_ok=True)
        if path.parent.name == krel:  # a boot loader entry's, where nothing else may be left
            with suppress(OSError):
                path.parent.rmdir()


def forget_previous(image: Path) -> bool:
    previous = beside(image, PREVIOUS)
    was_there = previous.exists()
    previous.unlink(missing_ok=True)
    return was_there


def has_links(name: Path) -> bool:
    """FAT has none. Tried with a name that nobody has, since a link changes what `stat` says of a file."""
    other = name.with_name(name.name + PART)
    try:
        for path in (name, other):
            path.unlink(missing_ok=True)
        name.touch(mode=0o600)
        os.link(name, other)
    except OSError as exc:
        if exc.errno not in NO_LINKS:
            raise
        return False
    finally:
        name.unlink(missing_ok=True)
        other.unlink(missing_ok=True)
    return True
