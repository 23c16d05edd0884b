"""list-jobs, reconcile, retry, cancel, wait: the queue.

Root writes its intent into the spool, which needs neither daemon nor bus. Everybody else asks the daemon, which asks
polkit.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

from autokmod.ctl.render import clean, machine_lines, table, when
from autokmod.ctl.status import NO_KERNELS, all_ready
from autokmod.ctl.terminal import Output
from autokmod.ctl.view import (
    DETACHED,
    FAILED,
    OK,
    START_IT,
    output_of,
    paths_of,
    take_view,
    tell_config_error,
    tell_idle_queue,
)
from autokmod.ctl.waiting import Waiter
from autokmod.decide.readiness import is_bootable
from autokmod.errors import NotAuthorized, UnknownJob
from autokmod.jobs.spool import Spool
from autokmod.jsonvalue import to_json
from autokmod.model import DecisionKind, Job, KernelStatus, Verb
from autokmod.observe.kernels import read_kernel
from autokmod.observe.machine import is_daemon_running
from autokmod.paths import Paths

WHY = "admin"


def add_parser(sub: Any) -> None:
    jobs = sub.add_parser("list-jobs", help="list what is queued", description="List the jobs that are queued.")
    jobs.set_defaults(run=run_list_jobs)
    reconcile = sub.add_parser(
        "reconcile",
        help="make kernels right",
        description="Queue a look at kernels (default: all), which links, builds and places what is missing.",
    )
    reconcile.add_argument("krels", nargs="*", metavar="KREL")
    reconcile.add_argument("--force", action="store_true", help="try builds again that failed")
    _add_wait(reconcile)
    reconcile.set_defaults(run=run_reconcile)
    retry = sub.add_parser(
        "retry",
        help="try again what failed",
        description="Queue kernels (default: all on which something failed), and try builds again that failed.",
    )
    retry.add_argument("krels", nargs="*", metavar="KREL")
    _add_wait(retry)
    retry.set_defaults(run=run_retry)
    cancel = sub.add_parser("cancel", help="take jobs out of the queue", description="Take jobs out of the queue.")
    cancel.add_argument("jobs", nargs="+", metavar="JOB", help="number or name, as list-jobs shows it")
    cancel.set_defaults(run=run_cancel)
    wait = sub.add_parser(
        "wait",
        help="wait until the queue is empty",
        description="Wait until no job is queued for the named kernels (default: none at all), and show how they "
        "stand. Jobs that wait for another try after a failure are not waited for.",
    )
    wait.add_argument("krels", nargs="*", metavar="KREL")
    wait.set_defaults(run=run_wait)


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="wait until it is done, and show how it ended")


# ---- list-jobs -----------------------------------------------------------------------------------


def run_list_jobs(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    view = take_view(paths)
    jobs = view.jobs
    if output.json != "off":
        output.data({"jobs": [to_json(j) for j in jobs], "daemon_running": view.daemon_running})
        return OK
    header = ("JOB", "NAME", "STATE", "SINCE", "ASKED BY", "LAST ERROR") if output.legend and jobs else ()
    output.lines(table([_job_row(j) for j in jobs], output.style, header=header))
    if not jobs:
        output.note("No jobs are queued.")
    tell_idle_queue(view, output)
    return OK


def _job_row(job: Job) -> tuple[str, ...]:
    return (str(job.id or "-"), job.name, str(job.state), when(job.created_at), job.why, job.last_error)


# ---- reconcile, retry ----------------------------------------------------------------------------


def run_reconcile(args: argparse.Namespace) -> int:
    return _queue(args, _named(paths_of(args), args.krels), force=args.force)


def run_retry(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    krels = _named(paths, args.krels) if args.krels else [s.krel for s in take_view(paths).statuses if _has_failed(s)]
    if not krels:
        output.note("Nothing failed: nothing to try again.")
        return OK
    return _queue(args, krels, force=True)


def _has_failed(status: KernelStatus) -> bool:
    failed = any(p.failed or p.kind is DecisionKind.BLOCKED for p in status.placements)
    return is_bootable(status) and (failed or any(r.kind == "job-delayed" for r in status.reasons))


def _named(paths: Paths, krels: Sequence[str]) -> list[str]:
    """Raises UnknownKernel."""
    if krels:
        return [read_kernel(paths, krel).krel for krel in dict.fromkeys(krels)]
    return [s.krel for s in take_view(paths).statuses if is_bootable(s)]


def _queue(args: argparse.Namespace, krels: list[str], *, force: bool) -> int:
    paths, output = paths_of(args), output_of(args)
    if not krels:
        output.note(NO_KERNELS)
        return OK
    waiter = Waiter(paths) if args.wait else None
    if may_write_spool(paths):
        _add(paths, krels, force=force)
    elif is_daemon_running(paths):
        from autokmod.ctl import client  # gi is slow to import, and missing in small systems

        client.reconcile(krels, force=force)
    else:
        raise NotAuthorized("queue work")
    return _detachable(output, lambda: _after_queueing(paths, output, krels, waiter))


def _after_queueing(paths: Paths, output: Output, krels: Sequence[str], waiter: Waiter | None) -> int:
    running = is_daemon_running(paths)
    output.note(f"Queued: {', '.join(krels)}" if running else _nobody(krels))
    if waiter is None:
        return OK
    waiter.expect(krels)
    return _wait(paths, output, krels, waiter) if running else FAILED


def _add(paths: Paths, krels: Sequence[str], *, force: bool) -> None:
    spool = Spool(paths)
    for krel in krels:
        spool.add(Verb.RECONCILE, krel, WHY, force=force)


def _nobody(krels: Sequence[str]) -> str:
    return f"Queued: {', '.join(krels)}. autokmodd is not running, so nobody takes it up: {START_IT}"


def may_write_spool(paths: Paths) -> bool:
    """Root may; others where the spool, or the nearest directory above it that exists, is theirs."""
    there = next(p for p in (paths.spool, *paths.spool.parents) if p.exists())
    return os.geteuid() == 0 or os.access(there, os.W_OK)


# ---- wait ----------------------------------------------------------------------------------------


def run_wait(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    krels = _named(paths, args.krels) if args.krels else None
    return _detachable(output, lambda: _wait(paths, output, krels, Waiter(paths)))


def _detachable(output: Output, work: Callable[[], int]) -> int:
    """Ctrl-C ends the waiting, never the work."""
    try:
        return work()
    except KeyboardInterrupt:
        output.note("Not waiting any longer; the work goes on. 'autokmodctl wait' waits again.")
        return DETACHED


def _wait(paths: Paths, output: Output, krels: Collection[str] | None, waiter: Waiter) -> int:
    """`krels`: None waits for every job."""
    served = waiter.until_done(krels)
    ended = waiter.outcomes()
    view = take_view(paths)
    statuses = [s for s in view.statuses if krels is None or s.krel in krels]
    if output.json != "off":
        kernels = [to_json(s) for s in statuses]
        output.data({"kernels": kernels, "jobs": ended, "daemon_running": view.daemon_running})
    else:
        output.lines(list(machine_lines(statuses, output.style, full=krels is not None)))
    for job in ended:
        if job.get("result", "done") != "done":
            output.note(clean(f"{job['verb']}-{job['krel']} {job['result']}: {job['message']}"))
    if not served:
        output.note(f"autokmodd ended before the work was done: {START_IT}")
    return tell_config_error(view, output) or (OK if served and all_ready(statuses) else FAILED)


# ---- cancel --------------------------------------------------------------------------------------


def run_cancel(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    if is_daemon_running(paths):
        _cancel_running(args.jobs)
    elif may_write_spool(paths):
        _withdraw(paths, args.jobs)
    else:
        raise NotAuthorized("cancel jobs")
    output.note(f"Cancelled: {', '.join(args.jobs)}")
    return OK


def _cancel_running(wanted: Sequence[str]) -> None:
    from autokmod.ctl import client  # gi is slow to import

    jobs = {f"{j['verb']}-{j['krel']}": int(j["id"]) for j in client.list_jobs()}
    numbers = [jobs.get(name, int(name) if name.isascii() and name.isdigit() else -1) for name in wanted]
    for name, number in zip(wanted, numbers, strict=True):
        if number not in jobs.values():
            raise UnknownJob(name)
        client.cancel_job(number)


def _withdraw(paths: Paths, wanted: Sequence[str]) -> None:
    """Nobody works on them: what is not in the spool is not done."""
    spool = Spool(paths)
    entries = {entry.job.name: entry for entry in spool.read()[0]}
    for name in wanted:
        if name not in entries:
            raise UnknownJob(name)
        spool.remove(entries[name])
