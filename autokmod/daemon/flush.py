"""autokmodd --flush: what the next boot needs, finished before the machine goes down.

autokmod-flush.service runs it when it is stopped, which is after the daemon, package managers and everybody's sessions
have ended: nobody else is at work then, and no new service could be started any more. What a job of the daemon had
built is in the store; what it was building is begun again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from autokmod import journal
from autokmod.config import Config
from autokmod.daemon.alone import alone
from autokmod.daemon.bounded import LONGEST_S, Bounded, Screen, minutes, time_limit
from autokmod.daemon.sayings import say
from autokmod.decide.need import jobs_before_shutdown
from autokmod.errors import ToolMissing
from autokmod.events import Event
from autokmod.jobs.engine import Engine
from autokmod.jobs.machine import read_machine
from autokmod.jobs.queued import read_jobs
from autokmod.jobs.spool import Spool
from autokmod.model import Job
from autokmod.paths import Paths
from autokmod.run import run

log = journal.get()


def run_flush(paths: Paths, config: Config) -> int:
    """0 when all is done, 1 when something is left for the next start."""
    limit_s = min(config.shutdown.time_limit_s, LONGEST_S)
    if not limit_s or not _is_going_down(paths):
        return 0
    jobs = _due(paths, config)
    return _finish(paths, config, jobs, limit_s) if jobs else 0


def _is_going_down(paths: Paths) -> bool:
    """Not where the service is only stopped, by an upgrade of autokmod or by hand. Another root is in nobody's way."""
    if paths.root != Path("/"):
        return True
    try:
        return run(("systemctl", "is-system-running"), timeout_s=10, check=False).output.strip() == "stopping"
    except ToolMissing:
        return True


def _due(paths: Paths, config: Config) -> tuple[Job, ...]:
    now = time.time()
    jobs = read_jobs(paths, config.retry, now)
    return jobs_before_shutdown(jobs, read_machine(paths, config, jobs, now))


def _finish(paths: Paths, config: Config, jobs: Sequence[Job], limit_s: float) -> int:
    screen = Screen()
    names = ", ".join(dict.fromkeys(job.krel for job in jobs))
    screen.say(f"finishing the modules of {names} before the machine goes down ({minutes(limit_s)} at most)")
    with alone(paths), time_limit(limit_s) as cancel, closing(Engine(paths, config, time.time)) as engine:
        bounded = Bounded(engine, Spool(paths), cancel, screen)
        results = {job.name: bounded.do(job) for job in jobs}
    left = [name for name, result in results.items() if result.result == "cancelled" or result.transient]
    for status in read_machine(paths, config, (), time.time()):
        if status.krel in {job.krel for job in jobs}:
            say(status)
            screen.say(f"{status.krel} is {status.readiness}")
    if left:
        why = "the time was up" if cancel.requested else "it did not work out"
        text = f"not finished before the machine goes down ({why}): {', '.join(left)}; it goes on after the next start"
        screen.say(text)
        log.warning(text, kind=Event.FLUSH_UNFINISHED)
    return 1 if left else 0
