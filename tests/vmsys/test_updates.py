"""Kernel updates on a real system, each judged after a reboot into the kernel that came.

One machine goes through all of it, as a machine does in its life: each case begins where the one before it ended.
"""

from __future__ import annotations

import json
import re

import pytest

from autokmod.events import Event
from autokmod.model import Readiness
from tests.vmsys.base import PLAIN
from tests.vmsys.guest import ANYBODY, MODULES, Guest
from tests.vmsys.world import BROKEN, SOURCES, UPGRADED, Kernels, World

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.kbuild]

BUS = "io.github.autokmod.AutoKmod1 /io/github/autokmod/AutoKmod1 io.github.autokmod.AutoKmod1.Manager"


@pytest.fixture(scope="module")
def kernels(world: World) -> Kernels:
    return world.kernels


def image(krel: str) -> str:
    return f"linux-image-{krel}"


def headers(krel: str) -> str:
    return f"linux-headers-{krel}"


def source(name: str) -> str:
    return f"{name}-source"


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


def test_source_arrives(guest: Guest, kernels: Kernels, world: World) -> None:
    """11. a source package installed while a kernel stands: built, and its build's output is in the journal"""
    guest.apt("install", *(f"{source(name)}={version}" for name, version in world.sources.items()))
    for name in SOURCES:
        guest.until_examined(kernels.first, world.sources[name])
    guest.prove()
    (entry,) = guest.journal(Event.PACKAGE_BUILT, package=UPGRADED)
    assert entry["AUTOKMOD_KERNEL"] == kernels.first
    assert entry["_SYSTEMD_UNIT"] == "autokmodd.service"
    said = guest.sh(f"journalctl --no-pager -q AUTOKMOD_JOB={entry['AUTOKMOD_JOB']}")
    assert entry["MESSAGE"] in said
    assert f"{MODULES[UPGRADED]}.ko" in guest.sh(f"autokmodctl logs {UPGRADED} {kernels.first}")


def test_unprivileged(guest: Guest, kernels: Kernels) -> None:
    """10. an unprivileged user may read, and may not change, over D-Bus"""
    as_user = f"runuser -u {PLAIN} --"
    assert kernels.first in guest.sh(f"{as_user} busctl --json=short call {BUS} ListKernels")
    assert kernels.first in guest.sh(f"{as_user} autokmodctl status --json=short || test $? = 3")
    name, path, interface = BUS.split()
    for call in (f"Reconcile array:string:{kernels.first} boolean:false", "CancelJob uint32:1"):
        refused = guest.run(f"{as_user} dbus-send --system --print-reply --dest={name} {path} {interface}.{call}")
        assert refused.status != 0
        assert re.match(r"Error \S+\.(NotAuthorized|AccessDenied|InteractiveAuthorizationRequired):", refused.output)
    refused = guest.run(f"{as_user} busctl set-property {BUS} State s idle")
    assert refused.status != 0
    assert guest.run(f"{as_user} autokmodctl reconcile {kernels.first}").status != 0
    taken = guest.run(f"{as_user} busctl call org.freedesktop.DBus / org.freedesktop.DBus RequestName su {name} 0")
    assert taken.status != 0
    assert json.loads(guest.sh("autokmodctl list-jobs --json=short"))["jobs"] == []


def test_equal_symbols(guest: Guest, kernels: Kernels) -> None:
    """1. a newer kernel with equal symbols: linked before apt returns"""
    krel = kernels.equal
    done = guest.sh(f"apt-get -q -y install {image(krel)} {headers(krel)} && date +%s.%N").split()[-1]
    links = guest.sh(f"find /lib/modules/{krel}/weak-updates/autokmod -type l -printf '%C@ %f\\n'").split("\n")
    stood = {name: float(time) for time, name in (line.split() for line in links if line)}
    assert {name.removesuffix(".ko") for name in stood} == set(MODULES.values())
    assert max(stood.values()) <= float(done)
    guest.reboot(krel)
    guest.prove(owner=kernels.first)


def test_owner_removed(guest: Guest, kernels: Kernels) -> None:
    """7. the kernel that owns linked files is removed: promoted, nothing dangles"""
    guest.apt("remove", image(kernels.first), headers(kernels.first))
    guest.nothing_dangles()
    guest.wait()
    guest.prove(event=Event.MODULES_PROMOTED)


def test_other_symbols(guest: Guest, kernels: Kernels, world: World) -> None:
    """2. a kernel with other symbols: rebuilt"""
    krel, version = kernels.replaced, world.versions[0]
    guest.apt("install", f"{image(krel)}={version}", f"{headers(krel)}={version}")
    guest.wait()
    guest.reboot(krel)
    guest.prove()


def test_broken_package(guest: Guest, kernels: Kernels) -> None:
    """6. a package that does not compile: apt succeeded, the others were served, status names the error"""
    krel = kernels.replaced
    status = guest.status(krel)
    assert status["readiness"] == Readiness.DEGRADED
    placement = next(p for p in status["placements"] if p["package"] == BROKEN)
    assert placement["failed"]
    assert any("a_function_that_was_removed" in error["text"] for error in placement["errors"])
    assert "a_function_that_was_removed" in guest.run("autokmodctl status").output
    assert guest.journal(Event.BUILD_FAILED, kernel=krel, package=BROKEN)
    assert guest.sh("dpkg --audit") == ""


def test_no_headers(guest: Guest, kernels: Kernels) -> None:
    """4. no headers: waiting, said so, and the machine boots"""
    krel = kernels.others[1]
    guest.apt("install", image(krel))
    guest.wait()
    guest.reboot(krel)
    status = guest.status(krel)
    assert status["readiness"] == Readiness.WAITING
    assert headers(krel) in status["reasons"][0]["hint"]
    assert guest.run("autokmodctl ready").status == 3
    assert guest.journal(Event.KERNEL_WAITING, kernel=krel)
    assert guest.run(f"modprobe {MODULES[UPGRADED]}").status != 0


def test_headers_later(guest: Guest, kernels: Kernels) -> None:
    """3. its headers in a later transaction: built, or linked where that fits"""
    krel = kernels.others[1]
    guest.apt("install", headers(krel))
    guest.wait()
    guest.reboot(krel)
    guest.prove(owner=ANYBODY)


def test_reboot_at_once(guest: Guest, kernels: Kernels) -> None:
    """5. apt install && reboot: finished before the machine goes down"""
    krel = kernels.others[2]
    guest.reboot(krel, f"apt-get -q -y install {image(krel)} {headers(krel)} && reboot")
    guest.prove(owner=ANYBODY)
    flushed = guest.sh("journalctl --no-pager -q -b -1 -u autokmod-flush.service")
    assert f"{krel} is degraded" in flushed, flushed  # the package that does not compile
