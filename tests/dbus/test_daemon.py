"""The real daemon in a root of its own: hints, restarts, signals, configuration, with and without a bus."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from autokmod.jobs.spool import Spool
from autokmod.model import Verb
from autokmod.observe.machine import is_daemon_running
from tests.dbus.busmachine import LIMIT_S, Machine, running_bus, until
from tests.dbus.test_service import A, B, busy
from tests.unit.handmade import add_kernel, add_source
from tests.unit.test_watcher import overflow

pytestmark = [pytest.mark.dbus, pytest.mark.root]

QUICK = '[daemon]\nsettle_s = 0.1\n[build]\nuser = "nobody"\n'


def configure(machine: Machine, text: str = QUICK) -> None:
    machine.paths.etc.mkdir(parents=True, exist_ok=True)
    temporary = machine.paths.etc / ".new"
    temporary.write_text(text)
    temporary.rename(machine.paths.etc / "autokmod.toml")


# ---- hints ----


def test_at_start_every_kernel_is_looked_at(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    add_kernel(machine.paths, B)
    with machine.daemon():
        until(lambda: machine.known() == {A, B})


def test_a_kernel_that_appears_disappears_and_comes_back(machine: Machine) -> None:
    configure(machine)
    with machine.daemon(), machine.signals() as signals:
        for _ in range(2):
            add_kernel(machine.paths, A)
            signals.until_told("JobRemoved", f"'reconcile-{A}', 'done'")
            signals.until_told(f"ReadinessChanged ('{A}', 'ready')")
            shutil.rmtree(machine.paths.modulesd(A))
            shutil.rmtree(machine.paths.usr_src)
            signals.until_told(f"ReadinessChanged ('{A}', 'removed')")
            until(lambda: machine.known() == set() and machine.get("NJobs") == 0)


@pytest.mark.parametrize("in_transaction", [True, False])
def test_a_kernel_that_is_being_unpacked_alarms_nobody(machine: Machine, in_transaction: bool) -> None:
    configure(machine)
    lock = machine.paths.at("var/lib/dpkg/lock")
    lock.parent.mkdir(parents=True)
    with open(lock, "wb") as held, machine.daemon() as daemon, machine.signals() as signals:
        if in_transaction:
            fcntl.lockf(held, fcntl.LOCK_EX)
        modulesd = add_kernel(machine.paths, A)
        (modulesd / "modules.order").unlink()
        signals.until_told(f"ReadinessChanged ('{A}', 'not-ready')")
        (modulesd / "modules.order").touch()
        signals.until_told(f"ReadinessChanged ('{A}', 'ready')")
        until(lambda: f"{A} is ready" in daemon.log)
        assert (f"{A} is not ready" in daemon.log) is not in_transaction


def test_the_modules_directory_itself_comes_later(machine: Machine) -> None:
    configure(machine)
    shutil.rmtree(machine.paths.root / "usr")
    with machine.daemon(), machine.signals() as signals:
        add_kernel(machine.paths, A)
        signals.until_told("JobRemoved", f"'reconcile-{A}', 'done'")


def test_a_package_that_appears_is_a_reason_to_look_at_every_kernel(machine: Machine) -> None:
    """There is no shell in this root, so that the recipe cannot be read: which is told."""
    configure(machine)
    add_kernel(machine.paths, A)
    with machine.daemon() as daemon, machine.signals() as signals:
        machine.settled(A)
        add_source(machine.paths, "evdi", "1.0")
        signals.until_told(f"ReadinessChanged ('{A}', 'degraded')")
        until(lambda: "evdi is blocked: the build sandbox cannot start" in daemon.log)


def test_an_overflow_of_events_loses_nothing(machine: Machine) -> None:
    configure(machine)
    dkms = machine.paths.at("etc/dkms")
    dkms.mkdir(parents=True)
    with machine.daemon() as daemon, machine.signals() as signals:
        daemon.process.send_signal(signal.SIGSTOP)
        overflow(dkms)
        add_kernel(machine.paths, A)
        daemon.process.send_signal(signal.SIGCONT)
        signals.until_told("JobRemoved", f"'reconcile-{A}', 'done'")


def test_a_script_writes_into_the_spool(machine: Machine) -> None:
    script = 'printf %s "$2" >"$1/.tmp" && mv "$1/.tmp" "$1/remove-gone.json"'
    job = json.dumps({"format": 1, "verb": "remove", "krel": "gone", "why": "kernel-install"})
    with machine.daemon(), machine.signals() as signals:
        subprocess.run(["sh", "-c", script, "sh", machine.paths.spool, job], check=True)
        signals.until_told("JobNew", "remove-gone")
        signals.until_told("JobRemoved", "remove-gone", "done")
        assert os.listdir(machine.paths.spool) == []


def test_a_damaged_job_is_put_aside_and_the_rest_served(machine: Machine) -> None:
    with machine.daemon() as daemon, machine.signals() as signals:
        (machine.paths.spool / "reconcile-x.json").write_text("{")
        Spool(machine.paths).add(Verb.REMOVE, "gone", "test")
        signals.until_told("JobRemoved", "remove-gone", "done")
        until(lambda: (machine.paths.spool / "reconcile-x.json.damaged").exists())
    assert "reconcile-x.json: not JSON" in daemon.log


# ---- life and death ----


def test_sigterm_leaves_nothing_behind(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    with machine.daemon() as daemon:
        assert daemon.stop() == 0
        daemon.notifications.until("STOPPING=1")
    hidden = [p for p in machine.paths.root.rglob(".*") if p.is_file()]
    assert hidden == []
    with open(machine.paths.daemon_lock) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_after_start(machine: Machine, number: int) -> None:
    with machine.daemon() as daemon:
        assert daemon.stop(number) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_before_it_is_up(machine: Machine, number: int) -> None:
    """The lock is the first thing that it takes; gi, bus and watches come after."""
    for _ in range(5):
        with machine.daemon(ready=False) as daemon:
            until(lambda: is_daemon_running(machine.paths))
            assert daemon.stop(number) == 0, daemon.log
            assert daemon.log == ""


def test_a_job_that_was_interrupted_by_a_kill_is_done_by_the_next(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    with busy(machine):
        with machine.daemon() as daemon, machine.signals() as signals:
            (number,) = machine.call("Reconcile", "1", A, "false")
            until(lambda: machine.get("State") == "running")
            assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
            signals.until_told("does not have an owner")
        assert os.listdir(machine.paths.spool) == [f"reconcile-{A}.json"]
        with machine.daemon() as daemon:
            until(lambda: machine.get("State") == "running")
            assert [job["id"] for job in machine.call("ListJobs")] == [number]
            assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    with machine.daemon():
        until(lambda: os.listdir(machine.paths.spool) == [])
        assert machine.known() == {A}
        assert machine.call("Reconcile", "1", A, "false") > [number]


def test_a_second_daemon_in_the_same_root_leaves(machine: Machine) -> None:
    with machine.daemon(), machine.daemon(ready=False) as second:
        assert second.process.wait(LIMIT_S) == 1
        assert "another autokmodd is running" in second.log


def test_watchdog_and_status(machine: Machine) -> None:
    with machine.daemon(WATCHDOG_USEC="200000") as daemon:
        daemon.notifications.until("WATCHDOG=1", times=3)


@contextmanager
def full_pipe() -> Iterator[tuple[int, Callable[[], None], Callable[[], None]]]:
    """The end to write to, what fills it, and what empties it."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    ours = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)  # the daemon's end goes on to block

    def fill() -> None:
        with suppress(BlockingIOError):
            while True:
                os.write(ours, b".")

    def drain() -> None:
        with suppress(BlockingIOError):
            while os.read(reader, 1 << 16):
                pass

    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield writer, fill, drain
    finally:
        for fd in (reader, writer, ours):
            os.close(fd)


