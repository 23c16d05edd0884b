"""The real systemd-logind on a private bus: it waits for us, and we listen to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gi.repository import Gio

from autokmod.config import Config, ShutdownConfig
from autokmod.daemon.logind import Logind
from autokmod.model import Job, Verb
from tests.dbus.busmachine import Machine, until
from tests.dbus.peers import LOGIN1, delaying_others, hearing_inhibit, inhibitors, running, running_logind
from tests.dbus.test_service import A, B, busy
from tests.unit.handmade import add_kernel

pytestmark = [pytest.mark.dbus, pytest.mark.root]

PUBLISHING = ("shutdown", "autokmod", f"Kernel modules of {A} are being put in place", "delay")
WORKING = ("shutdown", "autokmod", f"Kernel modules for {A} are being made", "block")


def ours(machine: Machine) -> list[tuple[object, ...]]:
    return [i for i in inhibitors(machine) if i[1] == "autokmod"]


@pytest.fixture
def logind(machine: Machine) -> Iterator[Logind]:
    """Our side of it, on a connection of its own."""
    flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
    with running_logind(machine):
        connection = Gio.DBusConnection.new_for_address_sync(machine.bus, flags, None, None)
        yield Logind(connection)
        connection.close_sync(None)


def test_while_something_is_published_it_waits(machine: Machine, logind: Logind) -> None:
    with logind.publishing(A):
        assert ours(machine) == [PUBLISHING]
    assert ours(machine) == []


def test_an_exception_releases_it(machine: Machine, logind: Logind) -> None:
    with pytest.raises(OSError, match="full"), logind.publishing(A):
        raise OSError("full")
    assert ours(machine) == []


def test_refusing_is_for_those_who_configure_it(machine: Machine, logind: Logind) -> None:
    job = Job(Verb.RECONCILE, A, "test", 0.0)
    with logind.working(Config(), job):
        assert ours(machine) == []
    with logind.working(Config(shutdown=ShutdownConfig(block=True)), job):
        assert ours(machine) == [WORKING]
    assert ours(machine) == []


def test_refusing_has_its_limit(machine: Machine, logind: Logind) -> None:
    config = Config(shutdown=ShutdownConfig(block=True, block_limit_s=1))
    with logind.working(config, Job(Verb.RECONCILE, A, "test", 0.0)):
        until(lambda: ours(machine) == [])


def blocking(seconds: int) -> Config:
    return Config(shutdown=ShutdownConfig(block=True, block_limit_s=seconds))


def test_jobs_in_a_row_have_one_limit_together(machine: Machine, logind: Logind) -> None:
    job, again = Job(Verb.RECONCILE, A, "test", 0.0), Job(Verb.RECONCILE, A, "test", 0.0, attempt=1)
    with logind.working(blocking(1), job):
        until(lambda: ours(machine) == [])
    for _ in range(2):
        with logind.working(blocking(600), job):
            assert ours(machine) == []
    logind.rest()
    with logind.working(blocking(600), again):
        assert ours(machine) == []
    for each in (job, again):
        with logind.working(blocking(600), each):
            assert ours(machine) == [WORKING]


def test_without_logind_nothing_is_held_and_all_goes_on(machine: Machine) -> None:
    flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
    connection = Gio.DBusConnection.new_for_address_sync(machine.bus, flags, None, None)
    with Logind(connection).publishing(A):
        pass
    connection.close_sync(None)
    add_kernel(machine.paths, A)
    with machine.daemon():
        machine.settled(A)


# ---- the daemon ----


def configure(machine: Machine, text: str) -> None:
    machine.paths.etc.mkdir(parents=True)
    (machine.paths.etc / "autokmod.toml").write_text(text)


def test_the_daemon_asks_before_each_publication(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    with running_logind(machine), hearing_inhibit(machine) as heard:
        with machine.daemon():
            machine.settled(A)
            assert ours(machine) == []
        until(lambda: PUBLISHING[2] in heard.read_text())


def test_the_daemon_blocks_while_it_works(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    configure(machine, "[shutdown]\nblock = true\n")
    with running_logind(machine), machine.daemon():
        machine.settled(A)
        with busy(machine):
            machine.call("Reconcile", "1", A, "false")
            until(lambda: ours(machine) == [WORKING])
        machine.settled(A)
        until(lambda: ours(machine) == [])


def blocked(machine: Machine, heard: Path) -> int:
    """How often the daemon asked for it, until now: whoever asks after it is heard after it."""
    before = heard.read_text().count('STRING "test"')
    with delaying_others(machine):
        until(lambda: heard.read_text().count('STRING "test"') > before)
    return heard.read_text().count("are being made")


def test_queued_kernels_block_no_longer_than_one(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    add_kernel(machine.paths, B)
    configure(machine, "[shutdown]\nblock = true\nblock_limit_s = 1\n")
    with running_logind(machine), hearing_inhibit(machine) as heard, machine.daemon(), machine.signals() as signals:
        machine.settled(A, B)
        before = blocked(machine, heard)
        with busy(machine):
            numbers = machine.call("Reconcile", "2", A, B, "false")
            until(lambda: heard.read_text().count("are being made") > before)
            until(lambda: ours(machine) == [])
        for number in numbers:
            signals.until_told(f"JobRemoved (uint32 {number}")
        assert blocked(machine, heard) == before + 1


def test_no_new_job_is_begun_when_the_machine_is_about_to_go_down(machine: Machine) -> None:
    """After the five seconds that logind waits at most it finds that systemd cannot do it, and says so."""
    add_kernel(machine.paths, A)
    systemd = running(machine, "org.freedesktop.systemd1", "exec", f"{sys.executable} -m tests.dbus.stubborn_systemd")
    with systemd, running_logind(machine), machine.daemon() as daemon, machine.signals() as signals:
        machine.settled(A)
        with delaying_others(machine):
            assert machine.busctl("call", *LOGIN1, "Reboot", "b", "false").returncode == 0
            until(lambda: "no new job is begun" in daemon.log)
            (number,) = machine.call("Reconcile", "1", A, "false")
            assert machine.call("GetJob", str(number))["state"] == "queued"
            assert machine.get("State") == "idle"
            until(lambda: "the machine stays up: jobs go on" in daemon.log)
        signals.until_told(f"JobRemoved (uint32 {number}, 'reconcile-{A}', 'done')")
        assert daemon.log.index("no new job is begun") < daemon.log.index("jobs go on")
