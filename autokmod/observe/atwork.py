"""Who else is at work on kernels and images: package managers by their locks, the rest, which take none, by what runs.

Locks are asked for with F_GETLK, never taken.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import struct
import time
from collections.abc import Iterator, Sequence

from autokmod.paths import Paths

LOCKS = {
    "var/lib/dpkg/lock-frontend": "apt or dpkg",
    "var/lib/dpkg/lock": "dpkg",
    "usr/lib/sysimage/rpm/.rpm.lock": "rpm",
    "var/lib/rpm/.rpm.lock": "rpm",
}
ZYPP = "run/zypp.pid"  # the number of a process that may have ended
PACMAN = "var/lib/pacman/db.lck"  # exists while pacman works, and after it was killed
PACMAN_LIMIT_S = 3600.0
FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, len, pid

PROC = "/proc"
# Of those that make an initrd or a boot entry, none takes a lock against the others.
MAKERS = frozenset(
    ("kernel-install", "installkernel", "update-initramfs", "mkinitramfs", "dracut", "mkinitcpio", "booster")
)
HOOKS = "/etc/kernel/"  # what run-parts is given by installkernel and by hand
ARGUMENTS = 3  # of a script: the interpreter, perhaps an option of it, the script


def find_package_manager(paths: Paths) -> str | None:
    """Who holds a package manager's lock, in words."""
    held = ((f"{who} (/{lock})", lock) for lock, who in LOCKS.items())
    found = next((words for words, lock in held if _is_held(paths, lock)), None)
    if found is None and _is_zypper_there(paths):
        found = f"zypper (/{ZYPP})"
    return found or (f"pacman (/{PACMAN})" if _is_recent(paths) else None)


def find_at_work(paths: Paths) -> str | None:
    """Whoever may be making an image or a boot entry, in words: package managers run those who do."""
    return find_package_manager(paths) or next(_makers(paths), None)


def _is_held(paths: Paths, lock: str) -> bool:
    try:
        with open(paths.at(lock), "rb") as f:
            answer = fcntl.fcntl(f, fcntl.F_GETLK, struct.pack(FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    kind: int = struct.unpack(FLOCK, answer)[0]
    return kind != fcntl.F_UNLCK


def _is_zypper_there(paths: Paths) -> bool:
    try:
        number = int(paths.at(ZYPP).read_text())
    except (OSError, ValueError):
        return False
    return number > 0 and os.path.exists(f"{PROC}/{number}")


def _is_recent(paths: Paths) -> bool:
    """Whoever was killed leaves the file behind, for ever: nothing else tells that from somebody at work."""
    try:
        age = time.time() - paths.at(PACMAN).stat().st_mtime
    except OSError:
        return False
    return age < PACMAN_LIMIT_S


# ---- processes -----------------------------------------------------------------------------------


def _makers(paths: Paths) -> Iterator[str]:
    for entry in os.scandir(PROC):
        if not entry.name.isdecimal():
            continue
        maker = maker_of(_command(entry.path))
        if maker is not None and _is_inside(paths, entry.path):
            yield f"{maker} (process {entry.name})"


def _command(process: str) -> list[str]:
    try:
        with open(f"{process}/cmdline", "rb") as f:
            return os.fsdecode(f.read(1 << 16)).split("\0")
    except OSError:
        return []


def maker_of(argv: Sequence[str]) -> str | None:
    """The program of MAKERS that this is, also where an interpreter runs it."""
    names = [posixpath.basename(word) for word in argv[:ARGUMENTS]]
    if "run-parts" in names and any(word.startswith(HOOKS) for word in argv):
        return "run-parts"
    return next((name for name in names if name in MAKERS), None)


def _is_inside(paths: Paths, process: str) -> bool:
    """In the system that this is about. The service may not look at the roots of those who may do more than it may."""
    try:
        root = os.readlink(f"{process}/root")
    except PermissionError:
        return True
    except OSError:  # it has ended
        return False
    return root == str(paths.root)
