"""Directories of work in progress. Each is locked (flock) by whoever works in it, so that what a killed process left
behind can be told from what is in use, and is removed by whoever comes next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from autokmod.run import run

PREFIX = ".work-"
REMOVE_LIMIT_S = 600
TRIES = 20
PAUSE_S = 0.1


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A new directory, gone afterwards unless it was renamed away. Other users may pass through it."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    path, fd = _make_locked(parent)
    try:
        path.chmod(0o711)
        yield path
    finally:
        remove_tree(path)
        os.close(fd)


def sweep(parent: Path) -> int:
    """Remove what nobody holds any more. How many directories that were."""
    swept = 0
    for name in os.listdir(parent):
        if name.startswith(PREFIX):
            fd = _lock(parent / name)
            if fd is not None:
                remove_tree(parent / name)
                os.close(fd)
                swept += 1
    return swept


def _make_locked(parent: Path) -> tuple[Path, int]:
    """Between being made and being locked it may be taken for abandoned: then another one is made."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        fd = _lock(path)
        if fd is not None and path.is_dir():
            return path, fd
        if fd is not None:
            os.close(fd)


def _lock(path: Path) -> int | None:
    """None if somebody holds it, or if it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def remove_tree(path: Path) -> None:
    """Also what a build user made unreadable or nested too deep for shutil.

    The processes of a sandbox that was killed are dying, not yet dead, when run() comes back: what they still write
    is removed at the next try. What stays after the last is left to the next sweep.
    """
    for _ in range(TRIES):
        result = run(["rm", "-rf", "--one-file-system", "--", str(path)], timeout_s=REMOVE_LIMIT_S, check=False)
        if result.returncode == 0:
            return
        time.sleep(PAUSE_S)
