"""What the files of an image are once the kernel has unpacked all segments, one over the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from autokmod.errors import FormatError
from autokmod.observe.blob import read_bounded
from autokmod.observe.image.cpio import Entry, Wanted
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


def lay_over(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Later entries replace earlier ones. Of hard links, one carries the content for all."""
    files: dict[str, Entry] = {}
    linked: dict[tuple[int, int, int, int], Entry] = {}
    for entry in entries:
        if entry.link is not None and (entry.size or entry.link not in linked):
            linked[entry.link] = entry
        files[entry.path] = entry
    return {path: linked.get(e.link, e) if e.link is not None else e for path, e in files.items()}


def resolve(files: Mapping[str, Entry], path: str, depth: int = 16) -> Entry | None:
    """Through the symlinks on its way (lib → usr/lib), as the kernel in the initrd would find it."""
    parts = PurePosixPath(path).parts
    for i in range(1, len(parts) + 1):
        entry = files.get("/".join(parts[:i]))
        if entry is not None and entry.is_symlink and entry.content is not None and depth:
            target = os.path.join("/".join(parts[: i - 1]), entry.content.decode("utf-8", "surrogateescape"))
            rest = os.path.normpath(os.path.join("/", target, *parts[i:])).lstrip("/")
            return resolve(files, rest, depth - 1)
    return files.get(path)
