"""The quick look: a record is believed as far as the disk agrees."""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.act.records import write_record
from autokmod.config import Config, RetryConfig
from autokmod.daemon.alone import alone
from autokmod.jobs.machine import read_machine
from autokmod.jobs.queue import Queue
from autokmod.jobs.queued import read_jobs
from autokmod.jobs.spool import Spool
from autokmod.model import JobResult, JobState, KernelStatus, Readiness, Verb
from autokmod.observe.kernels import read_kernel
from autokmod.observe.machine import find_sources, is_daemon_running, look_at_kernels
from autokmod.observe.sight import Source
from autokmod.paths import Paths
from tests.unit.handmade import add_kernel, add_source, link, place, record

A, B = "6.1.0-55-amd64", "6.1.0-56-amd64"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Kernel A has a built package, kernel B a link to it."""
    paths = Paths(tmp_path)
    add_kernel(paths, A)
    add_kernel(paths, B)
    add_source(paths, "pkg", "1.0")
    record(paths, A, place(paths, A, "pkg"))
    record(paths, B, link(paths, B, "pkg", A))
    return paths


def look(paths: Paths) -> dict[str, KernelStatus]:
    later = time.time() + 5
    return {s.krel: s for s in read_machine(paths, Config(), Spool(paths).jobs(), later)}


def outcome(status: KernelStatus) -> tuple[Readiness, list[str]]:
    return status.readiness, [r.kind for r in status.reasons]


def test_all_is_well(paths: Paths) -> None:
    found = look(paths)
    assert [outcome(s) for s in found.values()] == [(Readiness.READY, [])] * 2
    assert [s.krel for s in found.values()] == [A, B]
    assert not any(s.running for s in found.values())


def test_no_kernels_no_packages(tmp_path: Path) -> None:
    assert look(Paths(tmp_path)) == {}
    assert find_sources(Paths(tmp_path)) == ()


@pytest.mark.parametrize("what", ["gone", "other size", "other time", "a link now", "a directory now"])
def test_a_file_that_is_not_as_recorded(paths: Paths, what: str) -> None:
    file = paths.own_dir(A, "pkg") / "pkg.ko"
    stat = file.stat()
    if what == "other size":
        file.write_bytes(b"short")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif what == "other time":
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    else:
        file.unlink()
    if what == "a link now":
        copy = paths.at("copy.ko")
        copy.write_bytes(b"module pkg of " + A.encode())
        os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        file.symlink_to(copy)
    if what == "a directory now":
        file.mkdir()
    kind = {"gone": "file-gone", "a link now": "link-changed"}.get(what, "file-changed")
    found = look(paths)
    assert outcome(found[A]) == (Readiness.DEGRADED, [kind])
    assert not found[A].placements[0].verified
    assert found[A].reasons[0].hint == f"autokmodctl reconcile {A}"


def test_a_link_that_dangles(paths: Paths) -> None:
    (paths.own_dir(A, "pkg") / "pkg.ko").unlink()
    assert outcome(look(paths)[B]) == (Readiness.DEGRADED, ["file-gone"])


def test_a_link_that_leads_elsewhere(paths: Paths) -> None:
    path = paths.link_dir(B, "pkg") / "pkg.ko"
    path.unlink()
    path.symlink_to(paths.own_dir(A, "pkg") / "pkg.ko")
    assert outcome(look(paths)[B]) == (Readiness.DEGRADED, ["link-changed"])


def test_somebody_elses_depmod_picks_another_file(paths: Paths) -> None:
    (paths.modulesd(A) / "modules.dep").write_text("updates/dkms/pkg.ko:\nxupdates/autokmod/pkg/pkg.ko:\n")
    assert outcome(look(paths)[A]) == (Readiness.DEGRADED, ["not-indexed"])


def test_no_modules_dep(paths: Paths) -> None:
    (paths.modulesd(A) / "modules.dep").unlink()
    assert outcome(look(paths)[A]) == (Readiness.DEGRADED, ["not-indexed"])


def test_damaged_record(paths: Paths) -> None:
    paths.record(A).write_text('{"format": 1, "krel": ')
    assert outcome(look(paths)[A]) == (Readiness.NOT_READY, ["record-damaged"])
    assert str(paths.record(A)) in look(paths)[A].reasons[0].text


def test_never_examined(paths: Paths) -> None:
    paths.record(A).unlink()
    assert outcome(look(paths)[A]) == (Readiness.NOT_READY, ["never-examined"])


def test_kernel_replaced_after_it_was_examined(paths: Paths) -> None:
    before = record(paths, A, *look(paths)[A].placements)
    order = paths.modulesd(A) / "modules.order"
    write_record(paths, replace(before, updated_at=order.stat().st_ctime - 1))
    assert outcome(look(paths)[A]) == (Readiness.NOT_READY, ["kernel-changed"])


def test_a_kernel_from_the_future_says_only_that_a_clock_was_wrong(paths: Paths) -> None:
    before = record(paths, A, *look(paths)[A].placements)
    changed_at = (paths.modulesd(A) / "modules.order").stat().st_ctime
    write_record(paths, replace(before, updated_at=changed_at - 100))
    (sight, _) = look_at_kernels(paths, changed_at - 50)
    assert sight.doubts == ()


@pytest.mark.parametrize("clock_s", [-(10**6), 0, 10**6])
def test_kernel_replaced_while_a_clock_was_wrong(paths: Paths, clock_s: float) -> None:
    """The record says which files it is about: nothing has to be compared with a time of day."""
    before = record(paths, A, *look(paths)[A].placements)
    kernel = read_kernel(paths, A)
    made = replace(before, updated_at=kernel.changed_at + clock_s, kernel_changed_at=kernel.changed_at)
    write_record(paths, made)
    assert outcome(look(paths)[A]) == (Readiness.READY, [])
    (paths.modulesd(A) / "modules.order").write_text("kernel/new.ko\n")
    assert outcome(look(paths)[A]) == (Readiness.NOT_READY, ["kernel-changed"])


def test_a_package_that_appeared_since(paths: Paths) -> None:
    add_source(paths, "other", "3")
    assert outcome(look(paths)[A]) == (Readiness.DEGRADED, ["not-examined"])


def test_headers_alone(paths: Paths) -> None:
    add_kernel(paths, "6.1.0-57-amd64", modules=False, image=False)
    assert outcome(look(paths)["6.1.0-57-amd64"]) == (Readiness.WAITING, ["headers-only"])


def test_what_a_removed_package_leaves_is_no_kernel(paths: Paths) -> None:
    add_kernel(paths, "6.1.0-57-amd64", modules=False, image=False, headers=False)
    (paths.modulesd("6.1.0-57-amd64") / "modules.dep").write_text("")
    assert sorted(look(paths)) == [A, B]
    (paths.modulesd("6.1.0-57-amd64") / "updates").mkdir()
    assert sorted(look(paths)) == [A, B, "6.1.0-57-amd64"]


def test_a_queued_job(paths: Paths) -> None:
    Spool(paths).add(Verb.RECONCILE, A, "admin")
    assert outcome(look(paths)[A]) == (Readiness.PENDING, ["job-queued"])
    assert outcome(look(paths)[B]) == (Readiness.READY, [])


def test_the_look_writes_nothing(paths: Paths) -> None:
    def snapshot() -> list[tuple[str, int]]:
        return [(str(p), p.lstat().st_mtime_ns) for p in sorted(paths.root.rglob("*"))]

    before = snapshot()
    look(paths)
    assert snapshot() == before


# ---- sources -------------------------------------------------------------------------------------


def test_sources(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    add_source(paths, "xtrx", "0.0.1-3.2")
    add_source(paths, "v4l2loopback", "0.12.7")
    (paths.usr_src / "linux-headers-6.1").mkdir()
    (paths.usr_src / "broken-1").mkdir()
    (paths.usr_src / "broken-1" / "dkms.conf").symlink_to("/nowhere")
    (paths.usr_src / "file-1").touch()
    assert find_sources(paths) == (
        Source("broken", "1"),
        Source("v4l2loopback", "0.12.7"),
        Source("xtrx", "0.0.1-3.2"),
    )


# ---- the daemon and its queue --------------------------------------------------------------------


def test_whether_the_daemon_lives(paths: Paths) -> None:
    assert not is_daemon_running(paths)
    paths.daemon_lock.parent.mkdir(parents=True)
    with open(paths.daemon_lock, "w") as lock:
        assert not is_daemon_running(paths)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_daemon_running(paths)
    assert not is_daemon_running(paths)


def test_jobs_as_their_files_tell(paths: Paths) -> None:
    """The daemon's own queue writes them; what it does not write is seen as well."""
    now, retry = time.time(), RetryConfig()
    queue = Queue(paths, retry, lambda: now, lambda change: None)
    queue.add(Verb.RECONCILE, A, "admin")
    taken = queue.take()
    assert taken is not None
    queue.delay(now + 60, "no space left")
    Spool(paths).add(Verb.RECONCILE, B, "kernel-install")
    first, second = read_jobs(paths, retry, now)
    assert (first.krel, first.id, first.state, first.attempt, first.last_error) == (
        A,
        taken.id,
        JobState.DELAYED,
        1,
        "no space left",
    )
    assert (second.krel, second.id, second.state) == (B, 0, JobState.QUEUED)
    assert read_jobs(paths, retry, now + 61)[0].state is JobState.QUEUED


