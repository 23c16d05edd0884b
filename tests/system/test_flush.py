"""Before the machine goes down, and before it is up: what is finished then, in which time, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autokmod.daemon.alone import alone
from autokmod.jobs.spool import Spool
from autokmod.model import Verb
from autokmod.observe.records import read_record
from autokmod.paths import Paths
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.dbus.busmachine import CHECKOUT, until
from tests.dbus.test_real_build import SLOW, builders, is_building, mend
from tests.mainjob import make_source
from tests.realroot import RealRoot
from tests.unit.handmade import add_kernel, add_source, place, record

pytestmark = pytest.mark.root

A, B = "6.1.0-1-amd64", "6.1.0-2-amd64"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "root")
    (paths.root / "usr/lib/modules").mkdir(parents=True)
    (paths.root / "lib").symlink_to("usr/lib")
    return paths


def start(paths: Paths, *args: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "autokmod.daemon.main", "--root", str(paths.root), *args]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8"}
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=300)
    assert "Traceback" not in said, said
    return process.returncode, said


def run(paths: Paths, *args: str) -> tuple[int, str]:
    return ended(start(paths, *args))


def queued(paths: Paths) -> list[str]:
    return [job.name for job in Spool(paths).jobs()]


def configure(paths: Paths, text: str) -> None:
    paths.etc.mkdir(parents=True, exist_ok=True)
    (paths.etc / "autokmod.toml").write_text(text)


# ---- before the machine goes down ----


def test_nothing_to_do_costs_nothing(paths: Paths) -> None:
    add_kernel(paths, A)
    assert run(paths, "--flush") == (0, "")
    assert read_record(paths, A) is None


def test_what_is_queued_is_done(paths: Paths) -> None:
    add_kernel(paths, A)
    add_kernel(paths, B)
    Spool(paths).add(Verb.RECONCILE, A, "debian-postinst")
    Spool(paths).add(Verb.RECONCILE, B, "debian-postinst")
    Spool(paths).add(Verb.REMOVE, "6.1.0-0-amd64", "debian-prerm")
    code, said = run(paths, "--flush")
    assert code == 0
    assert said.splitlines()[0] == (
        f"autokmod: finishing the modules of 6.1.0-0-amd64, {B}, {A} before the machine goes down (15 min at most)"
    )
    assert f"autokmod: {A} is ready" in said
    assert queued(paths) == []
    assert read_record(paths, A)
    assert read_record(paths, B)


def test_what_nobody_queued_is_seen(paths: Paths) -> None:
    """There is no shell in this root: the recipe cannot be read, which is known then, and no reason to look again."""
    add_kernel(paths, A)
    add_source(paths, "evdi", "1.0")
    code, said = run(paths, "--flush")
    assert code == 0
    assert f"autokmod: {A} is degraded" in said
    assert run(paths, "--flush") == (0, "")


def test_turned_off(paths: Paths) -> None:
    add_kernel(paths, A)
    configure(paths, "[shutdown]\ntime_limit_s = 0\n")
    Spool(paths).add(Verb.RECONCILE, A, "test")
    assert run(paths, "--flush") == (0, "")
    assert queued(paths) == [f"reconcile-{A}"]


def test_not_beside_a_daemon(paths: Paths) -> None:
    add_kernel(paths, A)
    Spool(paths).add(Verb.RECONCILE, A, "test")
    with alone(paths):
        code, said = run(paths, "--flush")
    assert code == 1
    assert "another autokmodd is running" in said
    assert queued(paths) == [f"reconcile-{A}"]


def test_on_a_machine_that_stays_up_nothing_is_done() -> None:
    """The real root: where systemd does not say "stopping", the service was only stopped."""
    said = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True).stdout.strip()
    assert said != "stopping"
    assert run(Paths(), "--flush") == (0, "")


@pytest.fixture
def root(real_root: MakeRoot, corpus: Corpus) -> RealRoot:
    root = real_root(kernels=(corpus.trio.first,))
    root.paths.etc.mkdir(exist_ok=True)
    return root


@pytest.mark.kbuild
def test_a_build_is_finished(root: RealRoot, corpus: Corpus) -> None:
    krel = corpus.trio.first
    make_source(root, "plain")
    Spool(root.paths).add(Verb.RECONCILE, krel, "debian-postinst")
    code, said = run(root.paths, "--flush")
    assert code == 0
    assert f"autokmod: building plain/1 for {krel}\n" in said
    assert f"autokmod: {krel} is ready\n" in said
    found = read_record(root.paths, krel)
    assert found
    assert [p.is_good for p in found.placements] == [True]


@pytest.mark.kbuild
@pytest.mark.parametrize("how", ["time limit", "systemd"])
def test_when_the_time_is_up(root: RealRoot, corpus: Corpus, how: str) -> None:
    krel = corpus.trio.first
    make_source(root, "slow", conf=SLOW)
    configure(root.paths, f"[daemon]\nsettle_s = 0\n[shutdown]\ntime_limit_s = {3 if how == 'time limit' else 900}\n")
    Spool(root.paths).add(Verb.RECONCILE, krel, "debian-postinst")
    flush = start(root.paths, "--flush")
    if how == "systemd":
        until(is_building)
        flush.send_signal(signal.SIGTERM)
    code, said = ended(flush)
    assert code == 1
    assert f"not finished before the machine goes down (the time was up): reconcile-{krel}" in said
    assert queued(root.paths) == [f"reconcile-{krel}"]
    assert builders() == []
    mend(root)
    configure(root.paths, "[daemon]\nsettle_s = 0\n")
    assert run(root.paths, "--flush")[0] == 0
    assert queued(root.paths) == []


# ---- before it is up ----


def test_a_kernel_that_lacks_nothing(paths: Paths) -> None:
    add_kernel(paths, A)
    add_source(paths, "evdi", "1.0")
    record(paths, A, place(paths, A, "evdi"))
    before = read_record(paths, A)
    assert run(paths, "--boot-check", "--kernel", A) == (0, "")
    assert read_record(paths, A) == before


def test_a_kernel_that_is_not_there(paths: Paths) -> None:
    assert run(paths, "--boot-check", "--kernel", A) == (0, "")


def test_only_the_kernel_that_runs(paths: Paths) -> None:
    add_kernel(paths, A)
    add_kernel(paths, B)
    add_source(paths, "evdi", "1.0")
    code, said = run(paths, "--boot-check", "--kernel", B)
    assert code == 0, "a package that is not required is no reason to fail"
    assert said.startswith(f"autokmod: looking at the modules of {B} (10 min at most)\n")
    assert read_record(paths, A) is None
    assert run(paths, "--boot-check", "--kernel", B) == (0, "")


def test_a_required_package_that_cannot_be_had_fails_the_unit(paths: Paths) -> None:
    add_kernel(paths, A)
    add_source(paths, "evdi", "1.0")
    paths.packages_d.mkdir(parents=True)
    (paths.packages_d / "evdi.toml").write_text("required = true\n")
    assert run(paths, "--boot-check", "--kernel", A)[0] == 1
    assert run(paths, "--boot-check", "--kernel", A) == (1, "")


@pytest.mark.kbuild
def test_what_is_lacking_is_built(root: RealRoot, corpus: Corpus) -> None:
    krel = corpus.trio.first
    make_source(root, "plain")
    code, said = run(root.paths, "--boot-check", "--kernel", krel)
    assert code == 0
    assert f"autokmod: {krel} is ready\n" in said
    begun = time.monotonic()
    assert run(root.paths, "--boot-check", "--kernel", krel) == (0, "")
    print(f"boot check of a kernel that lacks nothing: {time.monotonic() - begun:.2f} s")


@pytest.mark.kbuild
def test_what_takes_too_long_is_the_daemons(root: RealRoot, corpus: Corpus) -> None:
    krel = corpus.trio.first
    make_source(root, "slow", conf=SLOW)
    configure(root.paths, "[daemon]\nsettle_s = 0\n[boot]\ntime_limit_s = 3\n")
    code, said = run(root.paths, "--boot-check", "--kernel", krel)
    assert code == 0
    assert f"autokmod: {krel}: the time is up; autokmodd goes on with it\n" in said
    assert queued(root.paths) == [f"reconcile-{krel}"]
    assert builders() == []
