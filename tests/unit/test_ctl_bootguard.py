"""autokmodctl release boot-guard, and what is said of it: the program as it is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autokmod.act.bootguard import write_guard
from autokmod.model import GuardState, Hold, KeptOut, Reason
from autokmod.observe.bootguard import read_guard
from autokmod.paths import Paths
from tests.unit.handmade import add_kernel
from tests.unit.test_ctl import A, as_nobody, ctl

WHY = Reason("build-failed", "pkg failed")
OUTSIDE = KeptOut(A, f"/boot/vmlinuz-{A}", (), 100.0, WHY)

__all__ = ["as_nobody"]  # a fixture


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    add_kernel(paths, A)
    return paths


def test_nothing_is_kept(paths: Paths) -> None:
    done = ctl(paths, "release", "boot-guard")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "The boot guard keeps nothing: nothing to do.\n")
    assert not paths.boot_guard.exists()


def test_only_shown(paths: Paths) -> None:
    hold = Hold("6.2", A, "grub", "e", "", 1.0, 0, "", WHY)
    state = GuardState(hold=hold, kept_out=(OUTSIDE,))
    write_guard(paths, state)
    done = ctl(paths, "release", "boot-guard", "--dry-run")
    assert done.stdout == f"{A} would not be kept as the default\n{A} would get its boot entry\n"
    assert read_guard(paths) == state


def test_an_entry_that_cannot_be_made(paths: Paths) -> None:
    """There is no kernel-install in this root."""
    write_guard(paths, GuardState(kept_out=(OUTSIDE,)))
    done = ctl(paths, "release", "boot-guard")
    assert done.returncode == 1
    assert f"{A} has no boot entry: its boot entry could not be made" in done.stdout
    assert read_guard(paths).kept_out[0].why.kind == "entry-failed"
    told = ctl(paths, "release", "boot-guard", "--json=short")
    assert json.loads(told.stdout)["after"]["kept_out"][0]["kernel"] == A


def test_not_by_anybody(paths: Paths, as_nobody: tuple[str, ...]) -> None:
    write_guard(paths, GuardState(kept_out=(OUTSIDE,)))
    done = ctl(paths, "release", "boot-guard", before=as_nobody)
    assert (done.returncode, done.stderr) == (
        1,
        "autokmodctl: not permitted to release the boot guard: try it as root\n",
    )
    assert read_guard(paths).kept_out == (OUTSIDE,)


def test_a_configuration_that_is_broken(paths: Paths) -> None:
    """What autokmod changed can be undone all the same."""
    write_guard(paths, GuardState(kept_out=(KeptOut("6.9.9-gone", "/boot/x", (), 100.0, WHY),)))
    paths.etc.mkdir(parents=True)
    (paths.etc / "autokmod.toml").write_text("hold on")
    assert ctl(paths, "release", "boot-guard").returncode == 0
    assert read_guard(paths).kept_out == ()
