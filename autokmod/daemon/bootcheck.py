"""autokmodd --boot-check: the kernel that just came up lacks something that can be had: now, before anybody logs in.

Most often nothing is missing, which one look at the records tells. What takes long, and every other kernel, is the
daemon's, which starts after this.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

from autokmod import journal
from autokmod.config import Config
from autokmod.daemon.alone import alone
from autokmod.daemon.bounded import LONGEST_S, Bounded, Screen, minutes, time_limit
from autokmod.daemon.sayings import say
from autokmod.decide.need import needs_look
from autokmod.errors import ToolMissing
from autokmod.jobs.booted import compare_boot
from autokmod.jobs.engine import Engine
from autokmod.jobs.machine import read_machine
from autokmod.jobs.queued import read_jobs
from autokmod.jobs.spool import Spool
from autokmod.model import Job, KernelStatus, PlacedFile, Readiness, Verb
from autokmod.paths import Paths
from autokmod.run import run

WHY = "boot-check"
# The distribution's own cold plug, once more: udev and modules-load.d looked for these modules before they were there.
COLD_PLUG = ("systemd-modules-load.service", "systemd-udev-trigger.service")

log = journal.get()


def run_boot_check(paths: Paths, config: Config, krel: str | None = None) -> int:
    """`krel`: None is the running kernel. 0 unless a package that is required is absent from it."""
    limit_s = min(config.boot.time_limit_s, LONGEST_S)
    compare_boot(paths, config, time.time())
    status = _status(paths, config, krel or os.uname().release)
    if status is None or not limit_s or not needs_look(status):
        return _code(status)
    done = _mend(paths, config, status.krel, limit_s) or status
    say(done)
    if _files(done) != _files(status):
        _plug(paths)
    return _code(done)


def _status(paths: Paths, config: Config, krel: str) -> KernelStatus | None:
    now = time.time()
    jobs = read_jobs(paths, config.retry, now)
    return next((s for s in read_machine(paths, config, jobs, now) if s.krel == krel), None)


def _code(status: KernelStatus | None) -> int:
    return 1 if status is not None and status.readiness is Readiness.NOT_READY else 0


def _mend(paths: Paths, config: Config, krel: str, limit_s: float) -> KernelStatus | None:
    screen = Screen()
    screen.say(f"looking at the modules of {krel} ({minutes(limit_s)} at most)")
    with alone(paths), time_limit(limit_s) as cancel, closing(Engine(paths, config, time.time)) as engine:
        result = Bounded(engine, Spool(paths), cancel, screen).do(Job(Verb.RECONCILE, krel, WHY, time.time()))
    if result.result == "cancelled":
        screen.say(f"{krel}: the time is up; autokmodd goes on with it")
        Spool(paths).add(Verb.RECONCILE, krel, WHY)
    done = _status(paths, config, krel)
    if result.result != "cancelled" and done is not None:
        screen.say(f"{krel} is {done.readiness}")
    return done


def _files(status: KernelStatus) -> set[tuple[str, PlacedFile]]:
    return {(p.package, file) for p in status.placements if p.verified for file in p.files}


def _plug(paths: Paths) -> None:
    """autokmod itself may load nothing."""
    if paths.root != Path("/") or not Path("/run/systemd/system").is_dir():
        return
    try:
        run(("systemctl", "--no-block", "--no-ask-password", "restart", *COLD_PLUG), timeout_s=10, check=False)
    except ToolMissing as exc:
        log.warning(f"{exc}: what was just placed is loaded by whoever asks for it")
