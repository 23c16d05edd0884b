"""Which job is next, what becomes of it, and what a restart finds."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.config import RetryConfig
from autokmod.errors import UnknownJob
from autokmod.jobs import spool
from autokmod.jobs.queue import Change, Queue
from autokmod.jobs.spool import Spool
from autokmod.model import Job, JobResult, JobState, Verb
from autokmod.paths import Paths

DONE = JobResult("done")
NOW = 2_000_000_000.0


class Setup:
    """One daemon's queue after another on the same directory."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.paths.state.mkdir(parents=True)
        self.now = NOW
        self.spool = Spool(self.paths)
        self.queue = self.start()

    def start(self) -> Queue:
        self.changes: list[Change] = []
        self.queue = Queue(self.paths, RetryConfig(max_delay_s=100), lambda: self.now, self.changes.append)
        return self.queue

    def told(self) -> list[tuple[str, str, str, str]]:
        """What was reported since last asked."""
        told = [
            (c.kind.value, str(c.job.id), c.job.name, c.result.result if c.result else c.job.state.value)
            for c in self.changes
        ]
        self.changes.clear()
        return told

    def age(self, name: str, seconds: float) -> None:
        """Let the intent be that old."""
        path = self.paths.spool / f"{name}.json"
        os.utime(path, (NOW - seconds, NOW - seconds))


