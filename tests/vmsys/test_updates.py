"""Kernel updates on a real system, each judged after a reboot into the kernel that came.

One machine goes through all of it, as a machine does in its life: each case begins where the one before it ended.
"""

from __future__ import annotations

import json

import pytest

from autokmod.events import Event
from tests.vmsys.guest import Guest

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.kbuild]

BUS = "io.github.autokmod.AutoKmod1 /io/github/autokmod/AutoKmod1 io.github.autokmod.AutoKmod1.Manager"


def test_install(guest: Guest) -> None:
    """make install: the service runs under systemd, and answers on the bus"""
    assert guest.sh("systemctl is-system-running --wait").strip() == "running"
    assert "apt-get install" not in guest.sh("make -C checkout install")
    assert guest.sh("systemctl is-active autokmodd.service").strip() == "active"
    properties = guest.sh("systemctl show autokmodd.service -p Type -p WatchdogUSec -p NRestarts").split()
    assert sorted(properties) == ["NRestarts=0", "Type=notify", "WatchdogUSec=5min"]
    assert json.loads(guest.sh(f"busctl --json=short get-property {BUS} Version"))["data"]
    assert guest.sh("systemctl is-system-running").strip() == "running"
    assert "autokmod" in guest.sh(f"journalctl --list-catalog {Event.KERNEL_READY}")
