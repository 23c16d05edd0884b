"""When to look again at what this boot has loaded: a module that comes up tells nobody."""

from __future__ import annotations

import time
from collections.abc import Callable

from autokmod.daemon.loop import Loop

LATE_S = (60.0, 300.0, 900.0)  # after the daemon's start; never by itself after that
NEAR_S = 1.0  # a timer's own inaccuracy, and more


def late_s(age_s: float) -> float | None:
    """How long to wait for the next look; None: there is none. `age_s`: the daemon's."""
    return next((at - age_s for at in LATE_S if at - age_s >= NEAR_S), None)


class Late:
    """Where nothing is missing, nothing is waited for. On the loop's thread only."""

    def __init__(self, loop: Loop, look: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._loop, self._look, self._clock = loop, look, clock
        self._began_at = clock()
        self._timer: int | None = None

    @property
    def is_waiting(self) -> bool:
        return self._timer is not None

    def looked(self, *, is_open: bool) -> None:
        """`is_open`: something may still come."""
        if self._timer is not None:
            self._loop.forget(self._timer)
        wait = late_s(self._clock() - self._began_at) if is_open else None
        self._timer = self._loop.after(wait, self._again) if wait is not None else None

    def _again(self) -> None:
        self._timer = None
        self._look()
