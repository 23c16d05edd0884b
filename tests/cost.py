"""What a command costs: wall clock, and the CPU time of all its processes.

The kernel adds a process' time to whoever waits for it. bwrap does not wait for the first process of its PID
namespace, so that all that ran in there would be lost: as a subreaper, we inherit it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.corpus import CHECKOUT

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    wall_s: float
    cpu_s: float  # user and system
    idle_s: float  # of all CPUs meanwhile, waiting for disks included
    others_s: float  # CPU time of everything else on the machine
    returncode: int


def measured(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Standard output and error go to `log`. No time limit: whoever calls this has minutes.

    For a process that has no other children.
    """
    _set_subreaper(1)
    before, machine, start = _children_s(), _machine_s(), time.perf_counter()
    with open(log, "wb") as out:
        process = subprocess.Popen(
            argv, env={**ENV, **(env or {})}, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        try:
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    wall_s = time.perf_counter() - start
    _reap()
    _set_subreaper(0)
    cpu_s = _children_s() - before
    busy_s, idle_s = (now - then for now, then in zip(_machine_s(), machine, strict=True))
    return Cost(wall_s, cpu_s, idle_s, max(0.0, busy_s - cpu_s), process.returncode)


def _set_subreaper(yes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, yes, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _reap() -> None:
    """Orphans have ended, or are about to."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _machine_s() -> tuple[float, float]:
    """Busy and idle, over all CPUs; what a hypervisor gave to other machines (steal) is busy."""
    line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    user, nice, system, idle, iowait, irq, softirq, steal = (int(n) / TICKS for n in line.split()[1:9])
    return user + nice + system + irq + softirq + steal, idle + iowait
