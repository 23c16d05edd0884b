"""inotify, as hints: something about the kernels, the sources, the spool or the configuration may have changed.

Every event that concerns anybody leads to a new look at which directories there are. Lost events (an overflow, a
directory deleted, moved or unmounted) are hints of everything: the disk is looked at, the event is not believed.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from inotify_simple import INotify, flags

from autokmod import journal
from autokmod.daemon.watchlist import SPOOL, Hint, Interest, find_directories
from autokmod.events import Event
from autokmod.paths import Paths

MASK = (
    flags.CLOSE_WRITE
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.DELETE
    | flags.CREATE
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)
LOST = flags.Q_OVERFLOW | flags.IGNORED | flags.UNMOUNT | flags.DELETE_SELF | flags.MOVE_SELF
MAX_WALKS = 10  # against something that makes directories faster than they are watched
ALL = frozenset(Hint)

log = journal.get()


def _is_begun(path: Path, mask: int) -> bool:
    """A file that was only just created: its writer will close it, which tells that it is whole."""
    return bool(mask & flags.CREATE) and not mask & flags.ISDIR and not path.is_symlink()


class Watcher:
    """Raises OSError where the system has no inotify instance left."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._inotify = INotify()
        self._watches: dict[int, tuple[Path, frozenset[Interest]]] = {}
        self._is_limited = False
        self._walk()

    def fileno(self) -> int:
        return int(self._inotify.fileno())

    def close(self) -> None:
        self._inotify.close()

    def read(self) -> frozenset[Hint]:
        """To be called when there is something to read. What is watched is then up to date again."""
        hints: frozenset[Hint] = frozenset()
        has_moved = False
        for wd, mask, _, name in self._inotify.read(timeout=0):
            if mask & flags.Q_OVERFLOW:
                return ALL | self._walk()
            concerned = self._concerned(wd, mask, name)
            hints |= {i.hint for i in concerned}
            has_moved = has_moved or any(mask & LOST or mask & flags.ISDIR or i is not SPOOL for i in concerned)
        return hints | self._walk() if has_moved else hints

    def _concerned(self, wd: int, mask: int, name: str) -> frozenset[Interest]:
        if wd not in self._watches:
            return frozenset()  # of a watch that was given up
        directory, interests = self._watches[wd]
        if mask & flags.IGNORED:
            del self._watches[wd]
        if mask & LOST:
            return interests
        if _is_begun(directory / name, mask):
            return frozenset()
        return frozenset(i for i in interests if i.concerns(name))

    def _walk(self) -> frozenset[Hint]:
        """Watch what is there now. A directory that is newly watched may have been filled before: that is a hint."""
        hints: frozenset[Hint] = frozenset()
        for _ in range(MAX_WALKS):
            new = self._update()
            if not new:
                break
            hints |= new
        return hints

    def _update(self) -> frozenset[Hint]:
        before = set(self._watches)
        wanted = find_directories(self._paths)
        now: dict[int, tuple[Path, frozenset[Interest]]] = {}
        for directory, interests in wanted.items():
            wd = self._add(directory)
            if wd is not None:  # two names of one directory are one watch
                now[wd] = (directory, interests | now.get(wd, (directory, frozenset()))[1])
        for wd in before - set(now):
            self._remove(wd)
        old, self._watches = self._watches, now
        none: tuple[Path, frozenset[Interest]] = (self._paths.root, frozenset())
        return frozenset(i.hint for wd in now for i in now[wd][1] - old.get(wd, none)[1])

    def _add(self, directory: Path) -> int | None:
        try:
            return int(self._inotify.add_watch(directory, MASK))
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                self._complain()
            elif exc.errno not in (errno.ENOENT, errno.ENOTDIR):
                log.warning(f"{directory} cannot be watched: {os.strerror(exc.errno or 0)}")
            return None

    def _remove(self, wd: int) -> None:
        try:
            self._inotify.rm_watch(wd)
        except OSError as exc:
            if exc.errno != errno.EINVAL:  # the directory took its watch with it
                raise

    def _complain(self) -> None:
        if not self._is_limited:
            log.warning(
                "not everything can be watched: fs.inotify.max_user_watches is reached; new kernels are still noticed "
                "through the package manager's hooks",
                kind=Event.WATCH_LIMIT,
            )
        self._is_limited = True
