"""Kernel updates on a real system, each judged after a reboot into the kernel that came.

One machine goes through all of it, as a machine does in its life: each case begins where the one before it ended.
"""

from __future__ import annotations

import json
import re

import pytest

from autokmod.events import Event
from autokmod.model import LoadState, Readiness
from tests.vmsys.base import PLAIN
from tests.vmsys.guest import ANYBODY, MODULES, Guest
from tests.vmsys.world import BROKEN, CUT, NEWER, SOURCES, UPGRADED, Kernels, World

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.kbuild]

BUS = "io.github.autokmod.AutoKmod1 /io/github/autokmod/AutoKmod1 io.github.autokmod.AutoKmod1.Manager"
MASKED = "systemctl mask --runtime --now autokmodd.service"


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
    guest.apt("purge", image(kernels.first), headers(kernels.first))
    guest.sh(f"! test -e /lib/modules/{kernels.first}")
    guest.nothing_dangles()
    guest.wait()
    guest.prove(event=Event.MODULES_PROMOTED)


def test_source_upgraded(guest: Guest, kernels: Kernels) -> None:
    """11. that source package upgraded while a kernel stands: rebuilt, and linked for a kernel that comes later"""
    guest.apt("install", f"{source(UPGRADED)}={NEWER}")
    guest.until_examined(kernels.equal, NEWER)
    guest.prove(packages=(UPGRADED,))
    guest.apt("install", image(kernels.first), headers(kernels.first))
    guest.wait()
    guest.reboot(kernels.first)
    guest.prove(owner=kernels.equal, packages=(UPGRADED,))
    guest.prove(packages=(CUT,))  # what was built for it once is still in the store


def test_owner_removed_again(guest: Guest, kernels: Kernels) -> None:
    """7. and the other way: the newer kernel owned them"""
    guest.apt("remove", image(kernels.equal), headers(kernels.equal))
    guest.nothing_dangles()
    guest.wait()
    guest.prove(packages=(UPGRADED,), event=Event.MODULES_PROMOTED)


def test_other_symbols(guest: Guest, kernels: Kernels, world: World) -> None:
    """2. a kernel with other symbols: rebuilt; also in the initrd, which loads it before the root is mounted"""
    krel, version = kernels.replaced, world.versions[0]
    guest.load_in_initrd(MODULES[UPGRADED])
    guest.apt("install", f"{image(krel)}={version}", f"{headers(krel)}={version}")
    guest.wait()
    guest.reboot(krel)
    guest.prove_early(MODULES[UPGRADED])
    assert guest.booted(krel) == {MODULES[UPGRADED]: LoadState.LOADED, MODULES[CUT]: LoadState.NOT_LOADED}
    guest.sh(f"modprobe {MODULES[CUT]} && systemctl restart autokmodd.service")
    guest.wait()
    assert guest.booted(krel) == dict.fromkeys(MODULES.values(), LoadState.LOADED)
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
    guest.apt("remove", source(BROKEN))
    guest.until(f"autokmodctl ready {krel}")


def test_replaced_in_place(guest: Guest, kernels: Kernels, world: World) -> None:
    """12. a kernel reinstalled under the same release with other symbols: rebuilt, also in the initrd"""
    krel, version = kernels.replaced, world.versions[1]
    before = guest.sh(f"cat /lib/modules/{krel}/updates/autokmod/*/*.ko | sha256sum")
    guest.apt("install", f"{image(krel)}={version}", f"{headers(krel)}={version}")
    guest.wait()
    assert guest.sh(f"cat /lib/modules/{krel}/updates/autokmod/*/*.ko | sha256sum") != before
    guest.reboot(krel)
    guest.prove_early(MODULES[UPGRADED])
    assert guest.booted(krel)[MODULES[UPGRADED]] == LoadState.LOADED
    guest.prove()


