"""Until jobs end: told by the daemon where it is on the bus, else seen in the spool."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from autokmod.ctl.view import take_jobs
from autokmod.errors import AutokmodError, DaemonUnavailable
from autokmod.model import Job, JobState
from autokmod.observe.machine import is_daemon_running
from autokmod.paths import Paths

if TYPE_CHECKING:
    from autokmod.ctl.client import Endings

LOOK_S = 0.2  # between two looks at the spool, where nobody tells
PATIENCE_S = 5.0  # with somebody who tells: a signal dies with its sender
LAST_WORD_S = 2.0  # the job's file goes a moment before its end is told


class Waiter:
    """To be made before the work is queued, so that no end is missed."""

    def __init__(self, paths: Paths) -> None:
        self._paths, self._endings = paths, _listen()
        self._names: set[str] = set()

    def expect(self, krels: Collection[str]) -> None:
        self._names |= {f"reconcile-{krel}" for krel in krels}

    def until_done(self, krels: Collection[str] | None) -> bool:
        """None: every job. False where jobs are left and nobody is there to take them."""
        while names := {job.name for job in take_jobs(self._paths) if _is_open(job, krels)}:
            self._names |= names
            if not is_daemon_running(self._paths):
                return False
            self._sleep()
        return True

    def outcomes(self) -> list[dict[str, Any]]:
        """What the jobs that were waited for ended with, as GetJob tells it. Nothing where nobody told.

        More than one of a name where its intent came again meanwhile: one was cancelled, and the next is done.
        """
        if self._endings is None:
            return []
        deadline = time.monotonic() + LAST_WORD_S
        while self._names - set(self._endings.seen.values()) and (left := deadline - time.monotonic()) > 0:
            if not is_daemon_running(self._paths):
                break
            self._endings.wait(left)
        return [_outcome(number) for number, name in self._endings.seen.items() if name in self._names]

    def _sleep(self) -> None:
        if self._endings is None:
            time.sleep(LOOK_S)
        else:
            self._endings.wait(PATIENCE_S)


def _listen() -> Endings | None:
    try:
        from autokmod.ctl.client import Endings  # gi is slow to import, and missing in small systems

        return Endings()
    except (ImportError, DaemonUnavailable):
        return None


def _outcome(number: int) -> dict[str, Any]:
    from autokmod.ctl import client  # as above

    try:
        return client.get_job(number)
    except AutokmodError:  # it left in the meantime
        return {"id": number}


def _is_open(job: Job, krels: Collection[str] | None) -> bool:
    mine = krels is None or job.krel in krels
    return mine and job.state is not JobState.DELAYED
