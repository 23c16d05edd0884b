"""The thread that takes due jobs from the queue and has the engine do them, one after another.

It sleeps until it is woken or until the next delayed job is due. When it is stopped, the running job's commands are
ended and the job stays in the spool.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from autokmod import journal
from autokmod.config import RetryConfig
from autokmod.errors import AutokmodError, CommandFailed
from autokmod.events import Event
from autokmod.jobs.publishing import unattended
from autokmod.jobs.queue import Queue
from autokmod.jobs.retry import delay_s
from autokmod.model import Job, JobResult, Verb
from autokmod.run import Cancel

REST_S = 30.0  # with nothing to do for so long, the engine may rest

Progress = Callable[[str], None]

log = journal.get()


class Engine(Protocol):
    """The worker closes the engines that it is given."""

    def close(self) -> None: ...

    def rest(self) -> None: ...

    def kernels_to_check(self) -> tuple[str, ...]: ...

    def run_job(self, job: Job, cancel: Cancel, progress: Progress) -> JobResult: ...


class Worker(threading.Thread):
    """`progress`, `ended` and `idle` (nothing is due) are called on this thread: they must hand the word on and return.
    `working` is around each job.
    """

    def __init__(
        self,
        queue: Queue,
        engine: Engine,
        *,
        progress: Callable[[Job, str], None],
        ended: Callable[[], None],
        clock: Callable[[], float] = time.time,
        working: Callable[[Job], AbstractContextManager[None]] = unattended,
        idle: Callable[[], None] = lambda: None,
        rest_s: float = REST_S,
    ) -> None:
        super().__init__(name="worker")
        self._queue, self._progress, self._ended, self._clock = queue, progress, ended, clock
        self._engine, self._working, self._idle = engine, working, idle
        self._next_engine: Engine | None = None
        self._changed = threading.Condition()
        self._stopping = self._holding = self._has_worked = False
        self._rest_s = rest_s
        self._running: tuple[int, Cancel] | None = None
        self._failures: dict[str, str] = {}  # job's name → what was said when it failed last

    # ---- from other threads ----------------------------------------------------------------------

    def wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def hold(self, *, on: bool) -> None:
        """Begin no new job for the time being."""
        with self._changed:
            self._holding = on
            self._changed.notify()

    def stop(self) -> None:
        """End the running job's commands and leave. The thread may be joined then."""
        with self._changed:
            self._stopping = True
            if self._running:
                self._running[1].cancel()
            self._changed.notify()

    def cancel(self, job_id: int) -> None:
        """Raises UnknownJob."""
        with self._changed:
            if self._running and self._running[0] == job_id:
                self._running[1].cancel()
                return
        self._queue.withdraw(job_id)

    def use(self, engine: Engine, retry: RetryConfig) -> None:
        """From the next job on: the configuration was read anew."""
        with self._changed:
            if self._next_engine:
                self._next_engine.close()
            self._next_engine, self._queue.retry = engine, retry
        self.wake()

    def close(self) -> None:
        """When it has ended, or never began."""
        for engine in filter(None, (self._engine, self._next_engine)):
            engine.close()

    # ---- the thread ------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            while (job := self._next()) is not None:
                self._do(job)
        finally:
            self._ended()

    def _next(self) -> Job | None:
        """Sleeps until there is a job; None when it is time to leave."""
        with self._changed:
            while not self._stopping:
                self._change_engine()
                job, wait_s = (None, None) if self._holding else self._take()
                if job is not None:
                    self._running = (job.id, Cancel())
                    self._has_worked = True
                    return job
                self._idle()
                self._sleep(wait_s)
        return None

    def _sleep(self, wait_s: float | None) -> None:
        """Until woken, or so long. After work once no longer than REST_S: what then is still idle is at rest."""
        rests = self._has_worked and (wait_s is None or wait_s > self._rest_s)
        was_woken = self._changed.wait(self._rest_s if rests else wait_s)
        if rests and not was_woken:
            self._engine.rest()
            self._has_worked = False

    def _change_engine(self) -> None:
        if self._next_engine:
            self._engine.close()
            self._engine, self._next_engine = self._next_engine, None

    def _take(self) -> tuple[Job | None, float | None]:
        """The next job, or how long there will be none: None means until woken."""
        try:
            return self._queue.take(), self._queue.due_in_s()
        except OSError as exc:
            log.error(f"the spool cannot be read: {exc}", kind=Event.INTERNAL_ERROR)
            return None, self._queue.retry.max_delay_s

    def _do(self, job: Job) -> None:
        cancel = self._running[1] if self._running else Cancel()
        with journal.context(job=job.id, krel=job.krel):
            with self._working(job):
                result = self._run(job, cancel)
            with self._changed:
                self._running = None
                is_stopping = self._stopping
            if result.result == "done" or not cancel.requested:
                self._close(job, result)
            elif is_stopping:
                self._queue.put_back()
            else:
                self._queue.finish(JobResult("cancelled", result.message))

    def _run(self, job: Job, cancel: Cancel) -> JobResult:
        """Whatever goes wrong in a job is that job's failure: the daemon lives."""
        try:
            if job.verb is Verb.RESCAN:
                return self._rescan(job)
            return self._engine.run_job(job, cancel, lambda text: self._progress(job, text))
        except AutokmodError as exc:
            return JobResult("failed", str(exc), transient=isinstance(exc, CommandFailed) and exc.was_killed)
        except OSError as exc:
            # A full disk, a file that a package manager took away in the same moment: the next look may see better.
            return JobResult("failed", str(exc), transient=True)
        except Exception as exc:
            log.exception(f"{job.name}: {exc!r}", kind=Event.INTERNAL_ERROR)
            return JobResult("failed", f"internal error: {exc!r}")

    def _rescan(self, job: Job) -> JobResult:
        krels = self._engine.kernels_to_check()
        for krel in krels:
            self._queue.hint(krel, job.why)
        return JobResult("done", f"{len(krels)} kernels will be looked at")

    def _close(self, job: Job, result: JobResult) -> None:
        retry, failures = self._queue.retry, job.attempt + 1
        wait_s = delay_s(failures, retry, patient=result.patient) if result.transient else None
        if result.result == "failed" and wait_s is not None:
            self._say_delay(job, result, wait_s)
            self._queue.delay(self._clock() + wait_s, result.message)
            return
        self._say_failure(job, result)
        self._queue.finish(result)

    def _say_delay(self, job: Job, result: JobResult, wait_s: float) -> None:
        """Whom it waits for is said once: it is looked for again and again."""
        text = f"{job.name}: {result.message}; will be tried again in {wait_s:.0f} s"
        if not result.patient:
            log.warning(text, kind=Event.JOB_DELAYED)
        elif job.last_error != result.message:
            log.info(text, kind=Event.JOB_DELAYED)

    def _say_failure(self, job: Job, result: JobResult) -> None:
        """Once, not at every look: whatever a package manager does is a reason to look at every kernel."""
        if result.result != "failed":
            self._failures.pop(job.name, None)
        elif self._failures.get(job.name) != result.message:
            self._failures[job.name] = result.message
            log.error(f"{job.name}: {result.message}", kind=Event.JOB_FAILED, result=result.result)
