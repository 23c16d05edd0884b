"""What a desktop asks before it offers to restart: two properties, and a signal when they change."""

from __future__ import annotations

import pytest

from tests.dbus.busmachine import Machine, until
from tests.unit.handmade import add_kernel

pytestmark = [pytest.mark.dbus, pytest.mark.root]

A, B = "6.1.0-1-amd64", "6.1.0-2-amd64"


def boots(machine: Machine, krel: str) -> None:
    directory = machine.paths.boot / "grub"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "grub.cfg").write_text(f"menuentry x {{ linux /boot/vmlinuz-{krel} }}\n")


def test_the_next_boots_kernel_and_how_it_stands(machine: Machine) -> None:
    for krel in (A, B):
        add_kernel(machine.paths, krel)
    boots(machine, A)
    with machine.daemon():
        until(lambda: (machine.get("NextBootKernel"), machine.get("NextBootReadiness")) == (A, "ready"))
        with machine.signals() as signals:
            boots(machine, B)
            signals.until_told("PropertiesChanged", "NextBootKernel", B)
        until(lambda: machine.get("NextBootReadiness") == "ready")


def test_not_known(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    with machine.daemon():
        machine.settled(A)
        assert (machine.get("NextBootKernel"), machine.get("NextBootReadiness")) == ("", "unknown")
