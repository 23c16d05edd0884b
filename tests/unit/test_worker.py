"""The worker with an engine that does as it is told."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autokmod.config import RetryConfig
from autokmod.errors import CommandFailed, PlacementFailed, UnknownJob
from autokmod.jobs.queue import Change, Queue
from autokmod.jobs.spool import Spool
from autokmod.jobs.worker import Worker
from autokmod.model import Job, JobResult, JobState, Verb
from autokmod.paths import Paths
from autokmod.run import Cancel, run

DONE = JobResult("done")
LIMIT_S = 20.0  # for a test that hangs; none waits for time to pass

Deed = Callable[[Job, Cancel], JobResult]


class ToldEngine:
    """An engine whose jobs do what the test says; one that is not told of is done at once."""

    def __init__(self) -> None:
        self.deeds: dict[str, Deed] = {}
        self.seen: list[str] = []
        self.is_closed = False
        self.rested = threading.Semaphore(0)

    def rest(self) -> None:
        self.rested.release()

    def close(self) -> None:
        self.is_closed = True

    def kernels_to_check(self) -> tuple[str, ...]:
        return ("a", "b")

    def run_job(self, job: Job, cancel: Cancel, progress: Callable[[str], None]) -> JobResult:
        self.seen.append(job.name)
        progress(f"at {job.name}")
        deed = self.deeds.get(job.krel)
        return deed(job, cancel) if deed else DONE


class Bench:
    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.paths.state.mkdir(parents=True)
        self.now = 1e9
        self.engine = ToldEngine()
        self.results: list[tuple[str, str]] = []
        self.delayed: list[Job] = []
        self.progress: list[str] = []
        self.ended = threading.Event()
        self._changed = threading.Condition()
        self.retry = RetryConfig(attempts=2, first_delay_s=30)
        self.queue = Queue(self.paths, self.retry, lambda: self.now, self._told)
        self.worker = self.make()

    def make(self) -> Worker:
        self.ended.clear()
        self.worker = Worker(
            self.queue,
            self.engine,
            progress=lambda job, text: self.progress.append(f"{job.id}: {text}"),
            ended=self.ended.set,
            clock=lambda: self.now,
            rest_s=0.05,
        )
        return self.worker

    def _told(self, change: Change) -> None:
        with self._changed:
            if change.result:
                self.results.append((change.job.krel, change.result.result))
            if change.job.state is JobState.DELAYED:
                self.delayed.append(change.job)
            self._changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, LIMIT_S)

    def add(self, krel: str, verb: Verb = Verb.RECONCILE) -> Job:
        job = self.queue.add(verb, krel, "test")
        self.worker.wake()
        return job

    def tell(self, krel: str, deed: Deed) -> None:
        self.engine.deeds[krel] = deed

    def stop(self) -> None:
        self.worker.stop()
        self.worker.join(LIMIT_S)
        assert not self.worker.is_alive()
        assert self.ended.is_set()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    if bench.worker.is_alive():
        bench.stop()


def raising(exc: Exception) -> Deed:
    def deed(_job: Job, _cancel: Cancel) -> JobResult:
        raise exc

    return deed


def test_the_engine_rests_once_after_work(bench: Bench) -> None:
    bench.worker.start()
    for krel in ("x", "y"):
        bench.add(krel)
        assert bench.engine.rested.acquire(timeout=LIMIT_S)
        bench.worker.wake()
    bench.stop()
    assert bench.engine.seen == ["reconcile-x", "reconcile-y"]
    assert not bench.engine.rested.acquire(blocking=False)


def sleeping(started: threading.Event) -> Deed:
    """As long as a compiler."""

    def deed(_job: Job, cancel: Cancel) -> JobResult:
        started.set()
        run(["sleep", "1000"], timeout_s=1000, cancelled=cancel)
        return DONE

    return deed


def test_jobs_are_done_one_after_another(bench: Bench) -> None:
    bench.add("a")
    bench.add("b")
    bench.worker.start()
    bench.until(lambda: len(bench.results) == 2)
    assert bench.results == [("a", "done"), ("b", "done")]
    assert bench.progress == ["1: at reconcile-a", "2: at reconcile-b"]


def test_it_is_woken_by_what_comes_later(bench: Bench) -> None:
    bench.worker.start()
    for krel in ("a", "b", "c"):
        bench.add(krel)
        bench.until(lambda wanted=krel: (wanted, "done") in bench.results)  # type: ignore[misc]


def test_a_file_that_a_script_wrote_is_found_when_woken(bench: Bench) -> None:
    bench.worker.start()
    Spool(bench.paths).add(Verb.REMOVE, "a", "kernel-install")
    bench.worker.wake()
    bench.until(lambda: bench.results == [("a", "done")])
    assert bench.engine.seen == ["remove-a"]


def test_a_rescan_queues_every_kernel(bench: Bench) -> None:
    bench.add("all", Verb.RESCAN)
    bench.worker.start()
    bench.until(lambda: len(bench.results) == 3)
    assert bench.results == [("all", "done"), ("a", "done"), ("b", "done")]
    assert bench.engine.seen == ["reconcile-a", "reconcile-b"]


FAILURES: list[tuple[Exception, bool]] = [
    (PlacementFailed("a", "another file wins"), False),
    (CommandFailed(["depmod"], 1, ""), False),
    (CommandFailed(["depmod"], -9, ""), True),
    (CommandFailed(["depmod"], None, ""), True),
    (OSError(28, "No space left on device"), True),
    (FileNotFoundError(2, "No such file", "/lib/modules/a/x"), True),
    (ValueError("a mistake in the program"), False),
    (RecursionError(), False),
]


@pytest.mark.parametrize(("exc", "transient"), FAILURES, ids=[repr(f[0])[:40] for f in FAILURES])
def test_whatever_a_job_raises_the_next_is_served(
    bench: Bench, exc: Exception, transient: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.tell("a", raising(exc))
    bench.add("a")
    bench.add("b")
    bench.worker.start()
    bench.until(lambda: ("b", "done") in bench.results)
    assert [job.krel for job in bench.delayed] == (["a"] if transient else [])
    assert (("a", "failed") in bench.results) is not transient
    assert "reconcile-a: " in capsys.readouterr().err


def test_what_may_pass_is_tried_again_with_growing_delay_and_then_given_up(bench: Bench) -> None:
    bench.tell("a", lambda *_: JobResult("failed", "disk full", transient=True))
    bench.add("a")
    bench.worker.start()
    for attempt, delay in ((1, 30), (2, 60)):
        bench.until(lambda wanted=attempt: len(bench.delayed) == wanted)  # type: ignore[misc]
        job = bench.delayed[-1]
        assert (job.attempt, job.not_before - bench.now, job.last_error) == (attempt, delay, "disk full")
        bench.now += delay
        bench.worker.wake()
    bench.until(lambda: bench.results == [("a", "failed")])
    assert len(bench.engine.seen) == 3
    assert bench.queue.find(1)[1] == JobResult("failed", "disk full", transient=True)


def test_what_cannot_pass_is_not_tried_again(bench: Bench) -> None:
    bench.tell("a", lambda *_: JobResult("failed", "does not compile"))
    bench.add("a")
    bench.worker.start()
    bench.until(lambda: bench.results == [("a", "failed")])
    assert bench.queue.jobs() == ()


def test_a_failure_is_said_once_until_it_is_another(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = ["failed", "failed", "done", "failed"]
    bench.tell("a", lambda *_: JobResult(outcomes[len(bench.results)], "does not compile"))
    bench.worker.start()
    for wanted in range(1, len(outcomes) + 1):
        bench.add("a")
        bench.until(lambda n=wanted: len(bench.results) == n)  # type: ignore[misc]
    bench.stop()
    assert capfd.readouterr().err.count("reconcile-a: does not compile") == 2


def test_stop_ends_the_running_command_and_keeps_the_job(bench: Bench) -> None:
    started = threading.Event()
    bench.tell("a", sleeping(started))
    job = bench.add("a")
    bench.worker.start()
    assert started.wait(LIMIT_S)
    bench.stop()
    assert bench.results == []
    assert bench.queue.jobs() == (job,)
    assert [j.name for j in Spool(bench.paths).jobs()] == ["reconcile-a"]
    # and whoever starts next goes on with it
    bench.tell("a", lambda *_: DONE)
    bench.make().start()
    bench.until(lambda: bench.results == [("a", "done")])


def test_stop_lets_a_job_that_is_just_done_be_done(bench: Bench) -> None:
    def deed(_job: Job, _cancel: Cancel) -> JobResult:
        bench.worker.stop()
        return DONE

    bench.tell("a", deed)
    bench.add("a")
    bench.worker.start()
    assert bench.ended.wait(LIMIT_S)
    assert bench.results == [("a", "done")]
    assert bench.queue.jobs() == ()


def test_stop_while_idle(bench: Bench) -> None:
    bench.worker.start()
    bench.stop()


def test_stop_starts_no_job(bench: Bench) -> None:
    bench.worker.stop()
    bench.add("a")
    bench.worker.start()
    assert bench.ended.wait(LIMIT_S)
    assert bench.engine.seen == []


def test_cancel_a_running_job(bench: Bench) -> None:
    started = threading.Event()
    bench.tell("a", sleeping(started))
    job = bench.add("a")
    bench.worker.start()
    assert started.wait(LIMIT_S)
    bench.worker.cancel(job.id)
    bench.until(lambda: bench.results == [("a", "cancelled")])
    assert bench.queue.jobs() == ()
    bench.add("b")
    bench.until(lambda: ("b", "done") in bench.results)


def test_cancel_a_queued_job(bench: Bench) -> None:
    started = threading.Event()
    bench.tell("a", sleeping(started))
    bench.add("a")
    job = bench.add("b")
    bench.worker.start()
    assert started.wait(LIMIT_S)
    bench.worker.cancel(job.id)
    assert bench.results == [("b", "cancelled")]
    with pytest.raises(UnknownJob):
        bench.worker.cancel(job.id)
    with pytest.raises(UnknownJob):
        bench.worker.cancel(4711)


def test_another_engine_is_used_from_the_next_job_on(bench: Bench) -> None:
    bench.worker.start()
    other = ToldEngine()
    bench.worker.use(other, RetryConfig(attempts=0))
    other.deeds["a"] = lambda *_: JobResult("failed", "x", transient=True)
    bench.add("a")
    bench.until(lambda: bench.results == [("a", "failed")])
    assert bench.engine.seen == []
    assert bench.engine.is_closed
    bench.stop()
    assert not other.is_closed
    bench.worker.close()
    assert other.is_closed


def test_engines_that_never_came_to_work_are_closed(bench: Bench) -> None:
    first, second = ToldEngine(), ToldEngine()
    bench.worker.use(first, bench.retry)
    bench.worker.use(second, bench.retry)
    assert first.is_closed
    bench.worker.close()
    assert bench.engine.is_closed
    assert second.is_closed


def test_an_unreadable_spool_does_not_end_the_worker(bench: Bench) -> None:
    bench.paths.spool.write_text("not a directory")
    bench.worker.start()
    bench.worker.wake()
    bench.paths.spool.unlink()
    bench.add("a")
    bench.until(lambda: bench.results == [("a", "done")])


def test_nothing_is_left_running_when_a_job_is_cancelled(bench: Bench) -> None:
    pids: list[int] = []
    started = threading.Event()

    def deed(_job: Job, cancel: Cancel) -> JobResult:
        proc = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        cancel.add(proc)
        pids.append(proc.pid)
        started.set()
        proc.wait()
        cancel.discard(proc)
        return JobResult("cancelled")

    bench.tell("a", deed)
    bench.add("a")
    bench.worker.start()
    assert started.wait(LIMIT_S)
    bench.stop()
    assert not Path(f"/proc/{pids[0]}").exists()
