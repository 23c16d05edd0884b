"""The daemon as programs see it that know only the XML: busctl and gdbus."""

from __future__ import annotations

import fcntl
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from autokmod import __version__
from autokmod.daemon.bus import INTERFACE, NAME, PATH
from autokmod.daemon.service import XML
from tests.dbus.busmachine import NOBODY, Daemon, Machine
from tests.unit.handmade import add_kernel, add_source, place, record

pytestmark = [pytest.mark.dbus, pytest.mark.root]

A, B = "6.1.0-1-amd64", "6.1.0-2-amd64"


@contextmanager
def busy(machine: Machine) -> Iterator[None]:
    """As if a hook were at work: a job that begins now lasts until this is left."""
    machine.paths.lock.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(machine.paths.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def busy_daemon(machine: Machine) -> Iterator[Daemon]:
    """On a slow machine a job of its own begins, too: the lock is let go before the daemon is told to stop."""
    with ExitStack() as lock:
        lock.enter_context(busy(machine))
        with machine.daemon() as daemon:
            yield daemon
            lock.close()


# ---- what the XML says is what is there ----


def members(text: str) -> set[tuple[str, ...]]:
    """Kind, name, and the types that go in and out, of everything the interface has."""
    interface = ET.fromstring(text).find(f"interface[@name='{INTERFACE}']")
    assert interface is not None
    found = set()
    for member in interface:
        types = [f"{arg.get('direction', 'out')} {arg.get('type')}" for arg in member.iter("arg")]
        found.add((member.tag, member.get("name", ""), member.get("type", ""), member.get("access", ""), *types))
    return {m for m in found if m[0] in ("method", "signal", "property")}


def test_introspection_is_the_shipped_xml(machine: Machine) -> None:
    with machine.daemon():
        done = machine.busctl("introspect", "--xml-interface", NAME, PATH)
    assert members(done.stdout) == members(XML)
    assert len(members(XML)) == 13 + 5 + 11


def test_properties(machine: Machine) -> None:
    with machine.daemon():
        assert machine.get("Version") == __version__
        assert machine.get("NJobs") == 0
        assert machine.get("ConfigurationError") == ""
        assert machine.get("State") == "idle"


# ---- reading is open to all ----


def test_a_plain_user_reads_everything(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    add_source(machine.paths, "evdi", "1.0")
    with machine.daemon():
        for method in ("ListKernels", "ListPackages", "ListJobs"):
            done = machine.busctl("call", NAME, PATH, INTERFACE, method, before=NOBODY)
            assert done.returncode == 0, done.stderr
        for name in ("Version", "State", "NJobs", "ConfigurationError"):
            done = machine.busctl("get-property", NAME, PATH, INTERFACE, name, before=NOBODY)
            assert done.returncode == 0, done.stderr
        done = machine.busctl("introspect", NAME, PATH, before=NOBODY)
        assert done.returncode == 0, done.stderr


def test_kernels_packages_and_explain(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    add_kernel(machine.paths, B, headers=False)
    (machine.paths.modulesd("6.1.0-3-amd64")).mkdir()
    add_source(machine.paths, "evdi", "1.0")
    record(machine.paths, A, place(machine.paths, A, "evdi"))
    with busy_daemon(machine):
        kernels = {k["krel"]: k for k in machine.call("ListKernels")}
        assert kernels[A]["state"] == "complete"
        assert kernels[B]["state"] == "no-headers"
        assert kernels[A]["placements"][0]["package"] == "evdi"
        assert kernels[A]["placements"][0]["files"][0]["module"] == "evdi"
        (package,) = machine.call("ListPackages")
        assert (package["name"], package["version"], package["kind"]) == ("evdi", "1.0", "dkms")
        for name in ("evdi", "evdi/1.0"):
            explained = machine.call("Explain", name, A)
            assert explained == kernels[A]["placements"][0]
        unexamined = machine.call("Explain", "evdi", B)
        assert (unexamined["package"], unexamined["reasons"][0]["kind"]) == ("evdi", "not-examined")
        assert "kind" not in unexamined
        assert machine.error("Explain", "nvidia", A)[0] == "UnknownPackage"
        assert machine.error("Explain", "evdi/2.0", A)[0] == "UnknownPackage"
        assert machine.error("Explain", "evdi", "9.9")[0] == "UnknownKernel"


# ---- changing is for root ----


@pytest.mark.parametrize(("method", "args"), [("Reconcile", ("[]", "false")), ("CancelJob", ("1",))])
def test_a_plain_user_changes_nothing(machine: Machine, method: str, args: tuple[str, ...]) -> None:
    add_kernel(machine.paths, A)
    with busy_daemon(machine):
        before = machine.call("ListJobs")
        name, text = machine.error(method, *args, before=NOBODY)
        assert name == "NotAuthorized"
        assert text.endswith("try it as root")
        assert machine.call("ListJobs") == before


def test_a_job_from_queue_to_end(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    with machine.daemon(), machine.signals() as signals:
        machine.settled(A)
        with busy(machine):
            (number,) = machine.call("Reconcile", "1", A, "false")
            signals.until_told(f"JobNew (uint32 {number}, 'reconcile-{A}')")
            signals.until_told(f"JobChanged (uint32 {number}, 'reconcile-{A}', 'running')")
            (job,) = machine.call("ListJobs")
            assert (job["id"], job["verb"], job["krel"], job["state"]) == (number, "reconcile", A, "running")
            assert (job["why"], job["force"], job["attempt"]) == ("admin", False, 0)
            assert machine.call("GetJob", str(number)) == job
            assert machine.get("State") == "running"
            assert machine.get("NJobs") == 1
        signals.until_told(f"JobRemoved (uint32 {number}, 'reconcile-{A}', 'done')")
        ended = machine.call("GetJob", str(number))
        assert (ended["state"], ended["result"]) == ("ended", "done")
        assert machine.call("ListJobs") == []
        signals.until_told("PropertiesChanged", "'State': <'idle'>", "'NJobs': <uint32 0>")


def test_queue_again_keeps_the_number_and_cancel_takes_it_away(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    add_kernel(machine.paths, B)
    with machine.daemon(), machine.signals() as signals:
        machine.settled(A, B)
        with busy(machine):
            first, second = machine.call("Reconcile", "0", "true")
            signals.until_told(f"JobChanged (uint32 {first}", "running")
            assert machine.call("Reconcile", "1", B, "true") == [second]
            assert machine.call("GetJob", str(second))["force"] is True
            assert machine.call("CancelJob", str(second)) is None
            signals.until_told(f"JobRemoved (uint32 {second}, 'reconcile-{B}', 'cancelled')")
            assert machine.call("GetJob", str(second))["result"] == "cancelled"
            assert [job["id"] for job in machine.call("ListJobs")] == [first]
            assert machine.error("CancelJob", str(second))[0] == "UnknownJob"


# ---- errors have names ----


def test_error_names(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    with machine.daemon() as daemon:
        unknown, text = machine.error("Reconcile", f"['{A}', '9.9']", "false")
        assert unknown == "UnknownKernel"
        assert "9.9" in text
        for krel in ("../../etc", "", "a b", "x" * 500):
            assert machine.error("Reconcile", f"['{krel}']", "false")[0] == "UnknownKernel"
        assert machine.error("GetJob", "4000000000")[0] == "UnknownJob"
        assert machine.error("CancelJob", "4000000000")[0] == "UnknownJob"
        assert machine.error("Destroy")[0] == "org.freedesktop.DBus.Error.UnknownMethod"
        done = machine.busctl("call", NAME, PATH, INTERFACE, "GetJob", "s", "one")
        assert done.returncode != 0
        done = machine.busctl("get-property", NAME, PATH, INTERFACE, "Nonsense")
        assert done.returncode != 0
        assert machine.call("ListJobs") is not None
        assert "Traceback" not in daemon.log


def test_properties_cannot_be_set(machine: Machine) -> None:
    with machine.daemon():
        for name, shape, value in (("State", "s", "broken"), ("NJobs", "u", "7"), ("ConfigurationError", "s", "x")):
            before = machine.get(name)
            for who in ((), NOBODY):
                done = machine.busctl("set-property", NAME, PATH, INTERFACE, name, shape, value, before=who)
                assert done.returncode != 0
            assert machine.get(name) == before


# ---- the name ----


def test_the_name_cannot_be_taken_away(machine: Machine) -> None:
    bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    replace_or_give_up, exists = "6", 3
    with machine.daemon():
        owner = machine.busctl("call", *bus, "GetNameOwner", "s", NAME).stdout
        taken = machine.busctl("call", *bus, "RequestName", "su", NAME, replace_or_give_up)
        assert json.loads(taken.stdout)["data"] == [exists]
        refused = machine.busctl("call", *bus, "RequestName", "su", NAME, replace_or_give_up, before=NOBODY)
        assert refused.returncode != 0
        assert machine.busctl("call", *bus, "GetNameOwner", "s", NAME).stdout == owner


def test_ready_means_that_it_can_be_called(machine: Machine) -> None:
    for _ in range(3):
        with machine.daemon():
            assert machine.call("ListKernels") == []


def test_a_second_daemon_on_the_same_bus_leaves(machine: Machine, tmp_path: Path) -> None:
    other = Machine(tmp_path / "other", machine.bus)
    with machine.daemon(), other.daemon(ready=False) as second:
        assert second.process.wait(60) == 1
        assert f"{NAME} is taken" in second.log
        assert machine.call("ListKernels") == []
