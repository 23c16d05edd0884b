"""The hook's entry in Python: whatever happens, the intent is recorded, and the last word on a kernel counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from autokmod import hook
from autokmod.jobs.spool import Spool
from autokmod.model import Verb
from autokmod.paths import Paths
from tests.corpus import CHECKOUT

KREL = "6.1.0-1-amd64"
HEAVY = {"autokmod.jobs.engine", "concurrent.futures", "gi", "structlog", "zstandard"}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def queued(paths: Paths) -> list[tuple[Verb, str, str]]:
    return [(j.verb, j.krel, j.why) for j in Spool(paths).jobs()]


@pytest.mark.parametrize("args", [[], ["add", "..", "x"], ["remove", "/", "x"], ["stop", KREL, "x"], ["add", KREL]])
def test_usage(paths: Paths, args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert hook.main(args, paths) == 2
    assert "usage" in capsys.readouterr().err
    assert not paths.state.exists()


def test_a_kernel_that_is_not_there_yet_is_queued(paths: Paths) -> None:
    assert hook.main(["add", KREL, "debian-headers"], paths) == 0
    assert queued(paths) == [(Verb.RECONCILE, KREL, "debian-headers")]


def test_a_removal_withdraws_what_was_queued(paths: Paths) -> None:
    hook.main(["add", KREL, "kernel-install"], paths)
    assert hook.main(["remove", KREL, "debian-prerm"], paths) == 0
    assert queued(paths) == []


def test_an_arrival_withdraws_a_removal(paths: Paths) -> None:
    Spool(paths).add(Verb.REMOVE, KREL, "debian-prerm")
    assert hook.main(["add", KREL, "debian-postinst"], paths) == 0
    assert queued(paths) == [(Verb.RECONCILE, KREL, "debian-postinst")]


def test_what_the_fast_path_cannot_do_is_queued(paths: Paths) -> None:
    break_configuration(paths)
    assert hook.main(["add", KREL, "debian-postinst"], paths) == 0
    assert queued(paths) == [(Verb.RECONCILE, KREL, "debian-postinst")]


def test_a_removal_needs_no_configuration(paths: Paths) -> None:
    break_configuration(paths)
    own = paths.own_dir(KREL, "pkg")
    own.mkdir(parents=True)
    assert hook.main(["remove", KREL, "debian-prerm"], paths) == 0
    assert not own.exists()
    assert queued(paths) == []


def break_configuration(paths: Paths) -> None:
    paths.etc.mkdir(parents=True)
    (paths.etc / "autokmod.toml").write_text("[daemon]\nsettle_s = 'soon'\n")


def test_an_intent_that_is_lost_is_a_failure(paths: Paths) -> None:
    paths.state.mkdir(parents=True)
    paths.spool.touch()
    assert hook.main(["add", KREL, "kernel-install"], paths) == 1


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, autokmod.hook; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
