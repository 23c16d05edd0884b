"""Make a kernel's initrd anew without ever risking the one that stands.

The new image is made beside it, looked into, and only then renamed over it. What stood before stays as PREVIOUS until
the kernel has booted well. What a generator says of itself proves nothing.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autokmod.act.generators import Generator
from autokmod.errors import AutokmodError, FormatError
from autokmod.files import fsync_dir
from autokmod.observe.image.contents import read_image
from autokmod.observe.image.kernels import is_config, kernels_in
from autokmod.observe.initrd import ASIDE, NEW, PART, PREVIOUS, SWAP, find_leftovers, is_of_one_kernel
from autokmod.paths import Paths
from autokmod.run import Cancel, run

AT_WORK = {"AUTOKMOD_AT_WORK": "1"}  # our plugins of kernel-install, run below this, would wait for us
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without hard links say
SPARE = 1.2  # a new image may be somewhat larger than the present one


class InitrdFailed(AutokmodError):
    """No new image stands; the one that stood is as it was."""

    def __init__(self, image: str, why: str, hint: str = "") -> None:
        super().__init__(image, why, hint)
        self.image, self.why, self.hint = image, why, hint

    def __str__(self) -> str:
        return f"{self.image} was not made anew: {self.why}"


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


@dataclass(slots=True)
class Draft:
    """A new image that is not trusted yet."""

    image: Path
    path: Path  # to be looked into: beside the image, or the image itself where the generator knows no other way
    published: bool = False

    def publish(self) -> None:
        _forget_other(self.image, self.path)
        if self.path != self.image:
            _take_over(self.path, self.image)
            keep_previous(self.image)
            os.replace(self.path, self.image)
        elif beside(self.image, PREVIOUS).exists():
            beside(self.image, ASIDE).unlink()
        else:
            os.replace(beside(self.image, ASIDE), beside(self.image, PREVIOUS))
        self.published = True
        fsync_dir(self.image.parent)


@contextmanager
def drafted(
    paths: Paths,
    generator: Generator,
    krel: str,
    image: Path,
    *,
    timeout_s: float,
    cancel: Cancel,
    is_going: Callable[[], bool] = lambda: False,
) -> Iterator[Draft]:
    """Unless it is published, the image is afterwards what it was. `is_going`: whether one that somebody removed
    meanwhile is to stay away. Raises InitrdFailed, OSError.
    """
    draft = Draft(image, image if generator.in_place else beside(image, NEW))
    beside(image, NEW).unlink(missing_ok=True)
    check_space(paths, image, in_place=generator.in_place)
    if generator.in_place:
        _set_aside(image)
    try:
        _run(paths, generator, krel, image, timeout_s, cancel)
        if not draft.path.is_file() or draft.path.stat().st_size == 0:
            raise InitrdFailed(paths.inside(image), f"{generator.name} ended well, and made no image")
        yield draft
    finally:
        if not draft.published and generator.in_place:
            _put_back(image, is_going)
        elif not draft.published:
            draft.path.unlink(missing_ok=True)


def _run(paths: Paths, generator: Generator, krel: str, image: Path, timeout_s: float, cancel: Cancel) -> None:
    argv = generator.make(krel, paths.inside(image), paths.inside(beside(image, NEW)))
    try:
        run(_inside(paths, argv), timeout_s=timeout_s, cancelled=cancel, env=AT_WORK)
    except AutokmodError as exc:
        hint = f"run '{generator.by_hand.format(krel=krel)}' and see what it says"
        raise InitrdFailed(paths.inside(image), str(exc), hint) from exc


def _inside(paths: Paths, argv: tuple[str, ...]) -> tuple[str, ...]:
    return argv if paths.root == Path("/") else ("chroot", str(paths.root), *argv)


def check_space(paths: Paths, image: Path, *, in_place: bool = False) -> None:
    """For all that is there at once: the new image, the present one, and where no link keeps that, a copy of it.

    A generator that writes in place puts the new image where the present one is, of which a copy is made before. Only
    of a lack is anybody sure: the generator may still fail for want of space elsewhere.
    """
    room, size = os.statvfs(image.parent), max(_sizes(image))
    more = size * (SPARE - 1) if in_place else size * SPARE
    copy = size if _takes_copy(image, in_place=in_place) else 0
    free, needed = room.f_bavail * room.f_frsize, int(more + copy)
    if free < needed:
        directory = paths.inside(image.parent)
        what = "a new image" + (", and a copy of the present one, take" if copy else " takes")
        why = f"{directory} has {_mib(free)} MiB free, and {what} some {_mib(needed)} MiB"
        raise InitrdFailed(paths.inside(image), why, f"remove kernels that are not needed, or enlarge {directory}")


def _sizes(image: Path) -> Iterator[int]:
    """Of the image, which may be half of what it was, and of what is kept beside it."""
    yield image.stat().st_size
    for suffix in (PREVIOUS, ASIDE):
        with suppress(FileNotFoundError):
            yield beside(image, suffix).stat().st_size


def _takes_copy(image: Path, *, in_place: bool) -> bool:
    if in_place:
        return not _is_aside(image)
    return not beside(image, PREVIOUS).exists() and not _has_links(beside(image, NEW))


def _has_links(name: Path) -> bool:
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


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"


def _take_over(new: Path, image: Path) -> None:
    """Its owner and mode; and all of it on the disk, before its name is."""
    info = image.stat()
    os.chown(new, info.st_uid, info.st_gid)
    os.chmod(new, stat.S_IMODE(info.st_mode))
    _sync(new)


def _forget_other(image: Path, new: Path) -> None:
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


def _set_aside(image: Path) -> None:
    if not _is_aside(image):
        _copy(image, beside(image, ASIDE))


def _is_aside(image: Path) -> bool:
    """A copy that is there already is of a run that a power cut ended: the image may be half of what it was to be."""
    return beside(image, ASIDE).exists() and _is_damaged(image)


def _put_back(image: Path, is_going: Callable[[], bool]) -> None:
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


def tell(paths: Paths, generator: Generator, krel: str, image: Path, *, timeout_s: float) -> str | None:
    """Boot loaders that must know of a new image. What went wrong, if anything did."""
    if generator.after is None:
        return None
    argv = generator.after(krel, paths.inside(image))
    if not paths.at(argv[-1].lstrip("/")).is_dir():
        return None
    try:
        run(_inside(paths, argv), timeout_s=timeout_s, env=AT_WORK)
    except AutokmodError as exc:
        return str(exc)
    return None


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
