"""Limits that the kernel has no switch for, kept by looking: what a build writes, uses and prints in all.

Disk, by looks that need neither a mount nor a quota nor systemd. `du` over the directory of work says how much a build
wrote, but costs time, so it runs every ten seconds, and at once when the file system has lost so much room since the
last time that the limit may be reached. Files that were unlinked while open are in no directory: for them the room
that is left on the file system is what counts, looked at every time (one system call). fallocate(2), which could take
it all between two looks, is refused to builds (seccomp.py), so the disk fills no faster than it is written.

Memory: what all processes below the sandbox's first one hold, swapped out or not. In the service, ProtectProc=
hides them, and MemoryMax= is the limit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autokmod.config import BuildConfig
from autokmod.run import run

MIB = 1 << 20
DU_LIMIT_S = 20  # for a million files
DU_PAUSE_S = 10.0
DU_SHARE = 50  # of the time: one part walking, so many others not
DU_SHARE_NEAR = 4  # near the limit
MEMORY_PAUSE_S = 1.0
INODES_LEFT = 50  # one in so many stays free


@dataclass(frozen=True, slots=True)
class Stop:
    why: str
    may_pass: bool = False  # others may have used what it was short of


class BuildWatch:
    """To be called with the first process's id as long as the build runs. True: it has to stop, `stop` says why."""

    def __init__(self, limits: BuildConfig, work: Path, log: Path, each_time: Callable[[], None]) -> None:
        self.stop: Stop | None = None
        self._limits, self._work, self._log, self._each_time = limits, work, log, each_time
        self._memory_limit = limits.total_memory_mb * MIB or machine_memory() // 4 * 3
        self._written = 0  # at the last walk
        self._free_then = 0
        self._walk_at = self._walk_not_before = self._count_at = 0.0

    def __call__(self, pid: int) -> bool:
        self._each_time()
        now = time.monotonic()
        self.stop = self._output() or self._disk(now) or self._memory(now, pid)
        return self.stop is not None

    def _output(self) -> Stop | None:
        limit = self._limits.output_limit_mb
        if self._log.stat().st_size <= limit * MIB:
            return None
        return Stop(f"stopped: it had printed more than {limit} MiB (build.output_limit_mb)")

    def _disk(self, now: float) -> Stop | None:
        room = os.statvfs(self._work)
        free, keep = room.f_bavail * room.f_frsize, self._limits.keep_free_mb
        stop = None
        if now >= self._walk_at or (now >= self._walk_not_before and self._may_be_full(free)):
            stop = self._walk(now, free)
        if stop is None and free < keep * MIB:
            stop = Stop(
                f"stopped: {self._work.parent} had less than {keep} MiB (build.keep_free_mb) left", may_pass=True
            )
        if stop is None and room.f_files and room.f_favail < room.f_files // INODES_LEFT:
            stop = Stop(f"stopped: the file system of {self._work.parent} can hold few more files", may_pass=True)
        return stop

    def _may_be_full(self, free: int) -> bool:
        return self._written + max(self._free_then - free, 0) > self._limits.disk_limit_mb * MIB

    def _walk(self, now: float, free: int) -> Stop | None:
        written = disk_usage(self._work)
        if written is None:
            return Stop(f"stopped: it had made more files than can be counted in {DU_LIMIT_S} s")
        end = time.monotonic()
        self._walk_at = end + max(DU_PAUSE_S, (end - now) * DU_SHARE)
        self._walk_not_before = end + (end - now) * DU_SHARE_NEAR
        self._written, self._free_then = written, free
        if written <= self._limits.disk_limit_mb * MIB:
            return None
        return Stop(f"stopped: it had written more than {self._limits.disk_limit_mb} MiB (build.disk_limit_mb)")

    def _memory(self, now: float, pid: int) -> Stop | None:
        if now < self._count_at:
            return None
        self._count_at = now + MEMORY_PAUSE_S
        if sum(held(p) for p in family(pid)) <= self._memory_limit:
            return None
        return Stop(f"stopped: it used more than {self._memory_limit // MIB} MiB of memory (build.total_memory_mb)")


def disk_usage(directory: Path) -> int | None:
    """Bytes on disk. None: it takes too long. `du` counts a file with several names once, and knows no longest path."""
    result = run(["du", "-sx", "-B1", "--", str(directory)], timeout_s=DU_LIMIT_S, check=False, stdout_only=True)
    number = result.output.partition("\t")[0]
    if result.returncode is None:
        return None
    return int(number) if number.isdecimal() else 0  # it vanished


def family(pid: int) -> Iterator[int]:
    """This process and all below it. Those that lose their parent stay below the first one of their PID namespace."""
    todo = [pid]
    while todo:
        pid = todo.pop()
        yield pid
        with suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError):
                    todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii").split())


def held(pid: int) -> int:
    """Bytes of memory that nothing but this process keeps: no files' pages."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:", "VmSwap:")))
    return sum(int(line[1]) << 10 for line in lines)


def machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
