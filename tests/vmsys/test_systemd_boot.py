"""The boot guard on a machine that systemd-boot starts: what it writes are the firmware's real variables.

The program is installed as a person would, and does it as a service, with all that the service may not do. The newer
kernel is the default by itself; a package that is required does not compile for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import COMPLETE, children
from tests.corpus import Corpus
from tests.system.test_bootguard_real import CONF, MAKE, SOURCE
from tests.vmsys.base import pack_checkout
from tests.vmsys.conftest import KEPT, keep
from tests.vmsys.efi import EfiMachine, why_not
from tests.vmsys.guest import Guest
from tests.vmsys.machine import OPTIONS, machine
from tests.vmsys.world import LOADER, World

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.kbuild]

FILES = {"dkms.conf": CONF, "make.sh": MAKE, "guarded.c": SOURCE, "Makefile": "obj-m := guarded.o\n"}
PLACE = "/usr/src/guarded-1"
CONFIGURED = "/etc/autokmod/packages.d"
DEFAULT = "/sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


@pytest.fixture(scope="module", autouse=True)
def leaves_nothing() -> Iterator[None]:
    """The machine is started anew by one test and outlives it: what is left is looked for at the end."""
    before = children()
    yield
    assert not children() - before


@pytest.fixture(scope="module")
def guest(corpus: Corpus, world: World) -> Iterator[Guest]:
    """Running the newer kernel as the firmware was handed it; the program is not installed yet."""
    if (why := why_not()) is not None:
        (pytest.fail if os.environ.get(COMPLETE) else pytest.skip)(why)
    with TemporaryDirectory(prefix="autokmod-efi-", dir=os.environ.get("AUTOKMOD_VM_SCRATCH")) as scratch:
        checkout = Path(scratch) / "checkout.tar"
        pack_checkout(checkout)
        try:
            with machine(Path(scratch), world.system, (world.archive, checkout), EfiMachine) as found:
                found.power_on(world.kernels.first)
                found.run("mkdir checkout && tar -x -C checkout -f /dev/vdc && apt-get update -q").ok  # noqa: B018
                yield Guest(found)
                if found.is_on:
                    found.run("journalctl --no-pager -q -o short-precise -t autokmodd -t autokmod-hook -p debug")
        finally:
            keep(Path(scratch), corpus.directory / "vmsys" / f"{KEPT}-efi")


@pytest.fixture(scope="module")
def newer(world: World) -> str:
    return world.kernels.first


@pytest.fixture(scope="module")
def older(world: World) -> str:
    return world.kernels.others[1]


def entry(guest: Guest, krel: str) -> str:
    """The entry's file."""
    return guest.sh(f"cd /boot/efi/loader/entries && ls *-{krel}.conf").strip()


def default(guest: Guest) -> str:
    """What the firmware holds; "" where there is no such variable. Nothing of autokmod or systemd reads it here."""
    return guest.sh(f"test ! -e {DEFAULT} || cat {DEFAULT} | tail -c +5 | tr -d '\\000'").strip()


def guard(guest: Guest) -> dict[str, Any]:
    answer = guest.run("autokmodctl status --json=short")
    assert answer.status in (0, 3), answer.output
    return dict(json.loads(answer.output)["boot_guard"])


def next_boot(guest: Guest) -> str:
    kernels = json.loads(guest.run("autokmodctl status --json=short").output)["kernels"]
    (krel,) = (k["krel"] for k in kernels if k["next_boot"])
    return str(krel)


def reboot(guest: Guest, into: str) -> None:
    """Into a kernel that is not ready, with which the unit that would make it so has failed."""
    guest.machine.reboot(into)
    guest.run("systemctl is-system-running --wait")
    guest.wait()


def reconcile(guest: Guest, krel: str) -> None:
    guest.run(f"autokmodctl reconcile --wait {krel}")


