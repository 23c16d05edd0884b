"""Values that are kept as long as stat says the same of the files that they were made from."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
Identity = tuple[int, int, int, int, int]
# A file that changed this shortly before it was looked at may change again within the same tick of the file system's
# clock: nothing is kept of it.
RACY_NS = 2_000_000_000


def identify(path: str) -> Identity | None:
    """Of what a path leads to; None where there is nothing."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


class StatCache(Generic[K, V]):
    """At most `most` values; those asked for longest ago go first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: dict[K, tuple[V, Sequence[str], list[Identity | None]]] = {}

    def get(self, key: K) -> V | None:
        kept = self._kept.pop(key, None)
        if kept is None or [identify(file) for file in kept[1]] != kept[2]:
            return None
        self._kept[key] = kept
        return kept[0]

    def values(self) -> list[V]:
        """Valid or not."""
        return [kept[0] for kept in self._kept.values()]

    def keep(self, key: K, value: V, files: Iterable[str]) -> V:
        """`files`: all that the value depends on; for one that does not exist, that it does not."""
        names = tuple(files)
        seen = [identify(file) for file in names]
        newest = max((max(i[3], i[4]) for i in seen if i is not None), default=0)
        if newest <= time.time_ns() - RACY_NS:
            self._kept[key] = (value, names, seen)
            while len(self._kept) > self.most:
                del self._kept[next(iter(self._kept))]
        return value
