"""Whether a package manager is at work. Asked, never taken: platform rule is to look with F_GETLK."""

from __future__ import annotations

import fcntl
import struct

from autokmod.paths import Paths

LOCKS = (
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/lock",
    "usr/lib/sysimage/rpm/.rpm.lock",
    "var/lib/rpm/.rpm.lock",
)
PACMAN = "var/lib/pacman/db.lck"  # exists while pacman works
FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, len, pid


def find_busy_lock(paths: Paths) -> str | None:
    """The lock file that somebody holds, as a path inside the root."""
    for lock in LOCKS:
        if _is_held(paths, lock):
            return f"/{lock}"
    return f"/{PACMAN}" if paths.at(PACMAN).exists() else None


def _is_held(paths: Paths, lock: str) -> bool:
    try:
        with open(paths.at(lock), "rb") as f:
            answer = fcntl.fcntl(f, fcntl.F_GETLK, struct.pack(FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    kind: int = struct.unpack(FLOCK, answer)[0]
    return kind != fcntl.F_UNLCK
