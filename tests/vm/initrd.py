"""Initial RAM disks from values: cpio archives of the newc kind (Documentation/driver-api/early-userspace)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

FILE, PROGRAM, DIRECTORY = 0o100644, 0o100755, 0o040755
MAGIC = b"070701"
END = "TRAILER!!!"


def archive(files: Mapping[str, bytes], mode: int = FILE) -> bytes:
    """Path without leading slash → content; their directories come of themselves. Archives may be joined."""
    count = itertools.count(1)
    out = [_entry(next(count), d, DIRECTORY, b"") for d in _directories(files)]
    out += [_entry(next(count), name, mode, data) for name, data in files.items()]
    return b"".join((*out, _entry(0, END, 0, b"")))


def _directories(files: Mapping[str, bytes]) -> Iterator[str]:
    """Parents first."""
    found = {str(p) for name in files for p in PurePosixPath(name).parents}
    yield from sorted(found - {"."})


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    raw = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = MAGIC + b"".join(b"%08x" % f for f in fields) + raw
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
