"""After a boot: the daemon of the system that runs, and what it says of the modules that came up, or came up late.

The daemon's root is /, in a chroot of its own, where the test writes what the kernel would say in /proc and /sys.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeRoot
from tests.dbus.busmachine import CHECKOUT, Machine, running_bus, until
from tests.realroot import mount
from tests.unit.handmade import add_kernel, record
from tests.unit.test_booted import boot, image, place_module

pytestmark = [pytest.mark.dbus, pytest.mark.root]

KREL = os.uname().release
OTHER = "6.1.0-1-other"
# For an impatient test: every second, for a minute.
SOON = """
import sys
from autokmod.daemon import late, main
late.LATE_S, late.NEAR_S = tuple(range(1, 60)), 0.1
sys.exit(main.main())
"""


class Booted(Machine):
    """A daemon that takes this for the system that runs."""

    start = ("-m", "autokmod.daemon.main")

    def argv(self, *options: str) -> list[str]:
        return ["chroot", str(self.paths.root), sys.executable, *self.start, *options]


@pytest.fixture
def machine(tmp_path: Path, real_root: MakeRoot) -> Iterator[Booted]:
    """Of the kernel that runs the tree is not whole, so that no job plans anything for it."""
    root = real_root().path
    with running_bus(tmp_path) as bus:
        machine = Booted(tmp_path / "machine", bus.address, root)
        for directory in {CHECKOUT, Path(sys.prefix), tmp_path} - {Path("/usr")}:
            (root / directory.relative_to("/")).mkdir(parents=True, exist_ok=True)
            mount("--rbind", str(directory), str(root / directory.relative_to("/")))
        mount("--rbind", "/dev", str(root / "dev"))
        paths = machine.paths
        add_kernel(paths, KREL, modules=False)
        add_kernel(paths, OTHER, headers=False)
        record(paths, KREL, *(place_module(paths, KREL, name) for name in ("one", "two")))
        (root / "etc/autokmod/packages.d").mkdir(parents=True)
        (root / "etc/autokmod/packages.d/one.toml").write_text("required = true\n")
        boot(paths, "two", krel=KREL)
        yield machine


def test_a_module_that_comes_late_is_seen_with_the_next_job(machine: Booted) -> None:
    previous = image(machine.paths, KREL)
    with machine.daemon() as daemon, machine.signals() as signals:
        until(lambda: machine.get("ThisBoot") == "differs")
        assert "one is not loaded" in daemon.log
        boot(machine.paths, "one", "two", krel=KREL)
        machine.call("Reconcile", "1", OTHER, "false")
        signals.until_told("PropertiesChanged", "ThisBoot", "as-promised")
        until(lambda: not previous.exists())
        (found,) = (k for k in machine.call("ListKernels") if k["krel"] == KREL)
        assert {m["state"] for m in found["booted"]["modules"]} == {"loaded"}


def test_a_module_that_comes_late_is_seen_after_a_while(machine: Booted) -> None:
    previous = image(machine.paths, KREL)
    machine.start = ("-c", SOON)
    with machine.daemon() as daemon:
        until(lambda: "one is not loaded" in daemon.log)
        boot(machine.paths, "one", "two", krel=KREL)
        until(lambda: not previous.exists())
        until(lambda: machine.get("ThisBoot") == "as-promised")


def test_a_boot_directory_that_cannot_be_written_holds_up_nobody(machine: Booted) -> None:
    """As after a file system error: nothing can be removed from /boot, and kernels are seen to all the same."""
    previous = image(machine.paths, KREL)
    boot(machine.paths, "one", "two", krel=KREL)
    mount("--bind", str(machine.paths.boot), str(machine.paths.boot))
    mount("-o", "remount,bind,ro", str(machine.paths.boot))
    with machine.daemon() as daemon:
        until(lambda: OTHER in machine.known())
        assert "could not be removed: [Errno 30] Read-only file system" in daemon.log
        until(lambda: machine.get("ThisBoot") == "as-promised")
        assert previous.exists()
        mount("-o", "remount,bind,rw", str(machine.paths.boot))
        machine.call("Reconcile", "1", OTHER, "false")
        until(lambda: not previous.exists())
        assert daemon.log.count("could not be removed") == 1
