"""Publishing by rename: what a reader finds under a name is whole, also after a power cut."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from autokmod.errors import FormatError

# What these say will not be otherwise at the next try: the file is as good as damaged.
DAMAGE = (errno.EINVAL, errno.EIO, errno.EISDIR, errno.ELOOP)
# rename(2) puts no directory over a file, no file over a directory, and nothing over a full one.
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """For reading. OSError also for what is no regular file: a pipe would keep its reader for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """All of it. OSError as above."""
    with open_regular(path) as f:
        return f.read()


def fsync_dir(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write beside `path`, fsync, rename over it, fsync the directory."""
    fd, tmp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.rename(tmp, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp)
        raise
    fsync_dir(path.parent)


def write_link(path: Path, target: str) -> None:
    """Make `path` a symlink to `target`, replacing whatever file or link stood there, without a gap."""
    tmp = path.parent / f".{path.name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(tmp)
    os.symlink(target, tmp)
    try:
        os.rename(tmp, path)
    except BaseException:
        os.unlink(tmp)
        raise
    fsync_dir(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_file(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def read_json(path: Path, *, limit: int = 16 << 20) -> Any:
    """Raises FormatError where it is not JSON, no file, or larger than `limit` bytes; else OSError."""
    try:
        with open_regular(path) as f:
            data = f.read(limit + 1)
    except OSError as exc:
        if exc.errno in DAMAGE:
            raise FormatError(str(path), f"cannot be read: {exc.strerror}") from exc
        raise
    if len(data) > limit:
        raise FormatError(str(path), f"larger than {limit} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise FormatError(str(path), f"not JSON: {exc}") from exc


def set_aside(path: Path) -> Path:
    """Move a damaged state file out of the way, keeping it for a person to look at."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        os.replace(path, aside)
    except OSError as exc:
        if exc.errno not in IN_THE_WAY:
            raise
        _remove(aside)
        os.replace(path, aside)
    return aside


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock on `path`. The kernel drops it when the process dies.

    Who may open a file may also lock it, so that a lock which plain users can read is one they can keep from us.
    """
    fd = _open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked_at_once(path: Path) -> Iterator[bool]:
    """The same without waiting: False where somebody else holds it."""
    fd = _open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = True
    except BlockingIOError:
        is_ours = False
    try:
        yield is_ours
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
