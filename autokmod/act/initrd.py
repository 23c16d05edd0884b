"""Make a kernel's initrd anew without ever risking the one that stands.

The new image is made beside it, looked into, and only then renamed over it. What stood before stays as PREVIOUS until
the kernel has booted well. What a generator says of itself proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autokmod.act.former import beside, forget_other, has_links, is_aside, keep_previous, put_back, set_aside, take_over
from autokmod.act.generators import Generator
from autokmod.errors import AutokmodError
from autokmod.files import fsync_dir
from autokmod.observe.initrd import ASIDE, NEW, PREVIOUS
from autokmod.paths import Paths
from autokmod.run import Cancel, run

AT_WORK = {"AUTOKMOD_AT_WORK": "1"}  # our plugins of kernel-install, run below this, would wait for us
SPARE = 1.2  # a new image may be somewhat larger than the present one


class InitrdFailed(AutokmodError):
    """No new image stands; the one that stood is as it was."""

    def __init__(self, image: str, why: str, hint: str = "") -> None:
        super().__init__(image, why, hint)
        self.image, self.why, self.hint = image, why, hint

    def __str__(self) -> str:
        return f"{self.image} was not made anew: {self.why}"


@dataclass(slots=True)
class Draft:
    """A new image that is not trusted yet."""

    image: Path
    path: Path  # to be looked into: beside the image, or the image itself where the generator knows no other way
    published: bool = False

    def publish(self) -> None:
        forget_other(self.image, self.path)
        if self.path != self.image:
            take_over(self.path, self.image)
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
        set_aside(image)
    try:
        _run(paths, generator, krel, image, timeout_s, cancel)
        if not draft.path.is_file() or draft.path.stat().st_size == 0:
            raise InitrdFailed(paths.inside(image), f"{generator.name} ended well, and made no image")
        yield draft
    finally:
        if not draft.published and generator.in_place:
            put_back(image, is_going)
        elif not draft.published:
            draft.path.unlink(missing_ok=True)


def _run(paths: Paths, generator: Generator, krel: str, image: Path, timeout_s: float, cancel: Cancel) -> None:
    argv = generator.make(krel, paths.inside(image), paths.inside(beside(image, NEW)))
    try:
        run(paths.command(argv), timeout_s=timeout_s, cancelled=cancel, env=AT_WORK)
    except AutokmodError as exc:
        hint = f"run '{generator.by_hand.format(krel=krel)}' and see what it says"
        raise InitrdFailed(paths.inside(image), str(exc), hint) from exc


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
        return not is_aside(image)
    return not beside(image, PREVIOUS).exists() and not has_links(beside(image, NEW))


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"


def tell(paths: Paths, generator: Generator, krel: str, image: Path, *, timeout_s: float) -> str | None:
    """Boot loaders that must know of a new image. What went wrong, if anything did."""
    if generator.after is None:
        return None
    argv = generator.after(krel, paths.inside(image))
    if not paths.at(argv[-1]).is_dir():
        return None
    try:
        run(paths.command(argv), timeout_s=timeout_s, env=AT_WORK)
    except AutokmodError as exc:
        return str(exc)
    return None
