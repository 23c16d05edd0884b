"""The engine around its decisions: kernels that go, come back, and change while somebody is at work."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from autokmod.act.records import write_record
from autokmod.config import Config, DaemonConfig
from autokmod.jobs.engine import Engine
from autokmod.jobs.reconcile import Reconciliation
from autokmod.model import Job, KernelRecord, Verb
from autokmod.observe.records import read_record
from autokmod.paths import Paths
from autokmod.run import Cancel
from tests.unit.handmade import add_kernel, link, place, record

K1, K2 = "6.1.0-1-test", "6.1.0-2-test"
NOW = 4e9


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "lib").symlink_to("usr/lib")
    paths = Paths(tmp_path)
    paths.usr_src.mkdir(parents=True)
    for krel in (K1, K2):
        add_kernel(paths, krel, headers=False)
    return paths


@pytest.fixture
def engine(paths: Paths) -> Iterator[Engine]:
    with closing(Engine(paths, Config(daemon=DaemonConfig(settle_s=0.0)), lambda: NOW)) as engine:
        yield engine


def is_going(paths: Paths, krel: str) -> bool:
    found = read_record(paths, krel)
    assert found is not None
    return found.going


# ---- a removal was announced ----


@pytest.mark.parametrize(
    ("age_s", "asked", "going"),
    [
        pytest.param(1, False, True, id="an event while it is being removed"),
        pytest.param(1, True, False, id="somebody wants it back"),
        pytest.param(86400, False, False, id="it is still there a day later: nobody removed it"),
    ],
)
def test_kernel_whose_removal_was_announced(
    paths: Paths, engine: Engine, age_s: float, asked: bool, going: bool
) -> None:
    write_record(paths, KernelRecord(K1, NOW - age_s, (), going=True))
    engine.reconcile(K1, asked=asked)
    assert is_going(paths, K1) == going


def test_removal_announced_in_the_middle_of_a_job(paths: Paths, engine: Engine) -> None:
    """Whoever asked for the job did so before."""
    job = Reconciliation(
        paths,
        engine.config,
        engine.looker,
        engine.tokens,
        engine.clock,
        K1,
        build=True,
        force=False,
        asked=True,
        cancel=Cancel(),
        progress=lambda _: None,
    )
    job.run()
    engine.remove(K1)
    job.run()
    assert is_going(paths, K1)


# ---- a kernel is gone ----


def test_linkers_of_a_kernel_that_is_gone_are_looked_at_within_its_job(paths: Paths, engine: Engine) -> None:
    record(paths, K1, place(paths, K1, "drv"))
    made = record(paths, K2, link(paths, K2, "drv", K1))
    paths.modulesd(K1).rename(paths.at("gone"))
    done = engine.run_job(Job(Verb.RECONCILE, K1, "watcher", 0.0), Cancel(), lambda _: None)
    assert done.result == "done"
    assert read_record(paths, K1) is None
    assert read_record(paths, K2) != made


# ---- a source is out of sight ----


def drop_nothing(paths: Paths) -> None:
    (paths.usr_src / "drv-1.0").rmdir()


def drop_dangling(paths: Paths) -> None:
    drop_nothing(paths)
    (paths.usr_src / "drv-1.0").symlink_to("/home/somebody/drv")


def drop_all(paths: Paths) -> None:
    shutil.rmtree(paths.usr_src)


def drop_unmounted(paths: Paths) -> None:
    drop_all(paths)
    paths.usr_src.mkdir()


@pytest.mark.parametrize(
    ("drop", "kind"),
    [
        (drop_nothing, None),
        (drop_dangling, "wait"),
        (drop_all, "wait"),
        (drop_unmounted, "wait"),
        pytest.param(lambda _: None, "wait", id="an empty directory"),
    ],
)
def test_source_out_of_sight_is_not_a_removal(
    paths: Paths, engine: Engine, drop: Callable[[Paths], None], kind: str | None
) -> None:
    record(paths, K1, place(paths, K1, "drv"))
    (paths.usr_src / "drv-1.0").mkdir()
    (paths.usr_src / "linux-headers").mkdir()
    drop(paths)
    found = {p.package: str(p.kind) for p in engine.reconcile(K1).placements}
    assert found.get("drv") == kind
    assert (paths.own_dir(K1, "drv") / "drv.ko").exists() == (kind is not None)
    assert {p.package: str(p.kind) for p in engine.reconcile(K2).placements} == found
    assert engine.reconcile(K1, force=True).placements == ()
