"""A former initrd put back over the bus, while logind waits: by those who are permitted, of kernels that have one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autokmod.daemon.authorize import REQUIRED, Action
from autokmod.observe.initrd import PREVIOUS
from tests.dbus.busmachine import LIMIT_S, NOBODY, Machine, until
from tests.dbus.peers import hearing_inhibit, running_logind, running_polkitd
from tests.dbus.test_polkit import rule
from tests.unit.handmade import add_kernel, add_source, place, record
from tests.unit.test_ctl_initrd import A, B, image_with

pytestmark = [pytest.mark.dbus, pytest.mark.root]

CTL = (sys.executable, "-m", "autokmod.ctl.main")


def image(machine: Machine) -> Path:
    return machine.paths.boot / f"initrd.img-{A}"


def previous(machine: Machine) -> Path:
    return image(machine).with_name(image(machine).name + PREVIOUS)


@pytest.fixture
def imaged(machine: Machine) -> Machine:
    """Of two images the former lacks the module as it is on disk. No shell is here that could read pkg's recipe, so
    what stands there stays."""
    add_kernel(machine.paths, A)
    add_kernel(machine.paths, B)
    add_source(machine.paths, "pkg", "1.0")
    record(machine.paths, A, place(machine.paths, A, "pkg"))
    module = (machine.paths.own_dir(A, "pkg") / "pkg.ko").read_bytes()
    image(machine).write_bytes(image_with(module))
    previous(machine).write_bytes(image_with(b"older"))
    return machine


def test_it_is_put_back_and_told(imaged: Machine) -> None:
    good, old = image(imaged).read_bytes(), previous(imaged).read_bytes()
    with imaged.daemon():
        imaged.settled(A, B)
        done = imaged.call("RestoreInitrd", A)
        assert (done["krel"], done["good"], done["word"]["kind"]) == (A, False, "initrd-restored")
        assert "reconcile --force" in done["word"]["hint"]
        assert (image(imaged).read_bytes(), previous(imaged).read_bytes()) == (old, good)
        assert imaged.call("RestoreInitrd", A)["good"] is True
        assert image(imaged).read_bytes() == good


def test_errors(imaged: Machine) -> None:
    with imaged.daemon():
        assert imaged.error("RestoreInitrd", "9.9")[0] == "UnknownKernel"
        assert imaged.error("RestoreInitrd", B)[0] == "NoPrevious"
        previous(imaged).unlink()
        assert imaged.error("RestoreInitrd", A)[0] == "NoPrevious"


def test_who_may(imaged: Machine) -> None:
    before = image(imaged).read_bytes()
    with imaged.daemon():
        name, text = imaged.error("RestoreInitrd", A, before=NOBODY)
        assert (name, text.strip()) == ("NotAuthorized", "not permitted to put back an initrd: try it as root")
    with running_polkitd(imaged), imaged.daemon():
        assert imaged.error("RestoreInitrd", A, before=NOBODY)[0] == REQUIRED
    assert image(imaged).read_bytes() == before


def ctl(machine: Machine, *args: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, *CTL, "--root", str(machine.paths.root), *args]
    return subprocess.run(command, env=machine.env(), capture_output=True, text=True, timeout=LIMIT_S)


def test_autokmodctl_asks_the_daemon_where_it_may_not_itself(imaged: Machine) -> None:
    old = previous(imaged).read_bytes()
    refused = ctl(imaged, "initrd", "restore", A, before=NOBODY)
    assert (refused.returncode, refused.stderr) == (
        1,
        "autokmodctl: not permitted to put back an initrd: try it as root\n",
    )
    with running_polkitd(imaged, rule("YES", Action.RESTORE)), imaged.daemon():
        imaged.settled(A, B)
        done = ctl(imaged, "initrd", "restore", A, "--json=short", before=NOBODY)
        assert (done.returncode, done.stderr) == (3, "")
        said = json.loads(done.stdout)
        assert (said["krel"], said["good"], said["word"]["kind"]) == (A, False, "initrd-restored")
        assert image(imaged).read_bytes() == old
    assert image(imaged).read_bytes() == old


def test_a_shutdown_waits_meanwhile(imaged: Machine) -> None:
    """For the daemon, and for root's own autokmodctl."""
    with running_logind(imaged), hearing_inhibit(imaged) as heard:
        assert ctl(imaged, "initrd", "restore", A).returncode == 3
        until(lambda: f"The former initrd of {A} is being put back" in heard.read_text())
        with imaged.daemon():
            imaged.settled(A, B)
            before = heard.read_text().count("are being put in place")
            imaged.call("RestoreInitrd", A)
            until(lambda: heard.read_text().count("are being put in place") > before)
