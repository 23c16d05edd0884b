"""autokmodctl against the real daemon on a bus of its own: who may change what, and how refusals read."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autokmod.observe.machine import is_daemon_running
from autokmod.paths import Paths
from tests.unit.handmade import add_kernel

pytestmark = pytest.mark.dbus

CHECKOUT = Path(__file__).parents[2]
A = "6.1.0-53-amd64"
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
LIMIT_S = 60
CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


def environment(bus: str) -> dict[str, str]:
    mine = {"PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "DBUS_SYSTEM_BUS_ADDRESS": bus}
    return {"PATH": os.environ["PATH"], **mine}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Paths]:
    """One kernel, no package: its job is short. Plain users can reach the tree, as they can a real one."""
    paths = Paths(tmp_path / "root")
    paths.root.mkdir()
    add_kernel(paths, A)
    paths.etc.mkdir(parents=True)
    (paths.etc / "autokmod.toml").write_text("[daemon]\nsettle_s = 0\n")  # no look of its own comes in between
    opened = [d for d in paths.root.parents if not d.stat().st_mode & 0o001]
    for directory in opened:
        directory.chmod(directory.stat().st_mode | 0o011)
    yield paths
    for directory in opened:
        directory.chmod(directory.stat().st_mode & ~0o011)


@pytest.fixture
def bus(tmp_path: Path, machine: Paths) -> Iterator[str]:
    socket, config = tmp_path / "bus", tmp_path / "bus.conf"
    config.write_text(CONFIG.format(socket=socket))
    with subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"]) as process:
        wait_until(socket.exists)
        yield f"unix:path={socket}"
        process.terminate()


@contextmanager
def daemon(paths: Paths, bus: str, *options: str) -> Iterator[None]:
    command = [sys.executable, "-m", "autokmod.daemon.main", "--root", str(paths.root), *options]
    with subprocess.Popen(command, env=environment(bus)) as process:
        try:
            wait_until(lambda: process.poll() is not None or is_daemon_running(paths))
            assert process.poll() is None
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ctl(paths: Paths, bus: str, *args: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "autokmod.ctl.main", "--root", str(paths.root), *args]
    return subprocess.run(command, env=environment(bus), capture_output=True, text=True, timeout=LIMIT_S)


def settled(paths: Paths, bus: str) -> None:
    """The daemon answers, and its own first look is done."""
    wait_until(lambda: ctl(paths, bus, "cancel", "4000000000").returncode == 4)
    assert ctl(paths, bus, "wait").returncode == 0


def test_root_and_others(machine: Paths, bus: str) -> None:
    with daemon(machine, bus):
        settled(machine, bus)
        done = ctl(machine, bus, "reconcile", A, "--wait")
        assert (done.returncode, done.stderr) == (0, f"Queued: {A}\n")
        assert A in done.stdout

        for args in (("reconcile", A), ("retry", A)):
            refused = ctl(machine, bus, *args, before=NOBODY)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr == "autokmodctl: not permitted to queue work: try it as root\n"
        assert ctl(machine, bus, "status", before=NOBODY).returncode == 0
        assert json.loads(ctl(machine, bus, "list-jobs", "--json", before=NOBODY).stdout) == {
            "version": 1,
            "jobs": [],
            "daemon_running": True,
        }


def test_how_a_job_ended_is_told(machine: Paths, bus: str) -> None:
    with daemon(machine, bus):
        settled(machine, bus)
        done = ctl(machine, bus, "reconcile", A, "--wait", "--json")
        (job,) = json.loads(done.stdout)["jobs"]
        assert (job["krel"], job["state"], job["result"]) == (A, "ended", "done")
        lock = open(machine.lock)  # noqa: SIM115  # closed below, before the waiter is waited for. As if a hook were at work
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "autokmod.ctl.main", "--root", str(machine.root), "reconcile", A, "--wait"]
        with subprocess.Popen(command, env=environment(bus), stderr=subprocess.PIPE, text=True) as waiter:
            with lock:
                wait_until(lambda: f"{A}  pending" in ctl(machine, bus, "list-kernels").stdout)
                assert "a job is running (admin)" in ctl(machine, bus, "status", before=NOBODY).stdout
                (shown,) = json.loads(ctl(machine, bus, "list-jobs", "--json").stdout)["jobs"]
                assert shown["state"] == "running"
                assert ctl(machine, bus, "cancel", f"reconcile-{A}").returncode == 0
            _, said = waiter.communicate(timeout=LIMIT_S)
        assert f"reconcile-{A} cancelled" in said


def test_a_job_that_is_not_there(machine: Paths, bus: str) -> None:
    with daemon(machine, bus):
        settled(machine, bus)
        for name in ("4000000000", f"reconcile-{A}", "x", "-1"):
            done = ctl(machine, bus, "cancel", "--", name)
            assert (done.returncode, done.stdout) == (4, "")
            assert done.stderr.startswith(f"autokmodctl: no job {name}")


def test_a_daemon_without_bus(machine: Paths, bus: str) -> None:
    with daemon(machine, bus, "--no-bus"):
        refused = ctl(machine, bus, "reconcile", A, before=NOBODY)
        assert (refused.returncode, refused.stdout) == (69, "")
        assert refused.stderr.startswith("autokmodctl: autokmodd does not answer")
        assert ctl(machine, bus, "list-jobs").returncode == 0
        assert ctl(machine, bus, "reconcile", A, "--wait").returncode == 0


def test_no_bus_at_all(machine: Paths) -> None:
    nowhere = "unix:path=/nonexistent/bus"
    with daemon(machine, nowhere, "--no-bus"):
        assert ctl(machine, nowhere, "reconcile", A, before=NOBODY).returncode == 69
        assert ctl(machine, nowhere, "list-jobs", before=NOBODY).returncode == 0
