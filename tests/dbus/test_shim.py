"""pydbus's defects, put right: names of errors, slow calls side by side, no growth, nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gi.repository import Gio, GLib

from autokmod.daemon.bus import INTERFACE, NAME, PATH
from autokmod.daemon.calls import ERROR_PREFIX
from tests.dbus.busmachine import NOBODY, Machine, Notifications, plain, until

pytestmark = [pytest.mark.dbus, pytest.mark.root]

INTERNAL = (f"{ERROR_PREFIX}Failed", "internal error: see the journal of autokmodd")


class Crude:
    def __init__(self, machine: Machine, process: subprocess.Popen[str], log: Path) -> None:
        self.machine, self.process, self.log = machine, process, log
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        self.connection = Gio.DBusConnection.new_for_address_sync(machine.bus, flags, None, None)

    def call(self, method: str, arguments: Any = None) -> Any:
        """The reply's values; name and text of an error."""
        call = (NAME, PATH, INTERFACE, method, arguments, None, Gio.DBusCallFlags.NONE, 60_000, None)
        try:
            return self.connection.call_sync(*call).unpack()
        except GLib.Error as exc:
            name = Gio.DBusError.get_remote_error(exc)
            return name, exc.message.removeprefix(f"GDBus.Error:{name}: ")

    def start_call(self, method: str, *args: str) -> subprocess.Popen[str]:
        argv = ["busctl", "--system", "--json=short", "call", NAME, PATH, INTERFACE, method, *args]
        return subprocess.Popen(argv, env=self.machine.env(), stdout=subprocess.PIPE, text=True)


@pytest.fixture
def crude(machine: Machine, tmp_path: Path) -> Iterator[Crude]:
    notifications, log = Notifications(tmp_path / "notify"), tmp_path / "log"
    argv = [sys.executable, "-m", "tests.dbus.crude_service"]
    env = machine.env(NOTIFY_SOCKET=str(notifications.path))
    with open(log, "w") as out, subprocess.Popen(argv, env=env, stderr=out, text=True) as process:
        try:
            notifications.until("READY=1")
            crude = Crude(machine, process, log)
            yield crude
            crude.connection.close_sync(None)
        finally:
            process.terminate()
            notifications.close()


def test_slow_calls_run_side_by_side_and_hold_up_nobody(crude: Crude) -> None:
    """Each returns only when three are inside: one after another they would never."""
    calls = [crude.start_call("Meet", "u", "3") for _ in range(2)]
    until(lambda: crude.call("Quick") == (2,))
    assert crude.call("Pair") == ("one", -1)
    assert crude.call("Meet", GLib.Variant("(u)", (3,))) == (3,)
    for call in calls:
        out, _ = call.communicate(timeout=60)
        assert json.loads(out)["data"] == [3]


def test_results_of_every_shape(crude: Crude) -> None:
    assert crude.call("Pair") == ("one", -1)
    assert crude.call("Nothing") == ()
    (record,) = crude.call("Record")
    assert record == {
        "text": "é??", "whole": 3, "negative": -3, "real": 0.5, "true": True, "texts": ["a", "b"],
        "records": [{"a": 1}], "empty": [], "inner": {"b": "c"}, "mixed": [1, "a"],
    }  # fmt: skip


def test_types_in_a_record(crude: Crude) -> None:
    done = crude.machine.busctl("call", NAME, PATH, INTERFACE, "Record")
    (record,) = json.loads(done.stdout)["data"]
    assert {key: value["type"] for key, value in record.items()} == {
        "text": "s", "whole": "t", "negative": "x", "real": "d", "true": "b", "texts": "as", "records": "aa{sv}",
        "empty": "av", "inner": "a{sv}", "mixed": "av",
    }  # fmt: skip
    assert plain(record)["records"] == [{"a": 1}]


@pytest.mark.parametrize("method", ["Break", "BreakThreaded", "Misfit"])
def test_a_mistake_of_the_program_is_told_without_its_secrets(crude: Crude, method: str) -> None:
    assert crude.call(method) == INTERNAL
    assert "Traceback" in crude.log.read_text()
    assert crude.call("Nothing") == ()


def test_an_error_of_ours_has_its_name_and_no_traceback(crude: Crude) -> None:
    name, text = crude.call("Own")
    assert name == f"{ERROR_PREFIX}UnknownKernel"
    assert text.startswith("no kernel 6.1 on this machine")
    assert crude.log.read_text() == ""


def test_who_calls(crude: Crude) -> None:
    assert crude.call("Who") == (0,)
    done = crude.machine.busctl("call", NAME, PATH, INTERFACE, "Who", before=NOBODY)
    assert json.loads(done.stdout)["data"] == [65534]


def test_a_property_is_not_written_even_where_the_xml_would_let_it(crude: Crude) -> None:
    done = crude.machine.busctl("set-property", NAME, PATH, INTERFACE, "Count", "u", "8")
    assert done.returncode != 0
    assert "properties cannot be written" in done.stderr
    done = crude.machine.busctl("get-property", NAME, PATH, INTERFACE, "Count")
    assert json.loads(done.stdout)["data"] == 7


def test_ten_thousand_calls_leave_no_trace(crude: Crude) -> None:
    def resident_kib() -> int:
        status = Path(f"/proc/{crude.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    for _ in range(500):
        crude.call("Quick")
        crude.call("Own")
    before = resident_kib()
    for _ in range(5000):
        crude.call("Quick")
        crude.call("Own")
    assert resident_kib() - before < 1024  # the leak alone would be 17 MiB
