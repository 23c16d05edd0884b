"""A pipe where a file is expected keeps its reader for ever: it is a wrong file, and the rest is served.

Not of the modules themselves: depmod(8) reads those, and is ended at its time limit.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.dbus.busmachine import LIMIT_S, Machine, until
from tests.dbus.test_daemon import configure
from tests.dbus.test_service import A, B
from tests.unit.handmade import add_kernel, add_source, place, record

pytestmark = [pytest.mark.dbus, pytest.mark.root]

HEADERS = f"usr/src/linux-headers-{A}"
MODULES = f"usr/lib/modules/{A}"
PLACES = (
    "usr/src/x-1/dkms.conf",
    "usr/src/y-1/autokmod.toml",
    "etc/dkms/z.conf",
    "etc/dkms/framework.conf",
    "etc/os-release",
    "etc/fstab",
    "etc/passwd",
    "etc/modprobe.d/x.conf",
    f"boot/initrd.img-{A}",
    f"boot/config-{A}",
    f"boot/vmlinuz-{A}",
    f"boot/System.map-{A}",
    "boot/grub/grub.cfg",
    "boot/grub/grubenv",
    "boot/loader/loader.conf",
    "boot/loader/entries/a.conf",
    "boot/EFI/Linux/a.efi",
    f"{HEADERS}/.config",
    f"{HEADERS}/Module.symvers",
    f"{HEADERS}/Makefile",
    f"{HEADERS}/include/generated/utsrelease.h",
    f"{HEADERS}/include/generated/autoconf.h",
    f"{HEADERS}/include/config/auto.conf",
    f"{HEADERS}/.kernelvariables",
    f"{MODULES}/modules.dep",
    f"{MODULES}/pkgbase",
    f"{MODULES}/config",
    "var/lib/shim-signed/mok/MOK.priv",
    "var/lib/shim-signed/mok/MOK.der",
    "var/lib/dkms/mok.key",
    "var/lib/autokmod/keys/mok.key",
    "var/lib/autokmod/keys/mok.der",
    "var/lib/autokmod/bootguard.json",
    "usr/share/doc/x.ko",
    "etc/kernel/postinst.d/dkms",
    "etc/kernel/install.d/40-dkms.install",
    "usr/lib/autokmod/stablelists/x",
    "var/cache/autokmod/sources/x-1.json",
)


def fifo(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file, 0o755)


def test_whatever_is_a_pipe_the_other_kernel_is_served(machine: Machine) -> None:
    paths = machine.paths
    configure(machine)
    for krel in (A, B):
        add_kernel(paths, krel)
    for package in ("x", "y", "z"):
        add_source(paths, package, "1")
    record(paths, A, place(paths, A, "z"))
    for name in PLACES:
        fifo(paths.root / name)
    with machine.daemon() as daemon:
        until(lambda: B in machine.known() and machine.get("NJobs") == 0)
        assert B in {kernel["krel"] for kernel in machine.call("ListKernels")}
        reasons = {package["name"]: package["problem"]["kind"] for package in machine.call("ListPackages")[:2]}
        assert reasons == {"x": "source-special-file", "y": "source-special-file"}
        machine.call("ListNeighbours")
        assert "Traceback" not in daemon.log


@pytest.mark.parametrize("name", ["autokmod.toml.d/x.toml", "packages.d/x.toml"])
def test_a_configuration_that_is_a_pipe(machine: Machine, name: str) -> None:
    configure(machine)
    file = machine.paths.etc / name
    with machine.daemon():
        fifo(file)
        until(lambda: machine.get("ConfigurationError") == f"{file}: cannot be read: not a regular file")
    with machine.daemon(ready=False) as daemon:
        assert daemon.process.wait(LIMIT_S) == 78
        assert f"{file}: cannot be read: not a regular file" in daemon.log
