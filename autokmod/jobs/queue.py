"""The daemon's queue: what is in the spool, with a number for each job, its attempts, and which one runs.

Any thread may call; what changes is reported in order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from autokmod import journal
from autokmod.config import RetryConfig
from autokmod.errors import FormatError, UnknownJob
from autokmod.events import Event
from autokmod.jobs.ledger import Known, Ledger
from autokmod.jobs.retry import due_in_s
from autokmod.jobs.spool import Entry, Spool, put_aside
from autokmod.model import Job, JobResult, JobState, Verb
from autokmod.paths import Paths

REMEMBERED = 100  # jobs that ended
PRIORITY = {Verb.RESCAN: 0, Verb.REMOVE: 1, Verb.RECONCILE: 2}

log = journal.get()


class ChangeKind(StrEnum):
    NEW = "new"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    kind: ChangeKind
    job: Job
    result: JobResult | None = None  # of REMOVED


class Queue:
    """`report` is called with the lock held: it must hand the change on and return."""

    def __init__(
        self, paths: Paths, retry: RetryConfig, clock: Callable[[], float], report: Callable[[Change], None]
    ) -> None:
        self.spool = Spool(paths)
        self.retry = retry
        self._clock, self._report = clock, report
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._running: Entry | None = None
        self._complained: set[str] = set()
        self._ended: deque[tuple[Job, JobResult]] = deque(maxlen=REMEMBERED)
        self._ledger = Ledger(paths.queue, clock())
        self._known = self._ledger.jobs
        self.spool.recover()

    # ---- asking ----------------------------------------------------------------------------------

    def jobs(self) -> tuple[Job, ...]:
        """Queued, delayed and running, oldest first."""
        with self._lock:
            self.refresh()
            return tuple(sorted(map(self._job, self._entries), key=lambda job: job.created_at))

    def find(self, job_id: int) -> tuple[Job, JobResult | None]:
        """Raises UnknownJob. Those that ended lately come with their result."""
        with self._lock:
            current = {job.id: job for job in self.jobs()}
            if job_id in current:
                return current[job_id], None
            for job, result in reversed(self._ended):
                if job.id == job_id:
                    return job, result
        raise UnknownJob(str(job_id))

    def due_in_s(self) -> float | None:
        """Until the next job may run; None when nothing waits for time to pass."""
        with self._lock:
            waits = [self._due_in_s(name) for name in self._entries if not self._is_running(name)]
        return min(waits, default=None)

    # ---- changing --------------------------------------------------------------------------------

    def add(self, verb: Verb, krel: str, why: str, *, force: bool = False) -> Job:
        with self._lock:
            name = self.spool.add(verb, krel, why, force=force).name
            self.refresh()
            return self._job(name)

    def hint(self, krel: str, why: str, *, changed_at: float = 0.0) -> None:
        """Queue a look at a kernel, unless one is queued. A delayed one keeps its delay, unless something changed."""
        with self._lock:
            self.refresh()
            name = Job(Verb.RECONCILE, krel, why, 0.0).name
            is_queued = name in self._entries and not self._is_running(name)
            is_delayed = is_queued and self._due_in_s(name) > 0
            if not is_queued or (is_delayed and changed_at > self._known[name].tried_at):
                self.add(Verb.RECONCILE, krel, why)

    def refresh(self) -> None:
        """Take up what the spool holds now: number new intents, forget withdrawn ones, put aside what is no job.

        After a restart each job is reported as new once more, with its old number.
        """
        with self._lock:
            entries, problems = self.spool.read()
            self._complain(problems)
            found = {e.job.name: e for e in entries}
            changes = [*self._take_up(found), *self._forget(found)]
            if changes:
                self._ledger.save()
            for change in changes:
                self._report(change)

    def take(self) -> Job | None:
        """The next job that is due, now running. One at a time."""
        with self._lock:
            self.refresh()
            self._withdraw_outdated()
            due = [name for name in self._entries if not self._is_running(name) and not self._due_in_s(name)]
            if self._running or not due:
                return None
            name = min(due, key=lambda n: (PRIORITY[self._entries[n].job.verb], self._entries[n].job.created_at, n))
            self._running = self._entries[name]
            self._ledger.running = name
            self._ledger.save()
            job = self._job(name)
            self._report(Change(ChangeKind.CHANGED, job))
            return job

    def finish(self, result: JobResult) -> None:
        """The running job ended. If its intent came again meanwhile, that is a new job."""
        with self._lock:
            entry, job = self._stop_running()
            try:
                self.spool.remove(entry)
            except OSError as exc:
                return self._keep(job, exc)
            self._end(job, result)
            return self.refresh()

    def delay(self, not_before: float, error: str) -> None:
        """The running job is tried again then; at once if its intent came again meanwhile."""
        with self._lock:
            _, job = self._stop_running()
            self._delay(job, not_before, error)
            self.refresh()

    def put_back(self) -> None:
        """The running job was interrupted: it is queued as if it had not begun."""
        with self._lock:
            _, job = self._stop_running()
            self._report(Change(ChangeKind.CHANGED, self._job(job.name)))
            self.refresh()

    def withdraw(self, job_id: int) -> None:
        """Take a job that does not run out of the queue. Raises UnknownJob."""
        with self._lock:
            job, result = self.find(job_id)
            if result is not None or self._is_running(job.name):
                raise UnknownJob(str(job_id))
            self._withdraw(job.name, "withdrawn")
            self.refresh()

    # ---- inside, with the lock held --------------------------------------------------------------

    def _take_up(self, found: Mapping[str, Entry]) -> Iterator[Change]:
        for name, entry in found.items():
            if self._is_running(name):
                continue  # whether it came again is found out when it ends
            is_new, known = name not in self._entries, self._known.get(name)
            self._entries[name] = entry
            if known is None:
                self._known[name] = Known(self._ledger.number(), entry.stamp)
            elif known.stamp != entry.stamp:
                self._known[name] = Known(known.id, entry.stamp)
            if is_new:
                yield Change(ChangeKind.NEW, self._job(name))
            elif known is None or known.stamp != entry.stamp:
                yield Change(ChangeKind.CHANGED, self._job(name))

    def _forget(self, found: Mapping[str, Entry]) -> Iterator[Change]:
        for name in [n for n in self._known if n not in found and not self._is_running(n)]:
            if name in self._entries:
                yield self._removed(self._job(name), JobResult("cancelled", "its file was deleted"))
            self._entries.pop(name, None)
            del self._known[name]

    def _withdraw_outdated(self) -> None:
        """A kernel that was to be made right, and then was announced to go, is not made right first or after."""
        going = {e.job.krel: e.job.created_at for e in self._entries.values() if e.job.verb is Verb.REMOVE}
        for name, entry in list(self._entries.items()):
            is_older = entry.job.created_at < going.get(entry.job.krel, -1.0)
            if entry.job.verb is Verb.RECONCILE and is_older and not self._is_running(name):
                self._withdraw(name, "the kernel is being removed")

    def _withdraw(self, name: str, why: str) -> None:
        if self.spool.remove(self._entries[name]):
            self._end(self._job(name), JobResult("cancelled", why))

    def _delay(self, job: Job, not_before: float, error: str) -> None:
        known, now = self._known[job.name], self._clock()
        attempt = known.attempt + 1
        self._known[job.name] = replace(known, attempt=attempt, tried_at=now, not_before=not_before, last_error=error)
        self._ledger.save()
        self._report(Change(ChangeKind.CHANGED, self._job(job.name)))

    def _keep(self, job: Job, exc: OSError) -> None:
        """The disk does not let go of the file. Without a delay the job would run over and over."""
        log.error(f"{self.spool.path(job)} cannot be removed: {exc.strerror}", kind=Event.JOB_DELAYED, job=job.id)
        self._delay(job, self._clock() + self.retry.max_delay_s, str(exc))

    def _stop_running(self) -> tuple[Entry, Job]:
        if self._running is None:
            raise RuntimeError("no job is running")
        entry, self._running = self._running, None
        self._ledger.running = ""
        return entry, self._job(entry.job.name)

    def _end(self, job: Job, result: JobResult) -> None:
        self._entries.pop(job.name, None)
        self._known.pop(job.name, None)
        self._ledger.save()
        self._report(self._removed(job, result))

    def _removed(self, job: Job, result: JobResult) -> Change:
        self._ended.append((job, result))
        return Change(ChangeKind.REMOVED, job, result)

    def _tell(self, change: Change) -> None:
        self._report(change)

    def _is_running(self, name: str) -> bool:
        return self._running is not None and self._running.job.name == name

    def _due_in_s(self, name: str) -> float:
        return due_in_s(self._known[name].not_before, self._clock(), self.retry)

    def _job(self, name: str) -> Job:
        entry, known = self._entries[name], self._known[name]
        state = JobState.DELAYED if self._due_in_s(name) else JobState.QUEUED
        return replace(
            entry.job,
            id=known.id,
            attempt=known.attempt,
            not_before=known.not_before,
            last_error=known.last_error,
            state=JobState.RUNNING if self._is_running(name) else state,
        )

    def _complain(self, problems: tuple[FormatError, ...]) -> None:
        for problem in problems:
            if put_aside(problem):
                log.error(f"{problem}; it is no job and was renamed to end in .damaged", kind=Event.STATE_DAMAGED)
            elif problem.path not in self._complained:
                self._complained.add(problem.path)
                log.error(f"{problem}; it is no job and is left alone", kind=Event.STATE_DAMAGED)
