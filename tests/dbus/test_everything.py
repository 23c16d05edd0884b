"""A client that knows only the XML can do what autokmodctl does: each verb has its methods, or needs none."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from autokmod.act.newkey import create_key
from autokmod.config import Config
from autokmod.ctl.main import make_parser
from autokmod.daemon.bus import INTERFACE, NAME, PATH
from autokmod.daemon.core import Limits
from autokmod.daemon.service import XML
from autokmod.jobs.gc import Collection
from autokmod.jobs.keyring import keyring_to_json, read_keyring
from autokmod.model import GuardState, Job, KernelStatus, Package, Placement, Reason
from autokmod.observe.keys import find_keys
from autokmod.observe.neighbours import Neighbour
from tests.dbus.busmachine import NOBODY, Machine, plain
from tests.dbus.test_service import A, B, busy_daemon
from tests.unit.handmade import add_kernel, add_source, place, record

pytestmark = [pytest.mark.dbus, pytest.mark.root]

VERBS = {
    "status": ("ListKernels", "ListJobs", "ListNeighbours", "BootGuard"),
    "ready": ("NextBootKernel", "NextBootReason", "ListKernels"),
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
    "watch": ("ListJobs", "JobNew", "JobChanged", "JobProgress", "JobRemoved", "GetJob", "ReadinessChanged"),
    "gc": ("CollectGarbage",),
    "initrd restore": ("RestoreInitrd",),
    "key status": ("GetSigning",),
}
# The XML gives the reasons: files that the caller has at hand, /etc, a person who types a password, Ctrl-C.
WITHOUT = {"check", "lint", "new", "key create", "key enroll", "build", "adopt", "release"}
WITHOUT |= {f"initrd {verb}" for verb in ("list", "unpack", "repack", "overlay")}


MEMBERS = ("method", "signal", "property")


def choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def verbs() -> set[str]:
    """Where a verb has verbs of its own, these."""
    found = choices(make_parser(["--help"]))
    return {f"{verb} {below}".strip() for verb, parser in found.items() for below in choices(parser) or ("",)}


def test_every_verb_is_accounted_for() -> None:
    members = {str(m.get("name")) for m in ET.fromstring(XML).iter() if m.tag in MEMBERS}
    for names in VERBS.values():
        assert set(names) <= members
    assert verbs() == set(VERBS) | WITHOUT
    text = XML.split("What autokmodctl does", 1)[1].split("-->", 1)[0]
    for verb, names in VERBS.items():
        assert verb in text
        assert all(name in text for name in names)
    assert all(word in text for verb in WITHOUT for word in verb.split())


# ---- the XML names every key that is sent --------------------------------------------------------

SENT: dict[str, tuple[type, ...]] = {
    "ListKernels": (KernelStatus,),
    "ListPackages": (Package,),
    "ListNeighbours": (Neighbour,),
    "ListJobs": (Job,),
    "Explain": (Placement,),
    "CollectGarbage": (Collection,),
    "NextBootReason": (Reason,),
    "BootGuard": (GuardState, Limits),
}
BY_HAND = {
    "GetJob": {"result", "message"},
    "Verify": {"krel", "files", "problems"},
    "RestoreInitrd": {"krel", "good", "word"},
    "GetSigning": {"secure_boot", "keys", "kernels", "krel", "enforced", "signed_by", "unsigned", "problem"}
    | {"origin", "key", "certificate", "used", "enrolment", "name", "fingerprint", "not_after"},
}


def described() -> dict[str, str]:
    """Member → the comment above it."""
    found = re.findall(r'<!--((?:(?!-->).)*)-->\s*<(?:method|signal|property) name="(\w+)"', XML, re.DOTALL)
    return {name: comment for comment, name in found}


def keys(hint: Any, seen: frozenset[Any] = frozenset()) -> set[str]:
    """Of a dataclass, and of all that are in its fields; reasons are described once, at the top."""
    inner = set().union(*(keys(part, seen) for part in get_args(hint)))
    if not dataclasses.is_dataclass(hint) or hint in seen:
        return inner
    types = get_type_hints(hint)
    own = {f.name for f in dataclasses.fields(hint)} if hint is not Reason else set()
    return inner | own | set().union(*(keys(part, seen | {hint}) for part in types.values()))


@pytest.mark.parametrize("member", [*SENT, *BY_HAND])
def test_every_key_is_named_where_its_member_is_described(member: str) -> None:
    comments = described()
    text = comments[member] + (comments["Explain"] if member == "ListKernels" else "")
    sent = BY_HAND[member] if member in BY_HAND else set().union(*(keys(cls) for cls in SENT[member]))
    assert {key for key in sent if f'"{key}"' not in text} == set()


def test_the_keys_of_a_reason_are_named_at_the_top() -> None:
    top = XML.split("<node", 1)[0]
    assert {f.name for f in dataclasses.fields(Reason) if f'"{f.name}"' not in top} == set()


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
    with busy_daemon(machine):
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
    with busy_daemon(machine):
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


def test_key_status(machine: Machine) -> None:
    """The same values as autokmodctl's: they are made by the same function."""
    add_kernel(machine.paths, A)
    create_key(machine.paths, "host")
    with busy_daemon(machine):
        (told,) = asked(machine, "GetSigning")
    keys = find_keys(machine.paths, Config().sign)
    wanted = keyring_to_json(machine.paths, read_keyring(machine.paths, Config(), keys))
    assert told == without_none(wanted)
    assert [k["origin"] for k in told["keys"]] == ["autokmod"]
    assert [k["krel"] for k in told["kernels"]] == [A]


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value
