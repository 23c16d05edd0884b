"""What an image would be without the overlays that autokmod appended: what a new overlay is made for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.observe.image.contents import ROOTS, Image, read_image
from autokmod.observe.image.cpio import Entry
from autokmod.observe.image.kernels import BOOSTER, MODULES, entries_of, path_below, places_of
from autokmod.observe.image.layers import lay_over
from autokmod.observe.image.segments import PLAIN, Segment
from autokmod.observe.modtree import SUFFIXES

MARK = "autokmod-overlay"  # in a kernel's modules directory: by it an overlay is known


@dataclass(frozen=True, slots=True)
class Base:
    path: str
    is_uki: bool
    overlays: tuple[tuple[int, int], ...]  # where the former ones begin and end
    modules: Mapping[str, bytes | None]  # path below the modules directory → content, where the disk has no such file


def read_base(image: str, krel: str, modulesd: Path) -> Base:
    """Raises FormatError: damaged, or nothing that can be laid over; OSError."""
    return base_in(read_image(image, lambda path: is_unknown(path, krel, modulesd)), krel)


def is_unknown(path: str, krel: str, modulesd: Path) -> bool:
    """A module that the disk does not have: its content is wanted."""
    if not path.endswith(SUFFIXES) or not path.startswith(places_of(krel)):
        return False
    return not os.path.isfile(f"{modulesd}/{path_below(path, krel)}")


def base_in(image: Image, krel: str) -> Base:
    """`image` was read with the content of what `is_unknown`. Raises FormatError."""
    hiding = next((path for path in image.opaque if path in ROOTS), None)
    if hiding is not None:
        raise FormatError(image.path, f"its loader leaves all behind for what {hiding} holds: nothing is laid over it")
    if BOOSTER in image.files:
        raise FormatError(image.path, "booster's loader knows no modules but those it made a list of")
    ours = [s for s in image.segments if is_overlay(s, krel)]
    files = lay_over(entry for s in image.segments if s not in ours for entry in s.entries) if ours else image.files
    top = files.get("lib")
    if top is not None and stat.S_ISDIR(top.mode):
        why = "its /lib is a directory of its own, and no link to /usr/lib: nothing is laid over it"
        raise FormatError(image.path, why)
    modules = {path: e.content for path, e in entries_of(files, krel).items() if is_module(path, e)}
    return Base(image.path, image.is_uki, tuple((s.offset, s.end) for s in ours), modules)


def is_overlay(segment: Segment, krel: str) -> bool:
    mark = f"{MODULES}/{krel}/{MARK}"
    return segment.kind == PLAIN and any(e.path == mark for e in segment.entries)


def without_overlays(data: bytes, base: Base) -> bytes:
    """Overlays are as long as a multiple of four bytes: what may follow them stays where a kernel takes it."""
    return b"".join(_between(data, base.overlays))


def _between(data: bytes, holes: tuple[tuple[int, int], ...]) -> Iterator[bytes]:
    at = 0
    for start, end in holes:
        yield data[at:start]
        at = end
    yield data[at:]


def is_module(path: str, entry: Entry) -> bool:
    return path.endswith(SUFFIXES) and (entry.is_file or entry.is_symlink)
