"""Archives of the newc kind, as init/initramfs.c of the kernel reads them, but for what it lets pass in silence.

A header is "070701" (or "070702", with a sum over the content) and thirteen numbers of eight hex digits. Header with
name, and content, are each filled up to four bytes, counted from where the unpacked stream begins.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from autokmod.observe.image.reader import Reader

MAGIC, MAGIC_SUMMED = b"070701", b"070702"
HEADER = 6 + 13 * 8
TRAILER = "TRAILER!!!"
NAME_LIMIT = 4096  # PATH_MAX
ENTRY_LIMIT = 400_000
CONTAINERS = ((0, b"hsqs", "squashfs"), (1024, b"\xe2\xe1\xf5\xe0", "erofs"))  # where each mark stands
HEAD = 1028  # bytes in which they all are
KEPT_LIMIT = 1 << 30  # bytes of one file
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    path: str  # without "./" and leading slash
    mode: int
    size: int
    link: tuple[int, int, int, int] | None  # archive, device and inode: entries that share it are one file
    content: bytes | None  # of what was wanted, and of symlinks
    container: str = ""  # the kind of file system that it is
    header: bytes = field(default=b"", repr=False, compare=False)  # as it stands there
    name: bytes = field(default=b"", repr=False, compare=False)  # the same, up to its first zero

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)


Wanted = Callable[[str], bool]  # path → whether its content is to be kept


def read_archive(reader: Reader, wanted: Wanted, number: int) -> Iterator[Entry]:
    """One, up to its trailer. `number`: of the archive, in the image. Raises FormatError."""
    if reader.at % 4:
        raise reader.fail("an archive does not begin at a multiple of four bytes")
    for _ in range(ENTRY_LIMIT):
        entry = _read_entry(reader, wanted, number)
        if entry is None:
            return
        yield entry
    raise reader.fail(f"more than {ENTRY_LIMIT} entries")


def _read_entry(reader: Reader, wanted: Wanted, number: int) -> Entry | None:
    header = reader.take(HEADER)
    summed, fields = parse_header(header, reader)
    ino, mode, _, _, nlink, _, size, major, minor, _, _, name_size, check = fields
    if not 0 < name_size <= NAME_LIMIT:
        raise reader.fail(f"a name of {name_size} bytes")
    raw = reader.take(name_size)
    reader.skip(-reader.at % 4)
    if not raw.endswith(b"\0"):
        raise reader.fail("a name does not end with a zero")
    name = raw.split(b"\0", 1)[0]
    path = name.decode("utf-8", "surrogateescape").removeprefix("./").lstrip("/")
    keep = size <= NAME_LIMIT if stat.S_ISLNK(mode) else wanted(path)  # kernels pass over links with longer targets
    if keep and size > KEPT_LIMIT:
        raise reader.fail(f"{path} has {size} bytes, and is to be looked into")
    content, head, total = _read_content(reader, size, keep=keep, summed=summed)
    if summed and stat.S_ISREG(mode) and total != check:
        raise reader.fail(f"the checksum of {path} is wrong")
    if name == TRAILER.encode():
        if size:
            raise reader.fail("a trailer with content")
        return None
    link = (number, major, minor, ino) if nlink > 1 and stat.S_ISREG(mode) else None
    container = next((kind for at, mark, kind in CONTAINERS if head[at : at + len(mark)] == mark), "")
    return Entry(path, mode, size, link, content, container if stat.S_ISREG(mode) else "", header, name)


def parse_header(header: bytes, reader: Reader) -> tuple[bool, tuple[int, ...]]:
    magic = header[:6]
    if magic not in (MAGIC, MAGIC_SUMMED):
        raise reader.fail(f"no cpio header: {magic!r}")
    try:
        numbers = bytes.fromhex(header[6:].decode("ascii"))
    except ValueError:
        raise reader.fail("a damaged cpio header") from None
    if len(numbers) != 13 * 4:  # fromhex() passes over spaces
        raise reader.fail("a damaged cpio header")
    return magic == MAGIC_SUMMED, tuple(int.from_bytes(numbers[i : i + 4], "big") for i in range(0, 52, 4))


def _read_content(reader: Reader, size: int, *, keep: bool, summed: bool) -> tuple[bytes | None, bytes, int]:
    """All of it, if it is to be kept; how it begins; and the sum of its bytes, if that is asked for."""
    taken = reader.take(size if keep else min(size, HEAD))
    total, left = sum(taken) if summed else 0, size - len(taken)
    while summed and left:
        piece = reader.take(min(left, PIECE))
        total, left = total + sum(piece), left - len(piece)
    reader.skip(left)
    reader.skip(-reader.at % 4)
    return (taken if keep else None), taken[:HEAD], total & 0xFFFFFFFF