def argument(pid: int) -> list[str]:
    """The first one of the system call that the main thread is in; none where it is not in one."""
    return Path(f"/proc/{pid}/task/{pid}/syscall").read_text().split()[1:2]


def test_the_watchdog_is_fed_by_the_loop_and_by_nothing_else(machine: Machine) -> None:
    """The loop really stands still: it has something to say, and whoever should read it does not. No other thread is
    in its way."""
    interval_s = 0.1
    configure(machine)
    usec = str(int(2e6 * interval_s))
    with full_pipe() as (stderr, fill, drain), machine.daemon(stderr=stderr, WATCHDOG_USEC=usec) as daemon:
        told = daemon.notifications
        told.until("WATCHDOG=1", times=3)
        fill()
        configure(machine, "[daemon]\nsetle_s = 1\n")  # said on the loop's thread
        until(lambda: argument(daemon.process.pid) == ["0x2"])
        fed = told.count("WATCHDOG=1")
        time.sleep(20 * interval_s)  # systemd would have ended it after two
        assert told.count("WATCHDOG=1") == fed
        drain()
        told.until("WATCHDOG=1", times=fed + 3)
        until(lambda: "setle_s" in machine.get("ConfigurationError"))


def test_without_watchdog_nothing_is_sent(machine: Machine) -> None:
    with machine.daemon() as daemon:
        daemon.stop()
        daemon.notifications.until("STOPPING=1")
        assert "WATCHDOG=1" not in daemon.notifications.seen


