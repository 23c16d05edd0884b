"""The store kept small, on a real disk: what the records say, whole or absent, locks, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.act.scratch import scratch
from autokmod.act.store import list_builds, read_store, verify_build
from autokmod.config import Config, StoreConfig
from autokmod.files import locked, locked_at_once
from autokmod.jobs.engine import Engine
from autokmod.jobs.gc import Keeper, StoreBusy, collect_store, preview_collection
from autokmod.model import Job, Verb
from autokmod.paths import Paths
from autokmod.run import Cancel
from tests.unit.handmade import add_kernel, link, place, record
from tests.unit.test_ctl import NOBODY, ctl, data
from tests.unit.test_store import BAD, GOOD, store

A, B, GONE = "6.1.0-1-test", "6.1.0-2-test", "6.0.0-9-test"
NOW = 2e9
CONFIG = Config(store=StoreConfig(min_age_s=0.0))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    for krel in (A, B):
        add_kernel(paths, krel)
    return paths


def add(paths: Paths, key: str, krel: str, at: float = 1.0, *, ok: bool = True) -> str:
    """`key`: one hex digit."""
    store(paths, replace(GOOD if ok else BAD, key=key * 64, krel=krel, built_at=at))
    return key * 64


def kept(paths: Paths) -> str:
    return "".join(build.key[0] for build in list_builds(paths))


def test_what_records_name_stays(paths: Paths) -> None:
    placed, failed = place(paths, A, "foo"), add(paths, "3", A, ok=False)
    log = str(paths.builds / failed / "build.log")
    record(paths, A, replace(placed, key=add(paths, "1", A, at=1), log=log))
    record(paths, B, replace(link(paths, B, "foo", A), key=add(paths, "2", GONE), log=None))
    add(paths, "4", A, at=5)  # newer than what is placed
    add(paths, "5", A, at=2)
    add(paths, "6", GONE, at=9)
    add(paths, "7", A, at=3, ok=False)  # newer than the failure that is shown
    add(paths, "8", A, at=2, ok=False)
    found = collect_store(paths, CONFIG, NOW)
    assert {r.name[0]: r.reason.kind for r in found.removed} == {"5": "replaced", "6": "kernel-gone", "8": "failed"}
    assert kept(paths) == "12347"
    assert found.builds == 5
    assert found.freed > 0
    assert found.size == sum(e.size for e in read_store(paths)[0])
    assert collect_store(paths, CONFIG, NOW).removed == ()


def test_a_record_of_a_kernel_that_is_not_here_still_counts(paths: Paths) -> None:
    """It may come back to sight: a modules directory on a disk that is not mounted."""
    record(paths, GONE, replace(place(paths, A, "foo"), key=add(paths, "1", GONE)))
    assert collect_store(paths, CONFIG, NOW).removed == ()


@pytest.mark.parametrize("text", [None, "\0\0\0"])
def test_files_of_which_nothing_is_recorded_keep_all_of_their_package(paths: Paths, text: str | None) -> None:
    place(paths, A, "foo")
    if text is not None:
        paths.kernels.mkdir(parents=True)
        paths.record(A).write_text(text)
    for key in "123":
        add(paths, key, GONE)
    assert collect_store(paths, CONFIG, NOW).removed == ()


def test_a_preview_changes_nothing(paths: Paths) -> None:
    add(paths, "1", GONE)
    (paths.builds / ("2" * 64)).mkdir()
    seen = preview_collection(paths, CONFIG, NOW)
    assert sorted(os.listdir(paths.builds)) == ["1" * 64, "2" * 64]
    done = collect_store(paths, CONFIG, NOW)
    assert (done.removed, done.builds, done.size) == (seen.removed, 0, 0)
    assert os.listdir(paths.builds) == []


@pytest.mark.parametrize("manifest", [None, "", "{}", '{"format": 9}'])
def test_damaged_entries_go_with_a_word(paths: Paths, manifest: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    key = add(paths, "1", A)
    (paths.builds / key / "manifest.json").unlink()
    if manifest is not None:
        (paths.builds / key / "manifest.json").write_text(manifest)
    young = replace(CONFIG, store=StoreConfig(min_age_s=1000.0))
    assert collect_store(paths, young, time.time()).removed == ()
    (gone,) = collect_store(paths, CONFIG, NOW).removed
    assert (gone.name, gone.reason.kind) == (key, "damaged")
    assert f"warning: {paths.builds / key}/manifest.json" in capsys.readouterr().err
    assert os.listdir(paths.builds) == []


def test_what_was_set_aside_goes_later(paths: Paths) -> None:
    key = add(paths, "1", A)
    (paths.builds / key / "manifest.json").write_text("{")
    assert list_builds(paths) == ()
    assert os.listdir(paths.builds) == [f"{key}.damaged"]
    assert [r.name for r in collect_store(paths, CONFIG, NOW).removed] == [f"{key}.damaged"]


def test_what_is_none_of_ours_is_left_alone(paths: Paths) -> None:
    paths.builds.mkdir(parents=True)
    (paths.builds / "lost+found").mkdir()
    (paths.builds / ("1" * 64)).write_text("a file")
    (paths.builds / ("2" * 64)).symlink_to(paths.usr_src)
    before = sorted(os.listdir(paths.builds))
    assert collect_store(paths, CONFIG, NOW).removed == ()
    assert sorted(os.listdir(paths.builds)) == before


def test_directories_of_killed_processes_go_and_those_in_use_stay(paths: Paths) -> None:
    paths.builds.mkdir(parents=True)
    (paths.builds / ".work-half" / ("1" * 64)).mkdir(parents=True)
    (paths.work / ".work-left").mkdir(parents=True)
    with scratch(paths.work) as mine:
        # scratch sweeps as well: made again after it
        (paths.work / ".work-left").mkdir(exist_ok=True)
        assert collect_store(paths, CONFIG, NOW).swept == 2
        assert os.listdir(paths.work) == [mine.name]
    assert os.listdir(paths.builds) == []


def test_nothing_is_collected_while_something_is_built(paths: Paths) -> None:
    add(paths, "1", GONE)
    with locked(paths.build_lock), pytest.raises(StoreBusy):
        collect_store(paths, CONFIG, NOW)
    assert kept(paths) == "1"
    with locked_at_once(paths.build_lock) as is_free:
        assert is_free, "and it is not held on to"


KILLED = """
import sys
from pathlib import Path
from autokmod.jobs.gc import collect_store
from autokmod.paths import Paths
from tests.unit.test_gc import CONFIG, NOW
collect_store(Paths(Path(sys.argv[1])), CONFIG, NOW)
"""


def test_killed_in_the_middle(paths: Paths) -> None:
    """What is left in the store is whole, and the next one goes on."""
    for i in range(60):
        store(paths, replace(GOOD, key=f"{i:064x}", krel=GONE))
    with subprocess.Popen([sys.executable, "-c", KILLED, str(paths.root)], cwd=Path(__file__).parents[2]) as process:
        while len(list(paths.builds.glob("[0-9]*"))) > 50:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    left = list_builds(paths)
    assert 0 < len(left) <= 50
    for build in left:
        verify_build(build)
    assert not list(paths.builds.glob("*.damaged"))
    assert len(collect_store(paths, CONFIG, NOW).removed) == len(left)
    assert os.listdir(paths.builds) == []


# ---- by itself ----


@pytest.fixture
def big(paths: Paths) -> Paths:
    """2 MiB of builds, none of them used."""
    for i in range(8):
        key = add(paths, f"{i}", GONE, at=i)
        (paths.builds / key / "build.log").write_bytes(b"x" * (256 << 10))
    return paths


def test_above_the_bound_the_oldest_go(big: Paths) -> None:
    keeper = Keeper(big, replace(CONFIG, store=StoreConfig(max_size_mb=1, min_age_s=0.0)))
    keeper.keep_small(NOW)
    assert kept(big) == "567"


def test_below_it_nothing_happens_and_nothing_is_looked_at_twice(big: Paths) -> None:
    keeper = Keeper(big, replace(CONFIG, store=StoreConfig(max_size_mb=3, min_age_s=0.0)))
    keeper.keep_small(NOW)
    assert kept(big) == "01234567"
    seen = keeper.seen
    assert seen == os.stat(big.builds).st_mtime_ns
    keeper.keep_small(NOW)
    assert keeper.seen == seen


def test_a_bound_of_nothing_is_none(big: Paths) -> None:
    Keeper(big, replace(CONFIG, store=StoreConfig(max_size_mb=0, min_age_s=0.0))).keep_small(NOW)
    assert kept(big) == "01234567"


def test_whoever_builds_now_is_not_disturbed_and_the_next_job_collects(big: Paths) -> None:
    keeper = Keeper(big, replace(CONFIG, store=StoreConfig(max_size_mb=1, min_age_s=0.0)))
    with locked(big.build_lock):
        keeper.keep_small(NOW)
    assert kept(big) == "01234567"
    keeper.keep_small(NOW)
    assert kept(big) == "567"


def test_the_engine_does_it_after_a_job(big: Paths) -> None:
    config = Config(store=StoreConfig(max_size_mb=1, min_age_s=0.0))
    with closing(Engine(big, config, lambda: NOW)) as engine:
        assert engine.run_job(Job(Verb.RECONCILE, A, "test", 0.0), Cancel(), lambda _: None).result == "done"
    assert kept(big) == "567"


# ---- autokmodctl gc ----


@pytest.fixture
def old(paths: Paths) -> Paths:
    """Two builds, one of them used, both older than the default of min_age_s."""
    record(paths, A, replace(place(paths, A, "foo"), key=add(paths, "1", A)))
    add(paths, "2", GONE)
    return paths


def test_ctl_shows_and_removes(old: Paths) -> None:
    shown = ctl(old, "gc", "--dry-run")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[1].split()[:3] == ["foo", "1.0", GONE]
    assert "is not on this machine" in shown.stdout
    assert shown.stderr.startswith("Would remove 1 of 2 builds")
    assert kept(old) == "12"
    done = ctl(old, "gc", "--json")
    value = data(done)
    assert (done.returncode, done.stderr) == (0, "")
    assert [r["krel"] for r in value["removed"]] == [GONE]
    assert (value["builds"], value["dry_run"]) == (1, False)
    assert value["freed"] == value["removed"][0]["size"] > 0
    assert kept(old) == "1"
    again = ctl(old, "gc")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr.startswith("Removed 0 of 1 builds")


def test_ctl_says_that_something_is_being_built(old: Paths) -> None:
    with locked(old.build_lock):
        done = ctl(old, "gc")
    assert (done.returncode, done.stdout) == (1, "")
    assert "something is being built" in done.stderr
    assert kept(old) == "12"


def test_others_may_only_look(old: Paths) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    for directory in (old.root, *old.root.parents):
        directory.chmod(directory.stat().st_mode | 0o011)
    assert ctl(old, "gc", "--dry-run", before=NOBODY).returncode == 0
    refused = ctl(old, "gc", before=NOBODY)
    assert (refused.returncode, refused.stderr) == (
        1,
        "autokmodctl: not permitted to remove stored builds: try it as root\n",
    )
    assert kept(old) == "12"
