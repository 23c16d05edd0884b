"""Jobs in the foreground within a time limit, while a person waits for the machine to go down or to come up.

The person reads the console, or plymouth's screen in front of it: `Screen` writes to both. What belongs into the
journal for later goes there as with every job.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from autokmod import journal
from autokmod.errors import AutokmodError, ToolMissing
from autokmod.events import Event
from autokmod.jobs.engine import Engine
from autokmod.jobs.spool import Spool
from autokmod.model import Job, JobResult
from autokmod.run import Cancel, run

LONGEST_S = 1500  # systemd forces a shutdown through after half an hour, and the units stop waiting before that
PLYMOUTH_S = 5.0

log = journal.get()


class Screen:
    """plymouth's daemon is started at the same moment as we are when the machine goes down, so each line is offered to
    it anew. Not where there is no plymouth, nor to one that takes a line and does not answer: it would hold up each.
    """

    def __init__(self) -> None:
        self._has_plymouth = True

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a console that is closed or full keeps nothing from being done
            sys.stdout.write(f"autokmod: {text}\n")
            sys.stdout.flush()
        self._has_plymouth = self._has_plymouth and _display(f"autokmod: {text}")


def _display(text: str) -> bool:
    """Whether it is worth asking again."""
    try:
        done = run(("plymouth", "display-message", f"--text={text}"), timeout_s=PLYMOUTH_S, check=False)
    except ToolMissing:
        return False
    return done.returncode is not None


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[Cancel]:
    """Cancelled when the time is up, or systemd's patience is: both end what runs, not what is yet to be recorded."""
    cancel = Cancel()
    timer = threading.Timer(min(seconds, LONGEST_S), cancel.cancel)
    timer.start()
    before = signal.signal(signal.SIGTERM, lambda *_: cancel.cancel())
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGTERM, before)
        timer.cancel()
        timer.join()


@dataclass(frozen=True, slots=True)
class Bounded:
    engine: Engine
    spool: Spool
    cancel: Cancel
    screen: Screen

    def do(self, job: Job) -> JobResult:
        """What is not done, or may go better another time, stays in the spool."""
        entries = [e for e in self.spool.read()[0] if e.job.name == job.name]
        with journal.context(job=job.handle, krel=job.krel):
            result = self._run(job)
            if result.result == "failed":
                kind = Event.JOB_DELAYED if result.transient else Event.JOB_FAILED
                log.error(f"{job.name}: {result.message}", kind=kind, result=result.result)
        if result.result == "done" or (result.result == "failed" and not result.transient):
            for entry in entries:
                self.spool.remove(entry)
        return result

    def _run(self, job: Job) -> JobResult:
        try:
            return self.engine.run_job(job, self.cancel, self.screen.say)
        except (AutokmodError, OSError) as exc:
            return JobResult("failed", str(exc), transient=True)


def minutes(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