def test_install(guest: Guest, newer: str, older: str) -> None:
    """systemd-boot on an EFI system partition, a package, a kernel that it builds for, and one that it does not"""
    guest.sh("mkdir /boot/efi && echo '/dev/vdd1 /boot/efi vfat umask=0077 0 0' >>/etc/fstab && mount /boot/efi")
    guest.sh(f"echo '{OPTIONS}' >/etc/kernel/cmdline && apt-get install -q -y {' '.join(LOADER)}")
    assert entry(guest, newer)
    guest.sh(f"mkdir -p {PLACE} {CONFIGURED} && echo 'required = true' >{CONFIGURED}/guarded.toml")
    for name, text in FILES.items():
        guest.sh(f"cat >{PLACE}/{name} <<'END'\n{text}END\n")
    guest.sh(f"touch {PLACE}/broken-{newer} && make -C checkout install")
    guest.machine.loads = True  # type: ignore[attr-defined]
    reboot(guest, newer)
    assert guest.sh("bootctl status | grep -c 'Product: systemd-boot'").strip() == "1"
    assert default(guest) == ""


def test_keeps_the_older_kernel(guest: Guest, newer: str, older: str) -> None:
    """the newer kernel is not ready: the older one is the default, in the firmware, and comes up"""
    assert "no kernel" in guest.run("autokmodctl status").output or not guard(guest)["hold"]
    guest.apt("install", f"linux-image-{older}", f"linux-headers-{older}")
    guest.wait()
    reconcile(guest, older)
    reconcile(guest, newer)
    hold = guard(guest)["hold"]
    assert hold, guest.tell()
    assert (hold["kernel"], hold["keeps"], hold["loader"], hold["before"]) == (newer, older, "systemd-boot", "")
    assert default(guest) == entry(guest, older) == hold["entry"]
    assert next_boot(guest) == older
    guest.reboot(older)


def test_what_a_person_wants_once(guest: Guest, newer: str, older: str) -> None:
    """bootctl set-oneshot goes before the guard, and does not end what it keeps"""
    guest.sh(f"bootctl set-oneshot {entry(guest, newer)}")
    assert next_boot(guest) == newer
    reconcile(guest, newer)
    assert guard(guest)["hold"]["keeps"] == older
    reboot(guest, newer)
    assert next_boot(guest) == older


def test_gives_it_back(guest: Guest, newer: str, older: str) -> None:
    """mended: the variable is gone, and the newer kernel comes up"""
    assert default(guest) == entry(guest, older)
    guest.sh(f"rm {PLACE}/broken-{newer}")
    reconcile(guest, newer)
    state = guard(guest)
    assert (state["hold"], state["problem"]) == (None, None), guest.tell()
    assert default(guest) == ""
    assert next_boot(guest) == newer
    guest.reboot(newer)
    guest.sh("modprobe guarded && test -d /sys/module/guarded")


def test_what_a_person_chose_meanwhile(guest: Guest, newer: str, older: str) -> None:
    """a default that somebody set before comes back; one that somebody set since stays"""
    guest.sh(f"bootctl set-default {entry(guest, newer)}")
    guest.sh(f"touch {PLACE}/broken-{newer}")
    reconcile(guest, newer)
    assert default(guest) == entry(guest, older)
    guest.sh(f"rm {PLACE}/broken-{newer}")
    reconcile(guest, newer)
    assert default(guest) == entry(guest, newer)

    guest.sh(f"touch {PLACE}/broken-{newer}")
    reconcile(guest, newer)
    assert default(guest) == entry(guest, older)
    guest.sh("bootctl set-default @saved")
    guest.sh(f"rm {PLACE}/broken-{newer}")
    reconcile(guest, newer)
    assert default(guest) == "@saved"
    assert guard(guest)["hold"] is None


def test_variables_that_cannot_be_written(guest: Guest, newer: str) -> None:
    """efivarfs is read-only: nothing is changed, status says why, and the job is not concerned"""
    guest.sh("bootctl set-default '' && mount -o remount,ro /sys/firmware/efi/efivars")
    guest.sh(f"touch {PLACE}/broken-{newer}")
    reconcile(guest, newer)
    state = guard(guest)
    assert state["hold"] is None
    assert state["problem"]["kind"] == "guard-failed", state
    assert "boot guard: cannot help" in guest.run("autokmodctl status").output
    assert next_boot(guest) == newer
    guest.sh("mount -o remount,rw /sys/firmware/efi/efivars")
    reconcile(guest, newer)
    assert guard(guest)["hold"]["kernel"] == newer


def test_uninstalled_while_it_keeps(guest: Guest, older: str) -> None:
    """make uninstall: nothing stays in the firmware"""
    assert default(guest) == entry(guest, older)
    guest.sh("make -C checkout uninstall")
    assert default(guest) == ""
    guest.sh("! test -e /usr/bin/autokmodctl")
