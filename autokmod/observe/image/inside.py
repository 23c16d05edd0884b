"""File systems inside an image, which hide what they hold, opened with the programs that generators have for it.

dracut packs all but a loader into one of them, and its own lister calls these same programs. That one is not asked
itself: it shows the first segment behind the early ones alone, and up to 059 prints no file out of what is squashed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from autokmod.errors import AutokmodError, FormatError, ToolMissing
from autokmod.observe.blob import read_bounded
from autokmod.observe.image.contents import Image, read_image
from autokmod.observe.image.cpio import Entry, Wanted
from autokmod.run import run

SIZE_LIMIT = 1 << 30  # bytes, packed
UNPACKED_LIMIT = 4 << 30  # bytes of disk
FILE_LIMIT = 256 << 20
TIME_LIMIT_S = 120
PARTS = ("usr/lib/modules", "lib/modules")


class Closed(AutokmodError):
    """What is inside cannot be seen."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def read_inside(image: Image, wanted: Wanted) -> tuple[dict[str, Image], dict[str, str]]:
    """By path: what those hold that can be opened, and why others cannot. Raises FormatError, OSError."""
    sizes = {path: image.files[path].size for path in image.opaque}
    packed = read_image(image.path, lambda path: sizes.get(path, SIZE_LIMIT + 1) <= SIZE_LIMIT).files
    opened: dict[str, Image] = {}
    closed: dict[str, str] = {}
    for path in image.opaque:
        try:
            opened[path] = _read_one(packed.get(path), path, wanted)
        except Closed as exc:
            closed[path] = exc.why
        except OSError as exc:
            closed[path] = f"it cannot be unpacked: {exc.strerror}"
    return opened, closed


def _read_one(packed: Entry | None, path: str, wanted: Wanted) -> Image:
    if packed is None or packed.content is None:
        raise Closed(path, f"it is larger than {SIZE_LIMIT >> 20} MiB, or changes while it is read")
    with tempfile.TemporaryDirectory(prefix="autokmod-inside-") as scratch:
        file, top = Path(scratch, "packed"), Path(scratch, "unpacked")
        file.write_bytes(packed.content)
        _unpack(packed.container, str(file), top, path)
        return Image(path, (), dict(_entries(top, path, wanted)), ())


def _unsquash(file: str, top: str) -> tuple[str, ...]:
    return ("unsquashfs", "-no-progress", "-quiet", "-no-xattrs", "-processors", "1", "-dest", top, file, *PARTS)


def _unerofs(file: str, top: str) -> tuple[str, ...]:
    """It knows no parts."""
    return ("fsck.erofs", f"--extract={top}", "--no-preserve", file)


PROGRAMS: Mapping[str, tuple[Callable[[str, str], tuple[str, ...]], str]] = {
    "squashfs": (_unsquash, "squashfs-tools"),
    "erofs": (_unerofs, "erofs-utils"),
}


def _unpack(kind: str, file: str, top: Path, path: str) -> None:
    argv_for, package = PROGRAMS[kind]
    argv = argv_for(file, str(top))
    try:
        done = run(argv, timeout_s=TIME_LIMIT_S, watch=lambda _: _used(top) > UNPACKED_LIMIT, check=False)
    except ToolMissing as exc:
        raise Closed(path, f"to look into {kind} takes {argv[0]}: install {package}") from exc
    if done.returncode is None:
        raise Closed(path, f"{argv[0]} took too long with it, or wrote too much")
    if done.returncode != 0:
        last = (done.output.strip().splitlines() or ["it does not say why"])[-1]
        raise Closed(path, f"{argv[0]} cannot read it: {last}")


def _used(top: Path) -> int:
    return sum(os.lstat(f"{d}/{name}").st_blocks * 512 for d, _, names in os.walk(top) for name in names)


def _entries(top: Path, path: str, wanted: Wanted) -> Iterator[tuple[str, Entry]]:
    if not os.path.lexists(top / "lib"):
        yield "lib", Entry("lib", stat.S_IFLNK | 0o777, 7, None, b"usr/lib")
    for directory, subdirectories, names in os.walk(top):
        for name in [*subdirectories, *names]:
            file = Path(directory, name)
            inner = str(file.relative_to(top))
            yield inner, _entry(file, inner, path, wanted)


def _entry(file: Path, inner: str, path: str, wanted: Wanted) -> Entry:
    info = file.lstat()
    content: bytes | None = None
    if stat.S_ISLNK(info.st_mode):
        content = os.fsencode(os.readlink(file))
    elif stat.S_ISREG(info.st_mode) and wanted(inner):
        try:
            content = read_bounded(file, limit=FILE_LIMIT)
        except FormatError as exc:
            raise Closed(path, f"{inner} in it is {exc.what}") from exc
    return Entry(inner, info.st_mode, info.st_size, None, content)
