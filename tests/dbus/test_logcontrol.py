"""The journal's level at run time, as `systemctl service-log-level` asks for it."""

from __future__ import annotations

import json

import pytest

from autokmod.daemon.bus import NAME
from autokmod.daemon.logcontrol import INTERFACE, PATH
from tests.dbus.busmachine import NOBODY, Machine
from tests.dbus.test_service import A
from tests.unit.handmade import add_kernel

pytestmark = [pytest.mark.dbus, pytest.mark.root]

OBJECT = (NAME, PATH, INTERFACE)


def get(machine: Machine, name: str) -> str:
    done = machine.busctl("get-property", *OBJECT, name)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["data"])


def test_the_level_is_read_and_written(machine: Machine) -> None:
    with machine.daemon() as daemon:
        assert (get(machine, "LogLevel"), get(machine, "LogTarget")) == ("info", "console")
        assert get(machine, "SyslogIdentifier") == "autokmodd"
        for wanted, found in (("debug", "debug"), ("crit", "err"), ("warning", "warning"), ("info", "info")):
            assert machine.busctl("set-property", *OBJECT, "LogLevel", "s", wanted).returncode == 0
            assert get(machine, "LogLevel") == found
        assert "messages are written from level 'debug' on" in daemon.log


def test_it_counts(machine: Machine) -> None:
    """Without a logind on this bus there is something to say at level debug."""
    add_kernel(machine.paths, A)
    with machine.daemon("--log-level=error") as daemon, machine.signals() as signals:
        machine.settled(A)
        assert "logind does not wait for us" not in daemon.log
        machine.busctl("set-property", *OBJECT, "LogLevel", "s", "debug")
        (number,) = machine.call("Reconcile", "1", A, "true")
        signals.until_told(f"JobRemoved (uint32 {number}, 'reconcile-{A}', 'done')")
        assert "logind does not wait for us" in daemon.log


def test_nonsense_is_refused(machine: Machine) -> None:
    with machine.daemon() as daemon:
        for name, value in (("LogLevel", "loud"), ("LogTarget", "kmsg"), ("SyslogIdentifier", "x")):
            done = machine.busctl("set-property", *OBJECT, name, "s", value)
            assert done.returncode != 0
        assert machine.busctl("set-property", *OBJECT, "LogLevel", "u", "3").returncode != 0
        assert machine.busctl("set-property", *OBJECT, "LogTarget", "s", "auto").returncode == 0
        assert get(machine, "LogLevel") == "info"
        assert "Traceback" not in daemon.log


def test_others_only_read(machine: Machine) -> None:
    with machine.daemon():
        assert machine.busctl("get-property", *OBJECT, "LogLevel", before=NOBODY).returncode == 0
        assert machine.busctl("set-property", *OBJECT, "LogLevel", "s", "debug", before=NOBODY).returncode != 0
        assert get(machine, "LogLevel") == "info"


def test_the_manager_stays_where_it_is(machine: Machine) -> None:
    with machine.daemon():
        assert machine.call("ListKernels") == []
        done = machine.busctl("tree", "--list", NAME)
        assert PATH in done.stdout
