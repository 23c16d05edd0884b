"""The queue as its files tell it, for who only looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from autokmod.config import RetryConfig
from autokmod.errors import FormatError
from autokmod.files import read_json
from autokmod.jobs.retry import due_in_s
from autokmod.jobs.spool import Entry, Spool
from autokmod.jsonvalue import from_json
from autokmod.model import Job, JobState
from autokmod.observe.machine import is_daemon_running
from autokmod.paths import Paths

if TYPE_CHECKING:
    from autokmod.jobs.ledger import Known


def read_jobs(paths: Paths, retry: RetryConfig, now: float) -> tuple[Job, ...]:
    """Oldest first. What the daemon's notes say of an intent that came again since is about the former one."""
    entries = Spool(paths).read()[0]
    if not entries:
        return ()
    notes, running = _read_notes(paths)
    running = running if running and is_daemon_running(paths) else ""
    return tuple(_job(entry, notes.get(entry.job.name), running, retry, now) for entry in entries)


def _read_notes(paths: Paths) -> tuple[Mapping[str, Known], str]:
    """Numbers and attempts are worth nothing when damaged: the jobs themselves are in the spool."""
    from autokmod.jobs.ledger import FORMAT, Saved  # brings structlog: only where something is queued

    try:
        saved = from_json(Saved, read_json(paths.queue), str(paths.queue))
    except (FileNotFoundError, PermissionError, FormatError):
        return {}, ""
    return (saved.jobs, saved.running) if saved.format == FORMAT else ({}, "")


def _job(entry: Entry, known: Known | None, running: str, retry: RetryConfig, now: float) -> Job:
    if known is None or known.stamp != entry.stamp:
        return replace(entry.job, state=JobState.RUNNING) if entry.job.name == running else entry.job
    waiting = JobState.DELAYED if due_in_s(known.not_before, now, retry) else JobState.QUEUED
    state = JobState.RUNNING if entry.job.name == running else waiting
    return replace(
        entry.job,
        id=known.id,
        attempt=known.attempt,
        not_before=known.not_before,
        last_error=known.last_error,
        state=state,
    )
