"""autokmodd --oneshot on hand-made kernels: what it looks at, what it leaves in the spool, how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autokmod.jobs.spool import Spool
from autokmod.model import Verb
from autokmod.observe.records import read_record
from autokmod.paths import Paths
from tests.dbus.busmachine import CHECKOUT
from tests.unit.handmade import add_kernel, add_source

A, B = "6.1.0-1-amd64", "6.1.0-2-amd64"

pytestmark = pytest.mark.root


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "root")
    (paths.root / "usr/lib/modules").mkdir(parents=True)
    (paths.root / "lib").symlink_to("usr/lib")
    return paths


def oneshot(paths: Paths, *args: str) -> tuple[int, str]:
    argv = [sys.executable, "-m", "autokmod.daemon.main", "--oneshot", "--root", str(paths.root), *args]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def known(paths: Paths) -> set[str]:
    return {f.stem for f in paths.kernels.glob("*.json")}


def test_every_kernel_that_could_be_booted(paths: Paths) -> None:
    add_kernel(paths, A)
    add_kernel(paths, B)
    add_kernel(paths, "6.1.0-3-amd64", modules=False, image=False)
    assert oneshot(paths) == (0, f"{A} is ready: it may be booted\n{B} is ready: it may be booted\n")
    assert known(paths) == {A, B}


def test_only_those_that_are_named(paths: Paths) -> None:
    add_kernel(paths, A)
    add_kernel(paths, B)
    assert oneshot(paths, "--kernel", B) == (0, f"{B} is ready: it may be booted\n")
    assert known(paths) == {B}


def test_no_kernel(paths: Paths) -> None:
    code, said = oneshot(paths)
    assert code == 0
    assert "no kernel below" in said


def test_not_ready(paths: Paths) -> None:
    """There is no shell in this root: the recipe cannot be read."""
    add_kernel(paths, A)
    add_source(paths, "evdi", "1.0")
    code, said = oneshot(paths)
    assert code == 1
    assert f"warning: {A} lacks something that is not required: evdi is blocked" in said


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--kernel", "9.9"), 4, "error: no kernel 9.9 on this machine"),
        (("--kernel", "../../etc"), 4, "error: no kernel ../../etc on this machine"),
        (("--nonsense",), 2, "unrecognized arguments: --nonsense"),
        (("--log-level", "loud"), 2, "invalid choice: 'loud'"),
    ],
)
def test_wrong_arguments(paths: Paths, args: tuple[str, ...], code: int, words: str) -> None:
    ended, said = oneshot(paths, *args)
    assert ended == code
    assert words in said


def test_no_such_root(tmp_path: Path) -> None:
    code, said = oneshot(Paths(tmp_path / "nowhere"))
    assert code == 2
    assert "no such directory" in said


def test_a_wrong_configuration(paths: Paths) -> None:
    paths.etc.mkdir(parents=True)
    (paths.etc / "autokmod.toml").write_text("[deamon]\n")
    code, said = oneshot(paths)
    assert code == 78
    assert said.endswith("autokmod.toml:1: deamon: unknown section; did you mean daemon?\n")


def test_what_hooks_left_is_fulfilled(paths: Paths) -> None:
    add_kernel(paths, A)
    spool = Spool(paths)
    spool.add(Verb.RECONCILE, A, "kernel-install")
    spool.add(Verb.REMOVE, B, "kernel-install")
    spool.add(Verb.RECONCILE, "6.1.0-9-amd64", "kernel-install")  # it is not here (yet)
    assert oneshot(paths)[0] == 0
    assert [job.name for job in spool.jobs()] == ["reconcile-6.1.0-9-amd64"]


def test_a_look_at_every_kernel_is_one_at_all_of_them(paths: Paths) -> None:
    add_kernel(paths, A)
    spool = Spool(paths)
    spool.add(Verb.RESCAN, "all", "rpm")
    oneshot(paths, "--kernel", A)
    assert [job.name for job in spool.jobs()] == ["rescan-all"]
    oneshot(paths)
    assert spool.jobs() == ()


def test_a_kernel_on_its_way_out_is_left_alone_unless_it_is_named(paths: Paths) -> None:
    add_kernel(paths, A)
    Spool(paths).add(Verb.REMOVE, A, "debian-prerm")
    oneshot(paths)
    record = read_record(paths, A)
    assert record is not None
    assert record.going
    oneshot(paths, "--kernel", A)
    record = read_record(paths, A)
    assert record is not None
    assert not record.going


def test_version() -> None:
    argv = [sys.executable, "-m", "autokmod.daemon.main", "--version"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)}
    assert subprocess.run(argv, env=env, capture_output=True, text=True).stdout.startswith("autokmod ")
