"""What a desktop asks before it offers to restart: two properties, and a signal when they change."""

from __future__ import annotations

from typing import Any

import pytest

from autokmod.act.bootguard import write_guard
from autokmod.model import GuardState, Hold, Reason
from tests.dbus.busmachine import Machine, plain, until
from tests.dbus.test_service import busy
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
        until(lambda: plain(machine.get("NextBootReason")).get("kind") == "next-boot-unknown")


def test_why_it_is_that_kernel_and_by_which_boot_loader(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    boots(machine, A)
    with machine.daemon(), machine.signals() as signals:
        until(lambda: (machine.get("NextBootLoader"), machine.get("NextBootEntry")) == ("grub", "x"))
        assert plain(machine.get("NextBootReason"))["kind"] == "next-boot"
        (machine.paths.boot / "grub/grub.cfg").write_text("menuentry other { chainloader /other.efi }\n")
        told = signals.until_told("PropertiesChanged", "NextBootReason", "next-boot-other")
        assert "'NextBootKernel': <''>" in told


def guard(machine: Machine) -> Any:
    return plain(machine.get("BootGuard"))


def test_the_boot_guards_state(machine: Machine) -> None:
    """It would end its hold, and there is no boot loader's tool here; then nobody can read what it wrote down."""
    add_kernel(machine.paths, A)
    add_kernel(machine.paths, B)
    why = Reason("package-not-ready", "evdi is required", hint="autokmodctl status")
    hold = Hold(B, A, "systemd-boot", "x", "", 1.0, 2, "boot", why)
    write_guard(machine.paths, GuardState(hold, last_good=A, given_up=("6.0",)))
    with machine.daemon(), machine.signals() as signals:
        until(lambda: guard(machine).get("problem", {}).get("kind") == "guard-failed")
        told = guard(machine)
        assert (told["hold"]["kernel"], told["hold"]["keeps"], told["hold"]["boots"]) == (B, A, 2)
        assert told["hold"]["why"] == {"kind": why.kind, "text": why.text, "hint": why.hint}
        assert (told["last_good"], told["given_up"]) == (A, ["6.0"])
        assert (told["boot_limit"], told["time_limit_s"]) == (10, 14 * 86400)
        machine.settled(A, B)
        with busy(machine):
            machine.paths.boot_guard.write_text("{")
            machine.call("Reconcile", "1", A, "false")
            signals.until_told("PropertiesChanged", "BootGuard", "guard-damaged")
        until(lambda: "problem" not in guard(machine))
        assert "hold" not in guard(machine)
