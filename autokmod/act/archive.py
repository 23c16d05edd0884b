"""Archives of the newc kind, from values: the same bytes for the same files, whenever and by whomever they are made.

The layout is that of Documentation/driver-api/early-userspace/buffer-format.rst. Archives may be joined.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from autokmod.observe.image.cpio import MAGIC, TRAILER

FILE, PROGRAM, DIRECTORY, SYMLINK = 0o100644, 0o100755, 0o040755, 0o120777


def archive(files: Mapping[str, bytes], mode: int = FILE, links: Mapping[str, str] | None = None) -> bytes:
    """Path without leading slash → content; `links`: path → target. Their directories come of themselves."""
    targets = {path: target.encode() for path, target in (links or {}).items()}
    count = itertools.count(1)
    out = [_entry(next(count), d, DIRECTORY, b"") for d in _directories([*files, *targets])]
    out += [_entry(next(count), name, mode, data) for name, data in files.items()]
    out += [_entry(next(count), name, SYMLINK, target) for name, target in targets.items()]
    return b"".join((*out, _entry(0, TRAILER, 0, b"")))


def _directories(files: Iterable[str]) -> Iterator[str]:
    """Parents first."""
    found = {str(p) for name in files for p in PurePosixPath(name).parents}
    yield from sorted(found - {"."})


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    raw = name.encode("utf-8", "surrogateescape") + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = MAGIC + b"".join(b"%08x" % f for f in fields) + raw
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
