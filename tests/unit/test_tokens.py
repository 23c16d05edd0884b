"""The job-token budget, with the real make on the other end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from autokmod.jobs.tokens import TOKEN, Slot, TokenPool
from autokmod.run import Cancel, run

# Each job notes when it began and ended; how many overlapped is counted afterwards.
MAKEFILE = """
all: {targets}
t%:
\t@echo + >>log; sleep 0.05; echo - >>log
"""


@pytest.fixture
def pool() -> Iterator[TokenPool]:
    made = TokenPool(3)
    yield made
    made.close()


def free_tokens(pool: TokenPool) -> int:
    """Takes them all out and puts them back."""
    try:
        taken = len(os.read(pool._read, 1 << 16))
    except BlockingIOError:
        return 0
    os.write(pool._write, TOKEN * taken)
    return taken


def make(slot: Slot, directory: Path, *args: str) -> str:
    env = {"MAKEFLAGS": slot.makeflags}
    result = run(["make", *args], timeout_s=60, env=env, cwd=directory, pass_fds=(slot.read_fd, slot.write_fd))
    return result.output


def project(directory: Path, jobs: int) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Makefile").write_text(MAKEFILE.format(targets=" ".join(f"t{i}" for i in range(jobs))))
    return directory


def most_at_once(logs: list[Path]) -> int:
    """Of one log: file order is time order, for every job appends in one write."""
    now = most = 0
    for line in "".join(log.read_text() for log in logs).split():
        now += 1 if line == "+" else -1
        most = max(most, now)
    assert now == 0
    return most


def test_zero_means_one_for_each_cpu() -> None:
    pool = TokenPool(0)
    assert pool.tokens == len(os.sched_getaffinity(0))
    pool.close()


def test_a_slot_is_one_token(pool: TokenPool) -> None:
    assert free_tokens(pool) == 3
    with pool.slot():
        assert free_tokens(pool) == 2
        with pool.slot():
            assert free_tokens(pool) == 1
    assert free_tokens(pool) == 3


def test_make_uses_the_whole_budget_and_gives_it_back(pool: TokenPool, tmp_path: Path) -> None:
    directory = project(tmp_path, 12)
    with pool.slot() as slot:
        assert "warning" not in make(slot, directory)
        assert free_tokens(pool) == 2
    assert most_at_once([directory / "log"]) == 3


def test_sub_makes_share_it(pool: TokenPool, tmp_path: Path) -> None:
    for name in ("a", "b"):
        project(tmp_path / name, 6)
    (tmp_path / "Makefile").write_text("all: a b\n.PHONY: a b\na b:\n\t+@$(MAKE) -C $@ --no-print-directory\n")
    with pool.slot() as slot:
        make(slot, tmp_path)
        assert free_tokens(pool) == 2


def test_several_builds_at_once_never_exceed_it(pool: TokenPool, tmp_path: Path) -> None:
    """All write to one log, so that what overlaps is counted over all of them."""
    log = tmp_path / "log"
    log.touch()
    directories = [project(tmp_path / str(i), 6) for i in range(5)]
    for directory in directories:
        (directory / "log").symlink_to(log)
    failures: list[BaseException] = []

    def build(directory: Path) -> None:
        try:
            with pool.slot() as slot:
                make(slot, directory)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=build, args=(d,)) for d in directories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert 2 <= most_at_once([log]) <= 3
    assert free_tokens(pool) == 3


def test_a_nonblocking_make_does_not_disturb_another_build(pool: TokenPool, tmp_path: Path) -> None:
    """make 4.3 sets O_NONBLOCK on what it inherits; the flag must not reach another build's descriptors."""
    with pool.slot() as one, pool.slot() as other:
        os.set_blocking(one.read_fd, False)
        assert os.get_blocking(other.read_fd)
        assert one.read_fd != other.read_fd


def test_tokens_lost_with_a_killed_build_come_back(pool: TokenPool) -> None:
    with pool.slot() as slot:
        os.read(slot.read_fd, 2)  # as a make that is killed
        assert free_tokens(pool) == 0
    assert free_tokens(pool) == 3


def test_while_others_run_lost_tokens_stay_lost_but_no_longer(pool: TokenPool) -> None:
    with ExitStack() as outer:
        outer.enter_context(pool.slot())
        with pool.slot() as slot:
            os.read(slot.read_fd, 1)
        assert free_tokens(pool) == 1
    assert free_tokens(pool) == 3


def test_forged_tokens_are_taken_out(pool: TokenPool) -> None:
    with pool.slot() as slot:
        os.set_blocking(slot.write_fd, False)
        os.write(slot.write_fd, b"x" * 65536)  # the pipe is full: giving back a token must not block
        with pool.slot():
            pass
    assert free_tokens(pool) == 3


def test_a_build_that_keeps_all_tokens_stops_nobody(pool: TokenPool) -> None:
    with pool.slot() as hostile:
        os.read(hostile.read_fd, 100)
        with pool.slot(patience_s=0), pool.slot(patience_s=0):
            assert free_tokens(pool) == 0
    assert free_tokens(pool) == 3


def test_more_builds_than_tokens_never_run(pool: TokenPool) -> None:
    """However long they wait: patience is for tokens that are kept, not for builds that are busy."""
    running = threading.Semaphore(0)
    leave = threading.Event()
    started: list[int] = []

    def build(number: int) -> None:
        with pool.slot(patience_s=0):
            started.append(number)
            running.release()
            leave.wait()

    threads = [threading.Thread(target=build, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        running.acquire()
    assert not running.acquire(timeout=0.5)
    leave.set()
    for thread in threads:
        thread.join()
    assert sorted(started) == [0, 1, 2, 3, 4]


def test_first_come_first_served() -> None:
    pool = TokenPool(1)
    order: list[int] = []
    threads = []

    def build(number: int) -> None:
        with pool.slot():
            order.append(number)

    with pool.slot():
        for number in range(5):
            threads.append(threading.Thread(target=build, args=(number,)))
            threads[-1].start()
            while len(pool._queue) <= number:
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    pool.close()


def test_a_cancelled_build_does_not_wait(pool: TokenPool) -> None:
    cancel = Cancel()
    cancel.cancel()
    with pool.slot(), pool.slot(), pool.slot(), pool.slot(cancel):
        assert free_tokens(pool) == 0
    assert free_tokens(pool) == 3


def test_an_exception_in_a_build_gives_the_token_back(pool: TokenPool) -> None:
    with pytest.raises(ZeroDivisionError), pool.slot():
        raise ZeroDivisionError
    assert free_tokens(pool) == 3
