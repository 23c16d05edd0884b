"""The daemon's lock: two that serve one machine would do each job twice."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from autokmod.errors import AutokmodError
from autokmod.paths import Paths

LOCK_TRIES = 40  # in two seconds: the one before us may be on its way out
LOCK_PAUSE_S = 0.05


class AlreadyRunning(AutokmodError):
    def __str__(self) -> str:
        return "another autokmodd is running: see 'systemctl status autokmodd'"


@contextmanager
def alone(paths: Paths) -> Iterator[None]:
    """Hold the daemon's lock. Raises AlreadyRunning."""
    paths.daemon_lock.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(paths.daemon_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    for _ in range(LOCK_TRIES):
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
    raise AlreadyRunning
