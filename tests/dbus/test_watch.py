"""autokmodctl watch: what the daemon says on the bus, line by line."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.dbus.busmachine import LIMIT_S, NOBODY, Machine, running_bus
from tests.dbus.test_service import A, B, busy
from tests.unit.handmade import add_kernel

pytestmark = [pytest.mark.dbus, pytest.mark.root]


class Watch:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._rest = b""

    def until(self, *words: str) -> str:
        """The next line with all of these words."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            line = self._line(deadline)
            self.lines.append(line)
            if all(word in line for word in words):
                return line

    def _line(self, deadline: float) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            fd = self.process.stdout.fileno()
            ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
            data = os.read(fd, 65536) if ready else b""
            assert data, f"not told; told were: {self.lines}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def event(self, name: str, **fields: Any) -> dict[str, Any]:
        while True:
            event: dict[str, Any] = json.loads(self.until(f'"{name}"'))
            if fields.items() <= event.items():
                return event

    def ended(self, number: int | None = None) -> tuple[int, str]:
        if number is not None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, said.decode()


@contextmanager
def watching(machine: Machine, *args: str, before: tuple[str, ...] = ()) -> Iterator[Watch]:
    argv = [*before, sys.executable, "-m", "autokmod.ctl.main", "--root", str(machine.paths.root), "watch", *args]
    out = subprocess.PIPE
    with subprocess.Popen(argv, env=machine.env(), stdout=out, stderr=out) as process:
        try:
            yield Watch(process)
        finally:
            process.kill()


@pytest.fixture
def settled(machine: Machine) -> Iterator[Machine]:
    add_kernel(machine.paths, A)
    with machine.daemon():
        machine.settled(A)
        yield machine


def test_a_job_from_its_beginning_to_its_end(settled: Machine) -> None:
    with watching(settled, before=NOBODY) as watch:
        watch.until("here")
        with busy(settled):
            settled.call("Reconcile", "1", A, "true")
            watch.until(f"reconcile-{A}  queued")
            watch.until(f"reconcile-{A}  running")
        watch.until(f"reconcile-{A}  done")
        assert watch.ended(signal.SIGINT) == (130, "")


def test_the_jobs_that_are_there(settled: Machine) -> None:
    with busy(settled):
        settled.call("Reconcile", "1", A, "true")
        with watching(settled) as watch:
            watch.until(f"reconcile-{A}  running")
            assert watch.ended(signal.SIGINT) == (130, "")


def test_one_object_a_line(settled: Machine) -> None:
    with watching(settled, "--json=pretty") as watch:
        watch.until("here")
        (number,) = settled.call("Reconcile", "1", A, "false")
        new = watch.event("job-new", id=number)
        assert new.keys() == {"version", "at", "event", "id", "name"}
        assert new["name"] == f"reconcile-{A}"
        watch.event("job-changed", id=number, state="running")
        watch.event("job-removed", id=number, result="done")


def test_kernels_and_what_a_job_is_at(settled: Machine) -> None:
    with watching(settled, "--json") as watch:
        watch.until("here")
        add_kernel(settled.paths, B)
        watch.event("readiness-changed", krel=B, readiness="ready")
        assert watch.ended(signal.SIGTERM)[1] == ""


def test_why_a_job_failed(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    machine.paths.etc.mkdir(parents=True)
    (machine.paths.etc / "autokmod.toml").write_text("[retry]\nattempts = 0\n")
    with machine.daemon(), watching(machine) as watch:
        watch.until("here")
        machine.settled(A)
        machine.paths.lock.unlink()
        machine.paths.lock.mkdir()
        machine.call("Reconcile", "1", A, "true")
        assert "Is a directory" in watch.until(f"reconcile-{A}  failed: ")


@pytest.fixture
def left_open() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_daemon_that_leaves_and_comes_back(machine: Machine, left_open: ExitStack) -> None:
    add_kernel(machine.paths, A)
    with machine.daemon():
        machine.settled(A)
        watch = left_open.enter_context(watching(machine))
        watch.until("autokmodd  here")
    watch.until("autokmodd  left")
    with machine.daemon():
        watch.until("autokmodd  came")
        watch.until(f"{A}  ready")
    assert watch.ended(signal.SIGINT) == (130, "")


def test_no_daemon(machine: Machine) -> None:
    with watching(machine) as watch:
        code, said = watch.ended()
    assert code == 69
    assert said.startswith("autokmodctl: autokmodd does not answer")


def test_a_daemon_without_bus(machine: Machine) -> None:
    with machine.daemon("--no-bus"), watching(machine) as watch:
        assert watch.ended()[0] == 69


def test_the_bus_goes_away(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with running_bus(tmp_path) as bus:
        machine = Machine(tmp_path / "machine", bus.address)
        add_kernel(machine.paths, A)
        with machine.daemon() as daemon, watching(machine) as watch:
            watch.until("here")
            bus.process.kill()
            assert watch.ended()[0] == 69
            assert daemon.process.wait(LIMIT_S) == 1  # to be started again


def test_who_reads_has_enough(settled: Machine) -> None:
    with watching(settled) as watch:
        watch.until("here")
        assert watch.process.stdout is not None
        watch.process.stdout.close()
        watch.process.stdout = None
        settled.call("Reconcile", "1", A, "true")
        assert watch.ended() == (0, "")