# ---- configuration ----


def test_a_wrong_configuration_is_told_and_the_last_good_one_stays(machine: Machine) -> None:
    configure(machine)
    with machine.daemon() as daemon:
        configure(machine, "[daemon]\nsetle_s = 1\n")
        until(lambda: machine.get("ConfigurationError"))
        error = machine.get("ConfigurationError")
        assert error.endswith("autokmod.toml:2: daemon.setle_s: unknown key; did you mean settle_s?")
        assert error in daemon.log
        add_kernel(machine.paths, A)
        until(lambda: machine.known() == {A})
        configure(machine)
        until(lambda: machine.get("ConfigurationError") == "")
        assert "the configuration is right again" in daemon.log


def test_sighup_reads_it_again(machine: Machine) -> None:
    """Also what is not watched: the vendor's file."""
    with machine.daemon() as daemon:
        machine.paths.vendor.mkdir(parents=True)
        (machine.paths.vendor / "autokmod.toml").write_text("[daemon]\nlog_level = 3\n")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "log_level" in machine.get("ConfigurationError"))


def test_it_does_not_start_with_a_wrong_configuration(machine: Machine) -> None:
    configure(machine, "[deamon]\n")
    with machine.daemon(ready=False) as daemon:
        assert daemon.process.wait(LIMIT_S) == 78
        assert daemon.log.count("\n") == 1
        assert "deamon: unknown section; did you mean daemon?" in daemon.log


# ---- buses ----


def test_without_a_bus_it_serves_all_the_same(machine: Machine) -> None:
    configure(machine)
    with machine.daemon(DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent") as daemon:
        add_kernel(machine.paths, A)
        until(lambda: machine.known() == {A})
        Spool(machine.paths).add(Verb.REMOVE, "gone", "test")
        until(lambda: os.listdir(machine.paths.spool) == [])
        assert daemon.log.count("the system bus cannot be used") == 1


def test_when_the_bus_goes_away_it_leaves_to_be_started_again(tmp_path: Path) -> None:
    with running_bus(tmp_path) as bus, Machine(tmp_path / "machine", bus.address).daemon() as daemon:
        bus.process.terminate()
        assert daemon.process.wait(LIMIT_S) == 1
        assert "the system bus went away" in daemon.log


# ---- idle ----


def switches(pid: int) -> dict[str, str]:
    """How often each thread went to sleep of its own accord: one more for each time that it was woken."""
    return {
        task.name: next(line for line in (task / "status").read_text().splitlines() if line.startswith("voluntary"))
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


def test_idle_is_idle(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    configure(machine)
    with machine.daemon() as daemon:
        until(lambda: machine.known() == {A} and machine.get("State") == "idle")
        pid = daemon.process.pid
        until(lambda: is_quiet(pid, 0.5))
        assert is_quiet(pid, 3.0)


def is_quiet(pid: int, seconds: float) -> bool:
    before = switches(pid)
    time.sleep(seconds)
    return switches(pid) == before
