"""What most verbs start from: the machine as its disk tells it, and where the answer goes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from autokmod.config import Config
from autokmod.config_load import load_config
from autokmod.ctl.render import guard_sentences
from autokmod.ctl.terminal import Output, choose_style, json_mode
from autokmod.errors import ConfigError, FormatError, UnknownKernel, UsageError
from autokmod.jobs.machine import read_machine_and_next
from autokmod.jobs.queued import read_jobs
from autokmod.model import GuardState, Job, KernelStatus, NextBoot
from autokmod.observe.bootguard import read_guard
from autokmod.observe.machine import is_daemon_running
from autokmod.paths import Paths

# Exit codes of status and ready, systemctl's: the others are those of the errors.
OK, FAILED, NOT_READY, UNKNOWN = 0, 1, 3, 4
DETACHED = 130
GUARD_DAMAGED = "boot guard: what was written down of it is damaged"


@dataclass(frozen=True, slots=True)
class View:
    statuses: tuple[KernelStatus, ...]
    jobs: tuple[Job, ...]
    daemon_running: bool
    config_error: ConfigError | None
    next_boot: NextBoot
    guard: GuardState | None  # None: what was written down of it cannot be read
    guard_lines: tuple[str, ...]

    def kernel(self, krel: str) -> KernelStatus:
        """Raises UnknownKernel."""
        for status in self.statuses:
            if status.krel == krel:
                return status
        raise UnknownKernel(krel)


def paths_of(args: argparse.Namespace) -> Paths:
    """Raises UsageError."""
    root = Path(os.path.abspath(args.root))
    if not root.is_dir():
        raise UsageError(f"--root {args.root}: no such directory")
    return Paths(root)


def output_of(args: argparse.Namespace) -> Output:
    return Output(
        json=json_mode(args.json, tty=sys.stdout.isatty()),
        legend=args.legend,
        pager=args.pager,
        quiet=args.quiet,
        style=choose_style(os.environ, sys.stdout),
    )


def take_jobs(paths: Paths) -> tuple[Job, ...]:
    return read_jobs(paths, _config(paths)[0].retry, time.time())


def take_view(paths: Paths) -> View:
    """A broken configuration does not hide what stands on disk; the caller says that it is broken."""
    config, error = _config(paths)
    now = time.time()
    jobs = read_jobs(paths, config.retry, now)
    statuses, next_boot = read_machine_and_next(paths, config, jobs, now)
    guard = _guard(paths)
    lines = guard_sentences(guard, config.boot_guard) if guard else (GUARD_DAMAGED,)
    return View(statuses, jobs, is_daemon_running(paths), error, next_boot, guard, lines)


def _guard(paths: Paths) -> GuardState | None:
    try:
        return read_guard(paths)
    except (FormatError, OSError):
        return None


def _config(paths: Paths) -> tuple[Config, ConfigError | None]:
    try:
        return load_config(paths), None
    except ConfigError as exc:
        return Config(), exc


def tell_config_error(view: View, output: Output) -> int:
    if view.config_error is None:
        return OK
    output.note(f"configuration error: {view.config_error}")
    return view.config_error.exit_code


def tell_idle_queue(view: View, output: Output) -> None:
    """Jobs that nobody will take."""
    if view.jobs and not view.daemon_running:
        many = f"{len(view.jobs)} jobs wait" if len(view.jobs) > 1 else "a job waits"
        output.note(f"autokmodd is not running, and {many}: {START_IT}")


START_IT = "'systemctl start autokmodd' starts it, 'autokmodd --oneshot' does the work at once"