@pytest.fixture
def at(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def take(queue: Queue) -> str | None:
    job = queue.take()
    return job.name if job else None


def test_life_of_a_job(at: Setup) -> None:
    job = at.queue.add(Verb.RECONCILE, "a", "admin")
    assert (job.id, job.state) == (1, JobState.QUEUED)
    assert at.queue.jobs() == (job,)
    running = at.queue.take()
    assert running == replace(job, state=JobState.RUNNING)
    assert at.queue.jobs() == (running,)
    assert at.queue.find(1) == (running, None)
    at.queue.finish(DONE)
    assert at.queue.jobs() == ()
    assert at.queue.find(1) == (job, DONE)
    assert at.told() == [
        ("new", "1", "reconcile-a", "queued"),
        ("changed", "1", "reconcile-a", "running"),
        ("removed", "1", "reconcile-a", "done"),
    ]
    assert os.listdir(at.paths.spool) == []


def test_what_goes_is_done_before_what_stays_and_old_before_new(at: Setup) -> None:
    for verb, krel, age in [("reconcile", "b", 50), ("reconcile", "a", 40), ("remove", "c", 30), ("rescan", "all", 20)]:
        at.spool.add(Verb(verb), krel, "test")
        at.age(f"{verb}-{krel}", age)
    order = []
    while (name := take(at.queue)) is not None:
        order.append(name)
        at.queue.finish(DONE)
    assert order == ["rescan-all", "remove-c", "reconcile-b", "reconcile-a"]


def test_one_job_at_a_time(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.add(Verb.RECONCILE, "b", "test")
    assert take(at.queue) is not None
    assert take(at.queue) is None


@pytest.mark.parametrize(
    ("reconcile_age", "order"), [(60, ["remove-a"]), (20, ["remove-a", "reconcile-a"])], ids=["before", "after"]
)
def test_a_removal_overrules_what_was_asked_before_it(at: Setup, reconcile_age: float, order: list[str]) -> None:
    at.spool.add(Verb.RECONCILE, "a", "kernel-install")
    at.age("reconcile-a", reconcile_age)
    at.spool.add(Verb.REMOVE, "a", "kernel-install")
    at.age("remove-a", 40)
    seen = []
    while (name := take(at.queue)) is not None:
        seen.append(name)
        at.queue.finish(DONE)
    assert seen == order
    assert os.listdir(at.paths.spool) == []


def test_the_same_intent_keeps_its_number(at: Setup) -> None:
    assert at.queue.add(Verb.RECONCILE, "a", "watcher").id == at.queue.add(Verb.RECONCILE, "a", "admin").id
    assert [job.why for job in at.queue.jobs()] == ["admin"]


def test_an_intent_that_comes_again_while_it_runs_is_a_new_job(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "watcher")
    at.queue.take()
    at.spool.add(Verb.RECONCILE, "a", "kernel-install")
    at.queue.refresh()
    assert [job.state for job in at.queue.jobs()] == [JobState.RUNNING]
    at.told()
    at.queue.finish(DONE)
    assert at.told() == [("removed", "1", "reconcile-a", "done"), ("new", "2", "reconcile-a", "queued")]
    assert [(job.id, job.why) for job in at.queue.jobs()] == [(2, "kernel-install")]


def test_delay_and_due(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.queue.delay(NOW + 30, "disk full")
    (job,) = at.queue.jobs()
    assert (job.state, job.attempt, job.not_before, job.last_error) == (JobState.DELAYED, 1, NOW + 30, "disk full")
    assert take(at.queue) is None
    assert at.queue.due_in_s() == 30
    at.now += 29
    assert take(at.queue) is None
    at.now += 1
    assert at.queue.due_in_s() == 0
    assert take(at.queue) == "reconcile-a"
    assert at.queue.due_in_s() is None


def test_a_delayed_job_does_not_hold_up_others(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.queue.delay(NOW + 30, "x")
    at.queue.add(Verb.RECONCILE, "b", "test")
    assert take(at.queue) == "reconcile-b"


def test_a_clock_that_was_put_back_does_not_delay_for_ever(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.queue.delay(NOW + 30, "x")
    at.now -= 10_000
    assert take(at.queue) == "reconcile-a"


def test_asking_again_ends_the_delay(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.queue.delay(NOW + 30, "x")
    at.spool.add(Verb.RECONCILE, "a", "admin")
    job = at.queue.take()
    assert job is not None
    assert (job.id, job.attempt, job.why) == (1, 0, "admin")


def test_asking_again_while_it_fails_is_not_delayed(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.spool.add(Verb.RECONCILE, "a", "kernel-install")
    at.queue.delay(NOW + 30, "x")
    assert take(at.queue) == "reconcile-a"


@pytest.mark.parametrize(
    ("changed_at", "state"), [(0, JobState.DELAYED), (NOW - 1, JobState.DELAYED), (NOW + 1, JobState.QUEUED)]
)
def test_a_hint_ends_a_delay_only_when_something_changed(at: Setup, changed_at: float, state: JobState) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.queue.delay(NOW + 30, "x")
    at.queue.hint("a", "watcher", changed_at=changed_at)
    assert [job.state for job in at.queue.jobs()] == [state]


def test_a_hint_does_not_change_why_a_queued_job_is_there(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "kernel-install")
    at.queue.hint("a", "watcher", changed_at=NOW + 100)
    assert [job.why for job in at.queue.jobs()] == ["kernel-install"]


def test_a_hint_while_the_job_runs_queues_another_look(at: Setup) -> None:
    at.queue.hint("a", "watcher")
    at.queue.take()
    at.queue.hint("a", "watcher")
    at.queue.finish(DONE)
    assert [job.id for job in at.queue.jobs()] == [2]


def test_put_back_is_as_if_it_had_not_begun(at: Setup) -> None:
    job = at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.queue.put_back()
    assert at.queue.jobs() == (job,)
    assert Spool(at.paths).jobs()[0].name == "reconcile-a"


def test_withdraw(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.add(Verb.RECONCILE, "b", "test")
    at.queue.withdraw(1)
    assert [job.name for job in at.queue.jobs()] == ["reconcile-b"]
    assert at.told()[-1] == ("removed", "1", "reconcile-a", "cancelled")
    for unknown in (1, 3, 0):
        with pytest.raises(UnknownJob):
            at.queue.withdraw(unknown)
    at.queue.take()
    with pytest.raises(UnknownJob):
        at.queue.withdraw(2)  # it runs: the worker ends it


def test_a_file_that_somebody_deletes_is_a_withdrawn_intent(at: Setup) -> None:
    job = at.queue.add(Verb.RECONCILE, "a", "test")
    at.spool.path(job).unlink()
    assert at.queue.jobs() == ()
    assert at.told()[-1] == ("removed", "1", "reconcile-a", "cancelled")


def test_a_file_deleted_while_its_job_runs(at: Setup) -> None:
    job = at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.spool.path(job).unlink()
    assert len(at.queue.jobs()) == 1
    at.queue.finish(DONE)
    assert at.queue.jobs() == ()


def test_a_restart_keeps_numbers_attempts_and_the_running_job(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.queue.delay(NOW + 30, "disk full")
    at.queue.add(Verb.RECONCILE, "b", "test")
    at.queue.take()  # and now the daemon is killed
    jobs = {job.name: job for job in at.start().jobs()}
    assert at.told() == [("new", "1", "reconcile-a", "delayed"), ("new", "2", "reconcile-b", "queued")]
    assert (jobs["reconcile-a"].id, jobs["reconcile-a"].attempt, jobs["reconcile-a"].state) == (1, 1, JobState.DELAYED)
    assert (jobs["reconcile-b"].id, jobs["reconcile-b"].state) == (2, JobState.QUEUED)
    assert at.queue.add(Verb.RECONCILE, "c", "test").id == 3


def test_a_number_is_not_used_again_after_all_jobs_ended(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.queue.finish(DONE)
    at.start()
    assert at.queue.add(Verb.RECONCILE, "a", "test").id == 2
    with pytest.raises(UnknownJob):
        at.queue.find(1)


@pytest.mark.parametrize("text", ["", "{", '{"format": 9, "next_id": 5, "jobs": {}}', '{"format": 1, "next_id": "5"}'])
def test_a_damaged_ledger_loses_no_job_and_repeats_no_number(at: Setup, text: str) -> None:
    for krel in "abc":
        at.queue.add(Verb.RECONCILE, krel, "test")
    at.paths.queue.write_text(text)
    jobs = at.start().jobs()
    assert sorted(job.krel for job in jobs) == ["a", "b", "c"]
    assert {job.id for job in jobs}.isdisjoint({1, 2, 3})
    assert max(job.id for job in jobs) < 1 << 32
    assert at.paths.queue.with_name("queue.json.damaged").read_text() == text


def test_a_number_is_on_disk_before_anybody_hears_of_it(at: Setup) -> None:
    on_disk: list[int] = []
    at.queue = Queue(
        at.paths,
        RetryConfig(),
        lambda: NOW,
        lambda _: on_disk.append(json.loads(at.paths.queue.read_text())["next_id"]),
    )
    job = at.queue.add(Verb.RECONCILE, "a", "test")
    assert on_disk == [job.id + 1]


def test_a_damaged_job_file_is_put_aside_once_and_the_others_are_served(
    at: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    at.paths.spool.mkdir()
    (at.paths.spool / "reconcile-a.json").write_text("{")
    long = "a-directory-" + "x" * 240  # a longer name, with .damaged at its end, no file system takes
    (at.paths.spool / long).mkdir()
    at.spool.add(Verb.RECONCILE, "b", "test")
    assert take(at.queue) == "reconcile-b"
    at.queue.refresh()
    said = capsys.readouterr().err
    assert said.count("reconcile-a.json: not JSON") == 1
    assert said.count(f"{long}: not a regular file; it is no job and is left alone") == 1
    assert (at.paths.spool / "reconcile-a.json.damaged").exists()


def test_only_the_last_hundred_that_ended_are_remembered(at: Setup) -> None:
    for number in range(101):
        at.queue.add(Verb.RECONCILE, f"k{number}", "test")
        at.queue.take()
        at.queue.finish(JobResult("failed", str(number)))
    assert at.queue.find(101)[1] == JobResult("failed", "100")
    assert at.queue.find(2)[1] == JobResult("failed", "1")
    with pytest.raises(UnknownJob):
        at.queue.find(1)


def test_a_job_whose_file_cannot_be_removed_does_not_run_over_and_over(at: Setup) -> None:
    job = at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    (at.paths.spool / f".{job.name}.taken").mkdir()  # nothing can be renamed onto a directory
    at.queue.finish(DONE)
    assert [j.state for j in at.queue.jobs()] == [JobState.DELAYED]
    assert take(at.queue) is None


def test_finish_without_a_running_job_is_a_mistake_of_the_program(at: Setup) -> None:
    with pytest.raises(RuntimeError):
        at.queue.finish(DONE)


def test_jobs_are_told_oldest_first(at: Setup) -> None:
    for krel, age in (("a", 10), ("b", 30), ("c", 20)):
        at.spool.add(Verb.RECONCILE, krel, "test")
        at.age(f"reconcile-{krel}", age)
    assert [job.krel for job in at.queue.jobs()] == ["b", "c", "a"]


def test_the_changes_of_a_job_carry_it_as_it_is_then(at: Setup) -> None:
    at.queue.add(Verb.RECONCILE, "a", "test")
    at.queue.take()
    at.queue.delay(NOW + 5, "x")
    states = [(c.job.state, c.job.attempt) for c in at.changes]
    assert states == [(JobState.QUEUED, 0), (JobState.RUNNING, 0), (JobState.DELAYED, 1)]
    assert all(isinstance(c.job, Job) for c in at.changes)


def test_of_a_thousand_jobs_none_is_read_again_for_another(at: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    at.paths.spool.mkdir()
    for i in range(1000):
        text = json.dumps({"format": 1, "verb": "reconcile", "krel": f"9.{i}", "why": "t"})
        (at.paths.spool / f"reconcile-9.{i}.json").write_text(text)
    at.queue.refresh()
    read: list[Path] = []
    monkeypatch.setattr(spool, "read_json", lambda path, **_: read.append(path))
    for _ in range(3):
        assert at.queue.take()
        at.queue.finish(JobResult("done"))
    assert read == []
    assert len(at.queue.jobs()) == 997