def test_no_headers(guest: Guest, kernels: Kernels) -> None:
    """4. no headers: waiting, said so, and the machine boots"""
    krel = kernels.others[1]
    guest.apt("install", image(krel))
    guest.wait()
    guest.reboot(krel)
    status = guest.status(krel)
    assert status["readiness"] == Readiness.WAITING
    assert headers(krel) in status["reasons"][0]["hint"]
    assert guest.run(f"autokmodctl ready {krel}").status == 3
    assert guest.journal(Event.KERNEL_WAITING, kernel=krel)
    assert guest.run(f"modprobe {MODULES[UPGRADED]}").status != 0
    assert guest.initrds_made(krel) == 1  # by the distribution itself


def test_headers_later(guest: Guest, kernels: Kernels) -> None:
    """3. its headers in a later transaction: built, or linked where that fits; its initrd is made anew once"""
    krel = kernels.others[1]
    guest.apt("install", headers(krel))
    guest.wait()
    guest.reboot(krel)
    guest.prove_early(MODULES[UPGRADED])
    guest.prove(owner=ANYBODY)
    assert guest.initrds_made(krel) == 2
    assert len(guest.journal(Event.INITRD_REFRESHED, kernel=krel)) == 1


def test_reboot_at_once(guest: Guest, kernels: Kernels) -> None:
    """5. apt install && reboot: finished before the machine goes down"""
    krel = kernels.others[2]
    guest.reboot(krel, f"apt-get -q -y install {image(krel)} {headers(krel)} && reboot")
    guest.prove(owner=ANYBODY)
    flushed = guest.sh("journalctl --no-pager -q -b -1 -u autokmod-flush.service")
    assert f"{krel} is ready" in flushed, flushed


def test_without_daemon(guest: Guest, kernels: Kernels) -> None:
    """9. the daemon stopped, or masked, or Python broken: apt succeeds all the same"""
    krel = kernels.equal
    guest.sh("systemctl stop autokmodd.service")
    guest.apt("remove", *(package(k) for k in (kernels.replaced, kernels.others[1]) for package in (image, headers)))
    guest.nothing_dangles()
    guest.sh(MASKED)
    guest.apt("install", headers(krel))
    guest.sh("mv /usr/bin/python3.11 /usr/bin/python3.11.away")
    assert guest.run("autokmodctl status").status != 0
    guest.apt("install", image(krel))
    guest.sh("mv /usr/bin/python3.11.away /usr/bin/python3.11")
    assert guest.sh("dpkg --audit") == ""
    guest.reboot(krel)
    guest.prove(owner=ANYBODY)


def test_power_cut(guest: Guest, kernels: Kernels) -> None:
    """8. the power fails while something compiles, and while something is placed: the next boot makes it right"""
    gone = kernels.others[2]
    guest.apt("install", f"{source(CUT)}={NEWER}", f"{image(gone)}-", f"{headers(gone)}-")
    guest.sh("sync")  # what apt brought is not what this is about
    guest.until("pgrep -u autokmod-build -x cc1 >/dev/null")
    guest.cut_power(kernels.equal)
    guest.until(f"grep -q made={NEWER} /lib/modules/*/updates/autokmod/{CUT}/*.ko")
    guest.cut_power(kernels.first)
    guest.come_to_rest()
    guest.nothing_dangles()
    guest.nothing_is_left_over()
    guest.prove(owner=ANYBODY)
    for krel in (kernels.first, kernels.equal):
        placement = guest.placements(krel)[CUT]
        assert (placement["version"], placement["verified"]) == (NEWER, True)


def test_source_removed(guest: Guest, kernels: Kernels) -> None:
    """11. the source package removed: its modules leave every kernel, and the initrd"""
    carried = f"lsinitramfs /boot/initrd.img-{kernels.first} | grep -q {MODULES[UPGRADED]}.ko"
    guest.sh(carried)
    guest.apt("remove", source(UPGRADED))
    guest.until(f"! ls -d /lib/modules/*/*/autokmod/{UPGRADED} 2>/dev/null")
    guest.wait()
    guest.reboot(kernels.first)
    assert guest.run(f"modprobe {MODULES[UPGRADED]} || test -d /sys/module/{MODULES[UPGRADED]}").status != 0
    assert UPGRADED not in guest.placements(kernels.first)
    guest.prove(packages=(CUT,))
