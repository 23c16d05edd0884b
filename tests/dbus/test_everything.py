"""A client that knows only the XML can do what autokmodctl does: each verb has its methods, or needs none."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from autokmod.ctl.main import make_parser
from autokmod.daemon.bus import INTERFACE, NAME, PATH
from autokmod.daemon.service import XML
from tests.dbus.busmachine import NOBODY, Machine, plain
from tests.dbus.test_service import A, B, busy
from tests.unit.handmade import add_kernel, add_source, place, record

pytestmark = [pytest.mark.dbus, pytest.mark.root]

VERBS = {
    "status": ("ListKernels", "ListNeighbours"),
    "ready": ("ListKernels",),
    "list-kernels": ("ListKernels",),
    "list-packages": ("ListPackages",),
    "list-jobs": ("ListJobs",),
    "explain": ("Explain",),
    "logs": ("ReadLog",),
    "verify": ("Verify",),
    "reconcile": ("Reconcile",),
    "retry": ("ListKernels", "Reconcile"),
    "cancel": ("CancelJob",),
    "wait": ("ListJobs", "JobRemoved", "GetJob"),
    "gc": ("CollectGarbage",),
}
# About files that the caller has at hand, or done by hand in the foreground: the daemon takes no part.
WITHOUT = {"check", "lint", "new", "key", "build", "adopt", "release", "initrd"}


def verbs() -> set[str]:
    (sub,) = [a for a in make_parser(["--help"])._actions if isinstance(a, argparse._SubParsersAction)]
    return set(sub.choices)


def test_every_verb_is_accounted_for() -> None:
    members = {str(m.get("name")) for m in ET.fromstring(XML).iter() if m.tag in ("method", "signal")}
    for names in VERBS.values():
        assert set(names) <= members
    assert verbs() == set(VERBS) | WITHOUT
    text = XML.split("What autokmodctl does", 1)[1].split("-->", 1)[0]
    assert all(verb in text for verb in verbs())


def asked(machine: Machine, method: str, *args: str) -> Any:
    """As a plain user, by busctl: everything that the method returns."""
    done = machine.busctl("call", NAME, PATH, INTERFACE, method, *args, before=NOBODY)
    assert done.returncode == 0, done.stderr
    return [plain(item) for item in json.loads(done.stdout)["data"]]


def test_logs(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    add_kernel(machine.paths, B)
    add_source(machine.paths, "evdi", "1.0")
    record(machine.paths, A, place(machine.paths, A, "evdi"))
    with busy(machine), machine.daemon():
        log = Path(machine.paths.builds / "key-evdi/build.log")
        assert machine.error("ReadLog", "evdi", A)[0] == "NoLog"
        log.parent.mkdir()
        log.write_bytes(b"make: \xff\0\n" + b"x" * (1 << 20))
        path, text = asked(machine, "ReadLog", "ss", "evdi", A)
        assert path == str(log)
        assert text == "x" * (1 << 20)
        log.write_bytes(b"make: \xff\0\n")
        assert asked(machine, "ReadLog", "ss", "evdi", A)[1] == "make: \ufffd?\n"
        assert machine.error("ReadLog", "evdi", B)[0] == "NoLog"
        assert machine.error("ReadLog", "nvidia", A)[0] == "UnknownPackage"
        assert machine.error("ReadLog", "evdi", "9.9")[0] == "UnknownKernel"


def test_verify(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    add_kernel(machine.paths, B)
    record(machine.paths, A, place(machine.paths, A, "evdi"))
    with busy(machine), machine.daemon():
        (kernels,) = asked(machine, "Verify", "as", "0")
        assert kernels == [{"krel": A, "files": 1, "problems": []}, {"krel": B, "files": 0, "problems": []}]
        (machine.paths.own_dir(A, "evdi") / "evdi.ko").write_bytes(b"something else")
        ((kernel,),) = asked(machine, "Verify", "as", "1", A)
        assert kernel["problems"]
        assert machine.error("Verify", "['9.9']")[0] == "UnknownKernel"


def test_retry_by_hand(machine: Machine) -> None:
    """What failed is in ListKernels, and Reconcile with force tries it again."""
    add_kernel(machine.paths, A)
    with machine.daemon(), machine.signals() as signals:
        machine.settled(A)
        (number,) = machine.call("Reconcile", "1", A, "true")
        signals.until_told(f"JobRemoved (uint32 {number}, 'reconcile-{A}', 'done')")
        assert machine.call("GetJob", str(number))["result"] == "done"
