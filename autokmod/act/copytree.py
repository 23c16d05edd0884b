"""A private copy of a source tree: reflinked where the file system can, owned by whoever will build in it.

Times are kept, because make decides by them what is out of date (an autoconf'ed tree would want autoconf otherwise).
Every file becomes writable for its owner: DKMS builds as root, to whom read-only means nothing.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from autokmod.observe.tree import Entry, Tree
from autokmod.sandboxcmd import User

# What copy_file_range(2) says where it cannot: other file system, none of its files, an old kernel.
CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def copy_tree(tree: Tree, target: Path, owner: User | None) -> None:
    """`target` must not exist. OSError travels: disk full, a source that changes meanwhile."""
    target.mkdir(mode=0o755)
    for entry in tree.entries:  # in order of path: a directory comes before what it holds
        place = os.path.join(target, entry.path)
        if entry.is_dir:
            os.mkdir(place)
        elif entry.link is not None:
            os.symlink(entry.link, place)
        else:
            _copy_file(os.path.join(tree.top, entry.path), place)
    for entry in reversed(tree.entries):
        _dress(entry, os.path.join(target, entry.path), owner)
    if owner is not None:
        os.chown(target, owner.uid, owner.gid)


def _copy_file(source: str, place: str) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as src, open(place, "xb") as dst:
        try:
            while os.copy_file_range(src.fileno(), dst.fileno(), 1 << 30):
                pass
        except OSError as exc:
            if exc.errno not in CANNOT:
                raise
            src.seek(0)
            dst.seek(0)
            shutil.copyfileobj(src, dst, 1 << 20)


def _dress(entry: Entry, place: str, owner: User | None) -> None:
    """Directories last, from within: making a file in one changes its time."""
    if owner is not None:
        os.chown(place, owner.uid, owner.gid, follow_symlinks=False)
    if entry.link is None:
        least = 0o700 if entry.is_dir else 0o600
        os.chmod(place, (stat.S_IMODE(entry.stat.st_mode) & 0o777) | least)
    times = (entry.stat.st_atime_ns, entry.stat.st_mtime_ns)
    os.utime(place, ns=times, follow_symlinks=False)
