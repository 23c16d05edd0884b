"""What a build uses in all, measured on real processes and files. Builds that use too much: test_hostile.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autokmod.act.build import find_limit
from autokmod.act.buildwatch import BuildWatch, disk_usage, family, held
from autokmod.config import BuildConfig
from autokmod.run import run

LIMITS = BuildConfig(process_limit=7, file_limit_mb=8, memory_limit_mb=9)


@pytest.mark.parametrize(
    ("log", "limit"),
    [
        (b"cc -c a.c\na.c:1: error: no\n", None),
        (b"make: *** [x] Error 153\nFile size limit exceeded (core dumped)\n", "build.file_limit_mb"),
        (b"bash: fork: retry: Resource temporarily unavailable\n", "7 processes at once (build.process_limit)"),
        (b"cc1: out of memory allocating 65536 bytes after a total of 1 bytes\n", "build.memory_limit_mb"),
        (b"Resource temporarily unavailable" + b"." * (64 << 10), None),
    ],
)
def test_the_limit_that_was_met_is_named(log: bytes, limit: str | None) -> None:
    found = find_limit(log, LIMITS)
    assert len(found) == (limit is not None)
    assert limit is None or limit in found[0].text


def test_processes_below_processes_and_their_memory() -> None:
    """The middle one is gone; whoever reaps keeps what it left below itself."""
    child = "x = bytearray(50 << 20); print('there', flush=True); input()"
    argv = ["sh", "-c", 'sh -c \'"$0" -c "$1"; true\' "$0" "$1"; true', sys.executable, child]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as proc:
        assert proc.stdout is not None
        proc.stdout.readline()
        found = list(family(proc.pid))
        memory = sum(held(pid) for pid in found)
        proc.communicate(b"\n")
    assert len(found) == 3
    assert 50 << 20 < memory < 200 << 20
    assert held(proc.pid) == 0
    assert list(family(proc.pid)) == [proc.pid]


def test_disk_usage_counts_blocks_once_and_needs_no_names(tmp_path: Path) -> None:
    empty = disk_usage(tmp_path)
    assert empty is not None
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    os.link(tmp_path / "a", tmp_path / "b")
    with open(tmp_path / "hole", "wb") as f:
        f.truncate(1 << 30)
    used = disk_usage(tmp_path)
    assert used is not None
    assert 1 << 20 <= used - empty < 2 << 20
    assert disk_usage(tmp_path / "gone") == 0


def test_a_command_that_is_watched_is_stopped(tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(pid: int) -> bool:
        seen.append(pid)
        return len(seen) == 2

    assert run(["sleep", "600"], timeout_s=60, watch=watch, check=False).returncode is None
    assert len(seen) == 2
    assert run(["true"], timeout_s=60, watch=watch).returncode == 0


def test_a_quiet_build_goes_on(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    looks: list[int] = []
    watch = BuildWatch(BuildConfig(keep_free_mb=0), tmp_path, tmp_path / "log", lambda: looks.append(1))
    assert not watch(os.getpid())
    assert watch.stop is None
    assert looks == [1]
