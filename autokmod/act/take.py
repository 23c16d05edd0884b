"""Taking results out of a directory that hostile code has written. Nothing there is believed.

No link is followed, on no level; only a regular file with one name and a bounded size is read, once, and what was
read is what is checked and stored.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from autokmod.errors import FormatError

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def take_file(top: Path, parts: Sequence[str], *, limit: int) -> bytes:
    """The content of top/PARTS…; `top` itself is trusted. Raises FormatError, FileNotFoundError."""
    shown = "/".join(parts)
    with _open_below(top, parts) as fd:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(shown, "is not a regular file")
        if status.st_nlink != 1:
            raise FormatError(shown, f"is one of {status.st_nlink} names of a file")
        if status.st_size > limit:
            raise FormatError(shown, f"is larger than {limit >> 20} MiB")
        return _read(fd, status.st_size)


def _read(fd: int, size: int) -> bytes:
    """No more than it had when it was looked at: a read of so many bytes takes so much memory, be they there or not."""
    with os.fdopen(os.dup(fd), "rb") as f:
        return f.read(size)


@contextlib.contextmanager
def _open_below(top: Path, parts: Sequence[str]) -> Iterator[int]:
    fd = os.open(top, _FLAGS | os.O_DIRECTORY)
    try:
        for i, part in enumerate(parts):
            is_last = i == len(parts) - 1
            inner = _open_one(fd, part, "/".join(parts[: i + 1]), 0 if is_last else os.O_DIRECTORY)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _open_one(directory: int, name: str, shown: str, flags: int) -> int:
    try:
        return os.open(name, _FLAGS | flags, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as exc:  # a link (ELOOP, or ENOTDIR where a directory is wanted), a socket (ENXIO), …
        raise FormatError(shown, f"is not what it should be: {exc.strerror}") from exc