def test_which_job_is_running(paths: Paths) -> None:
    """A daemon that was killed leaves its note behind: without a daemon nothing runs."""
    queue = Queue(paths, RetryConfig(), time.time, lambda change: None)
    queue.add(Verb.RECONCILE, A, "admin")
    queue.add(Verb.RECONCILE, B, "admin")
    assert queue.take()
    assert {j.state for j in read_jobs(paths, RetryConfig(), time.time())} == {JobState.QUEUED}
    with alone(paths):
        states = {j.krel: j.state for j in read_jobs(paths, RetryConfig(), time.time())}
        assert states == {A: JobState.RUNNING, B: JobState.QUEUED}
        queue.finish(JobResult("done"))
        assert [(j.krel, j.state) for j in read_jobs(paths, RetryConfig(), time.time())] == [(B, JobState.QUEUED)]


def test_jobs_with_damaged_notes(paths: Paths) -> None:
    Spool(paths).add(Verb.RECONCILE, A, "admin")
    for text in ("", "[]", '{"format": 7}', '{"jobs": 3}'):
        paths.queue.write_text(text)
        assert [j.name for j in read_jobs(paths, Config().retry, 0.0)] == [f"reconcile-{A}"]


def test_an_image_that_nobody_looked_into(paths: Paths) -> None:
    """A record of an autokmod that did not look, or of a time when there was no image."""
    image = paths.boot / f"initrd.img-{A}"
    image.write_bytes(b"any")
    assert outcome(look(paths)[A]) == (Readiness.NOT_READY, ["initrd-changed"])
    record(paths, A)
    assert outcome(look(paths)[A]) == (Readiness.DEGRADED, ["not-examined"])
