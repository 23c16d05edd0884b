"""Who else builds here, over the bus."""

from __future__ import annotations

import pytest

from autokmod.act.adopt import adopt
from tests.dbus.busmachine import Machine
from tests.unit.dkmshere import fedora

pytestmark = [pytest.mark.dbus, pytest.mark.root]


def test_neighbours(machine: Machine) -> None:
    with machine.daemon():
        assert machine.call("ListNeighbours") == []
        fedora(machine.paths)
        (told,) = machine.call("ListNeighbours")
        assert (told["name"], told["adopted"], told["reason"]["kind"]) == ("dkms", False, "neighbour-active")
        assert [t["way"] for t in told["triggers"]] == ["plugin", "unit", "packages"]
        adopt(machine.paths, "dkms", 1.0)
        (told,) = machine.call("ListNeighbours")
        assert (told["adopted"], told["triggers"]) == (True, [])
