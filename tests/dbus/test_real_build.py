"""A build that is at work when the daemon is stopped, killed, or told to give it up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.dbus.busmachine import Machine, running_bus, until
from tests.dbus.test_daemon import is_quiet
from tests.mainjob import CONF, make_source
from tests.realroot import RealRoot

pytestmark = [pytest.mark.dbus, pytest.mark.root, pytest.mark.kbuild]

MARK = "86399.25"  # seconds that only this build sleeps
SLOW = CONF + f'MAKE[0]="sleep {MARK}"\n'


@pytest.fixture
def root(real_root: MakeRoot, corpus: Corpus) -> RealRoot:
    return real_root(kernels=(corpus.trio.first,))


@pytest.fixture
def machine(tmp_path: Path, root: RealRoot) -> Iterator[Machine]:
    with running_bus(tmp_path) as bus:
        yield Machine(tmp_path / "machine", bus.address, root.path)


def builders() -> list[str]:
    """Every process that has to do with the slow build: the sandbox around it as well."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if MARK.encode() in words:
            found.append(pid)
    return found


def is_building() -> bool:
    return any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in builders())


def mend(root: RealRoot) -> None:
    """The same package, without the wait."""
    (root.paths.usr_src / "slow-1/dkms.conf").write_text(CONF.replace("@", "slow"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle_of_a_build(machine: Machine, root: RealRoot, corpus: Corpus, number: int) -> None:
    make_source(root, "slow", conf=SLOW)
    with machine.daemon() as daemon:
        until(is_building)
        (job,) = machine.call("ListJobs")
        assert daemon.stop(number) == (0 if number == signal.SIGTERM else -number)
        until(lambda: builders() == [])  # after a kill the sandbox dies of its parent's death, a moment later
    assert os.listdir(root.paths.spool) == [f"reconcile-{corpus.trio.first}.json"]
    assert not list(root.paths.builds.glob("*/manifest.json")), "nothing is remembered of what was interrupted"
    mend(root)
    with machine.daemon():
        until(lambda: os.listdir(root.paths.spool) == [])
        ended = machine.call("GetJob", str(job["id"]))
        assert (ended["state"], ended["result"]) == ("ended", "done")
        placed = machine.call("Explain", "slow", corpus.trio.first)
        assert (placed["kind"], placed["verified"]) == ("build", True)
    assert list(root.paths.work.iterdir()) == []


def test_cancelled_in_the_middle_of_a_build(machine: Machine, root: RealRoot) -> None:
    make_source(root, "slow", conf=SLOW)
    with machine.daemon(), machine.signals() as signals:
        until(is_building)
        signals.until_told("JobProgress", "building slow/1")
        (job,) = machine.call("ListJobs")
        machine.call("CancelJob", str(job["id"]))
        signals.until_told("JobRemoved", "'cancelled'")
        assert builders() == []
        assert machine.call("ListJobs") == []
        assert machine.get("State") == "idle"


def test_its_own_work_is_no_reason_to_look_again(machine: Machine, root: RealRoot, corpus: Corpus) -> None:
    """Modules are placed, depmod writes its files: a daemon that took this for news would never sleep."""
    root.paths.etc.mkdir(exist_ok=True)
    (root.paths.etc / "autokmod.toml").write_text("[daemon]\nsettle_s = 0.1\n")
    with machine.daemon() as daemon, machine.signals() as signals:
        machine.settled(corpus.trio.first)
        make_source(root, "plain")
        signals.until_told(f"ReadinessChanged ('{corpus.trio.first}', 'ready')")
        until(lambda: is_quiet(daemon.process.pid, 0.5))
        before = machine.call("Reconcile", "0", "false")
        until(lambda: machine.call("ListJobs") == [] and is_quiet(daemon.process.pid, 1.0))
        assert machine.call("Reconcile", "0", "false") == [before[0] + 1]
