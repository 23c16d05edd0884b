"""The store collected over the bus: everybody may ask what would go, root alone may let it go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autokmod.act.store import list_builds
from autokmod.files import locked
from tests.dbus.busmachine import NOBODY, Machine
from tests.unit.handmade import add_kernel
from tests.unit.test_store import GOOD, store

pytestmark = [pytest.mark.dbus, pytest.mark.root]

A = "6.1.0-1-amd64"


@pytest.fixture
def stored(machine: Machine) -> Machine:
    add_kernel(machine.paths, A)
    for key, krel in (("1", A), ("2", "6.0.0-gone")):
        store(machine.paths, replace(GOOD, key=key * 64, krel=krel))
    return machine


def kept(machine: Machine) -> str:
    return "".join(b.key[0] for b in list_builds(machine.paths))


def test_collecting_over_the_bus(stored: Machine) -> None:
    with stored.daemon():
        shown = stored.call("CollectGarbage", "true")
        assert [(r["krel"], r["reason"]["kind"]) for r in shown["removed"]] == [("6.0.0-gone", "kernel-gone")]
        assert kept(stored) == "12"
        name, text = stored.error("CollectGarbage", "false", before=NOBODY)
        assert (name, text.strip()) == ("NotAuthorized", "not permitted to remove stored builds: try it as root")
        with locked(stored.paths.build_lock):
            name, text = stored.error("CollectGarbage", "false")
            assert name == "Busy"
            assert "something is being built" in text
        assert kept(stored) == "12"
        done = stored.call("CollectGarbage", "false")
        assert (done["removed"], done["builds"]) == (shown["removed"], 1)
        assert kept(stored) == "1"
        assert stored.call("CollectGarbage", "false")["removed"] == []
