"""An image as a whole: its segments, and the files that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autokmod.errors import FormatError
from autokmod.observe.blob import read_bounded
from autokmod.observe.image.cpio import Entry, Wanted
from autokmod.observe.image.layers import lay_over
from autokmod.observe.image.segments import Segment, read_segments
from autokmod.observe.image.uki import find_initrd, is_uki

SIZE_LIMIT = 2 << 30  # bytes of an image
# Where dracut's loader mounts one as the new root: from then on nothing counts that stands beside it.
ROOTS = ("squash-root.img", "squashfs-root.img", "erofs-root.img", "squash/root.img")


@dataclass(frozen=True, slots=True)
class Image:
    path: str
    segments: tuple[Segment, ...]
    files: Mapping[str, Entry]  # by path; with the content of what was wanted, hard links included
    opaque: tuple[str, ...]  # file systems inside, which hide what they hold
    is_uki: bool = False


def read_image(path: str, wanted: Wanted) -> Image:
    """Raises FormatError, with an offset, where a kernel would not unpack all of it, and OSError."""
    data, start = open_image(path)
    segments = tuple(read_segments(data, path, wanted, start))
    if not any(s.entries for s in segments):
        raise FormatError(path, "there is nothing in it")
    files = lay_over(entry for segment in segments for entry in segment.entries)
    opaque = tuple(p for p, e in files.items() if e.container)
    return Image(path, segments, files, opaque, is_uki(data))


def open_image(path: str) -> tuple[memoryview, int]:
    """The file up to the end of the initrd, and where that begins. Raises FormatError, OSError."""
    data = memoryview(read_bounded(path, limit=SIZE_LIMIT))
    if not data:
        raise FormatError(path, "it is empty")
    start, end = find_initrd(data, path) if is_uki(data) else (0, len(data))
    return data[:end], start
