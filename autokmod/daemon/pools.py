"""Which thread answers a call, and who is told to come back later.

What changes something was permitted, and runs on threads of its own, as does all that root asks: nobody else can fill
them. Everybody else shares the other threads, and no user may have more than WAITING calls there; of what costs much,
one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from autokmod.errors import AutokmodError

THREADS = 4  # of each kind
WAITING = 16  # calls of one user

Leave = Callable[[], None]
Work = Callable[[Leave], None]


class TooMuch(AutokmodError):
    dbus_name = "Busy"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} for this user: ask again when it has answered"


class Pools:
    def __init__(self) -> None:
        self._trusted = ThreadPoolExecutor(THREADS, thread_name_prefix="dbus-trusted")
        self._open = ThreadPoolExecutor(THREADS, thread_name_prefix="dbus")
        self._lock = threading.Lock()
        self._calls: Counter[int] = Counter()  # by user
        self._alone: set[tuple[int, str]] = set()

    def change(self, work: Work) -> None:
        """What the caller is permitted to."""
        self._trusted.submit(work, lambda: None)

    def read(self, uid: int, method: str, work: Work, *, alone: bool) -> None:
        """`work` is given what it has to call before it answers: who has the answer may ask again. `alone`: one at a
        time for each user. Raises TooMuch."""
        with self._lock:
            if alone and (uid, method) in self._alone:
                raise TooMuch(f"{method} is at work")
            if uid != 0 and self._calls[uid] >= WAITING:
                raise TooMuch(f"{WAITING} calls are waiting")
            self._calls[uid] += 1
            if alone:
                self._alone.add((uid, method))
        pool = self._trusted if uid == 0 else self._open
        pool.submit(work, lambda: self._leave(uid, method, alone=alone))

    def _leave(self, uid: int, method: str, *, alone: bool) -> None:
        with self._lock:
            self._calls[uid] -= 1
            if not self._calls[uid]:
                del self._calls[uid]
            if alone:
                self._alone.remove((uid, method))

    def close(self) -> None:
        for pool in (self._trusted, self._open):
            pool.shutdown(cancel_futures=True)
