"""Every kind of event, by what really emits it: which fields it carries, and that its catalog entry asks for no other.

What is asserted are entries as they arrive at journald's socket.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autokmod.config import Config, PackageConfig, StoreConfig
from autokmod.config_load import load_config
from autokmod.daemon.app import App
from autokmod.daemon.bounded import Bounded, Screen
from autokmod.daemon.flush import run_flush
from autokmod.daemon.oneshot import run_oneshot
from autokmod.daemon.sayings import SAYINGS, say
from autokmod.daemon.watcher import Watcher
from autokmod.decide.bootguard import decide_guard
from autokmod.errors import AutokmodError, ConfigError
from autokmod.events import Event
from autokmod.jobs.announce import announce, announce_lost
from autokmod.jobs.bootguard import _say as say_guard
from autokmod.jobs.engine import Engine
from autokmod.jobs.gc import Keeper
from autokmod.jobs.handover import hand_over
from autokmod.jobs.initrd.say import FAILED, RESTORED, UNTOLD
from autokmod.jobs.keepout import say_kept_out, tend_door
from autokmod.jobs.ledger import Ledger
from autokmod.jobs.machine import read_machine
from autokmod.jobs.spool import Spool
from autokmod.model import DecisionKind, GuardState, Job, JobResult, KeptOut, KernelRecord, Placement, Reason, Verb
from autokmod.paths import Paths
from autokmod.run import Cancel
from tests.journaldhere import Heard
from tests.unit import test_booted as boot
from tests.unit import test_bootguard as guard
from tests.unit import test_gc as store
from tests.unit.handmade import add_kernel, add_source, link, place, record
from tests.unit.test_worker import Bench, raising

CATALOG = Path(__file__).parents[2] / "systemd/autokmod.catalog"
A, B = "6.1.0-1-amd64", "6.1.0-2-amd64"
NOW = 4e9


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "root")
    (paths.root / "usr/lib/modules").mkdir(parents=True)
    (paths.root / "lib").symlink_to("usr/lib")
    for directory in (paths.state, paths.spool, paths.builds, paths.kernels):
        directory.mkdir(parents=True, exist_ok=True)
    return paths


# ---- what really emits them ----


def once(paths: Paths, config: Config | None = None) -> None:
    run_oneshot(paths, config or Config(), ())


def ready(paths: Paths) -> None:
    add_kernel(paths, A)
    once(paths)


def degraded(paths: Paths) -> None:
    """There is no shell in this root: the recipe cannot be read."""
    add_source(paths, "evdi", "1.0")
    ready(paths)


def not_ready(paths: Paths) -> None:
    add_kernel(paths, A)
    add_source(paths, "evdi", "1.0")
    once(paths, Config(packages=(("evdi", PackageConfig(required=True)),)))


def waiting(paths: Paths) -> None:
    add_kernel(paths, A, headers=False)
    why = Reason("no-headers", "its headers are not installed")
    record(paths, A, Placement("evdi", "1", DecisionKind.WAIT, (why,), None, None, None, 0, (), verified=False))
    add_source(paths, "evdi", "1")
    (status,) = read_machine(paths, Config(), (), NOW)
    say(status)


def ready_by_flush(paths: Paths) -> None:
    add_kernel(paths, A)
    Spool(paths).add(Verb.RECONCILE, A, "test")
    assert run_flush(paths, Config()) == 0


def blocked_lock(paths: Paths) -> None:
    """Nothing can be done where the lock cannot be had."""
    add_kernel(paths, A)
    paths.lock.mkdir()


def fails_once(paths: Paths) -> None:
    blocked_lock(paths)
    once(paths)


def fails_at_flush(paths: Paths) -> None:
    blocked_lock(paths)
    Spool(paths).add(Verb.RECONCILE, A, "test")
    assert run_flush(paths, Config()) == 1


class Refusing(Engine):
    """For good: of that the flush and the boot check must say that nobody tries it again."""

    def run_job(self, *_: object) -> JobResult:
        return JobResult("failed", "no")


def fails_for_good_at_boot(paths: Paths) -> None:
    with closing(Refusing(paths, Config(), lambda: NOW)) as engine:
        Bounded(engine, Spool(paths), Cancel(), Screen()).do(Job(Verb.RECONCILE, A, "boot-check", NOW))


def worked(paths: Paths, exc: Exception) -> None:
    bench = Bench(paths.root / "bench")
    bench.tell(A, raising(exc))
    bench.worker.start()
    bench.add(A)
    bench.until(lambda: bool(bench.results or bench.delayed))
    bench.stop()


class Broken(AutokmodError):
    pass


def job_fails(paths: Paths) -> None:
    worked(paths, Broken("no good"))


def job_is_delayed(paths: Paths) -> None:
    worked(paths, OSError(28, "No space left on device"))


def internal_error(paths: Paths) -> None:
    worked(paths, ZeroDivisionError())


def placed(kind: DecisionKind, why: str, *, failed: bool = False, owner: str | None = None) -> Callable[[Paths], None]:
    def work(_: Paths) -> None:
        reasons = (Reason(why, "a sentence"),)
        one = Placement("evdi", "1", kind, reasons, None, None, owner, 0, (), verified=not failed, failed=failed)
        announce(None, KernelRecord(A, NOW, (one,)))

    return work


def initrd(kind: str, *, good: bool = False) -> Callable[[Paths], None]:
    word = Reason(kind, "a sentence")
    return lambda _: announce(KernelRecord(A, 0.0, ()), KernelRecord(A, NOW, (), initrd=word, initrd_ok=good))


def promoted(paths: Paths) -> None:
    """Of two packages one is linked to; the other was taken over long ago, which is no news."""
    add_kernel(paths, A)
    add_kernel(paths, B)
    record(paths, A, place(paths, A, "evdi"))
    former = replace(place(paths, B, "old"), reasons=(Reason("promoted", "taken over from 5.10"),))
    linked = record(paths, B, link(paths, B, "evdi", A), former)
    assert hand_over(paths, {B: linked}, A, NOW) == frozenset()


def lost(_: Paths) -> None:
    announce_lost("evdi", A, "it is gone")


def guarded(state: GuardState, **changes: Any) -> Callable[[Paths], None]:
    facts, limits = changes.pop("facts", guard.BAD), guard.LIMITS
    return lambda _: say_guard(state, decide_guard(state, replace(facts, **changes), limits))


def kept_out(paths: Paths) -> None:
    say_kept_out(A, guard.WHY)


def let_in(paths: Paths) -> None:
    tend_door(paths, Config(), GuardState(kept_out=(KeptOut(A, "/boot/vmlinuz", (), NOW, guard.WHY),)), NOW)


def came_up(*loaded: str) -> Callable[[Paths], None]:
    def work(paths: Paths) -> None:
        boot.add_modules(paths)
        boot.boot(paths, *loaded)
        boot.checked(paths, "one")

    return work


def came_up_unseen(paths: Paths) -> None:
    boot.add_modules(paths)
    boot.boot(paths, "one")
    paths.at("proc/modules").unlink()
    assert boot.is_open(paths)


def stays_after_boot(paths: Paths) -> None:
    boot.add_modules(paths)
    boot.boot(paths, "one", "two")
    previous = boot.image(paths)
    previous.unlink()
    previous.mkdir()
    assert boot.is_open(paths)


def collected(paths: Paths) -> None:
    for i in range(8):
        key = store.add(paths, f"{i}", store.GONE, at=i)
        (paths.builds / key / "build.log").write_bytes(b"x" * (256 << 10))
    Keeper(paths, Config(store=StoreConfig(max_size_mb=1, min_age_s=0.0))).keep_small(NOW)


def damaged(paths: Paths) -> None:
    paths.queue.write_text("{")
    Ledger(paths.queue, NOW)


def told(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


def with_app(paths: Paths, work: Callable[[App], None], *, use_bus: bool = False) -> None:
    app = App(paths, Config(), use_bus=use_bus)
    try:
        work(app)
    finally:
        app._close()


def kernel_is_gone(paths: Paths) -> None:
    add_kernel(paths, A)
    statuses = read_machine(paths, Config(), (), NOW)

    def work(app: App) -> None:
        before = app.core.standing()
        app._judge.judged(told((replace(before, kernels=statuses), False)))
        app._judge.judged(told((replace(before, kernels=()), False)))

    with_app(paths, work)


def wrong_configuration(paths: Paths) -> None:
    paths.etc.mkdir(parents=True)
    (paths.etc / "autokmod.toml").write_text("[biuld]\n")
    with pytest.raises(ConfigError) as caught:
        load_config(paths)
    with_app(paths, lambda app: app._reloaded(told(caught.value)))


def no_bus(paths: Paths) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={paths.root}/no-bus")
        with_app(paths, lambda app: app._serve(), use_bus=True)


def watch_limit(paths: Paths) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with closing(Watcher(paths)) as watcher, pytest.MonkeyPatch.context() as patch:
        patch.setattr(watcher._inotify, "add_watch", refuse)
        watcher._walk()


HOLD = guard.held(guard.takes(guard.C), guard.A, guard.B)
EMITTERS: list[tuple[Event, Callable[[Paths], None]]] = [
    (Event.KERNEL_READY, ready),
    (Event.KERNEL_READY, ready_by_flush),
    (Event.KERNEL_WAITING, waiting),
    (Event.KERNEL_DEGRADED, degraded),
    (Event.KERNEL_NOT_READY, not_ready),
    (Event.KERNEL_REMOVED, kernel_is_gone),
    (Event.PACKAGE_LINKED, placed(DecisionKind.LINK, "compatible-build", owner=B)),
    (Event.PACKAGE_BUILT, placed(DecisionKind.BUILD, "no-build")),
    (Event.BUILD_FAILED, placed(DecisionKind.BUILD, "build-failed", failed=True)),
    (Event.PACKAGE_BLOCKED, degraded),
    (Event.PACKAGE_WAITING, placed(DecisionKind.WAIT, "no-headers")),
    (Event.PACKAGE_BROKEN, placed(DecisionKind.BLOCKED, "recipe-broken")),
    (Event.MODULES_PROMOTED, promoted),
    (Event.FOREIGN_FILE, placed(DecisionKind.BUILD, "other-file-wins", failed=True)),
    (Event.PLACEMENT_FAILED, placed(DecisionKind.LINK, "placement-failed", failed=True)),
    (Event.PLACEMENT_FAILED, lost),
    (Event.INITRD_REFRESHED, initrd("initrd-refreshed", good=True)),
    (Event.INITRD_REFRESHED, initrd("initrd-overlaid", good=True)),
    (Event.INITRD_FAILED, initrd(FAILED)),
    (Event.INITRD_STALE, initrd("initrd-stale")),
    (Event.INITRD_STALE, initrd(RESTORED)),
    (Event.INITRD_AWAY, initrd("initrd-away")),
    (Event.INITRD_GONE, initrd("initrd-gone")),
    (Event.INITRD_UNTOLD, initrd(UNTOLD)),
    (Event.GUARD_HOLDS, guarded(GuardState())),
    (Event.GUARD_RELEASED, guarded(guard.HELD, facts=HOLD, required=False)),
    (Event.GUARD_GAVE_UP, guarded(guard.HELD, facts=HOLD, now=1100.0)),
    (Event.GUARD_FAILED, guarded(GuardState(), obstacle=Reason("guard-unwritable", "btrfs"))),
    (Event.GUARD_KEEPS_OUT, kept_out),
    (Event.GUARD_LETS_IN, let_in),
    (Event.BOOT_AS_PROMISED, came_up("one", "two")),
    (Event.BOOT_DIFFERS, came_up()),
    (Event.BOOT_CHECK_FAILED, came_up_unseen),
    (Event.BOOT_CHECK_FAILED, stays_after_boot),
    (Event.JOB_FAILED, job_fails),
    (Event.JOB_FAILED, fails_once),
    (Event.JOB_FAILED, fails_for_good_at_boot),
    (Event.JOB_DELAYED, job_is_delayed),
    (Event.JOB_DELAYED, fails_at_flush),
    (Event.FLUSH_UNFINISHED, fails_at_flush),
    (Event.STORE_COLLECTED, collected),
    (Event.STATE_DAMAGED, damaged),
    (Event.CONFIG_WRONG, wrong_configuration),
    (Event.WATCH_LIMIT, watch_limit),
    (Event.NO_BUS, no_bus),
    (Event.INTERNAL_ERROR, internal_error),
]


def entry(event: Event) -> str:
    """Its text in the catalog."""
    return CATALOG.read_text().split(f"-- {event}\n", 1)[1].split("\n-- ", 1)[0]


@pytest.mark.parametrize(("event", "emit"), EMITTERS, ids=[f"{e.name}-{f.__name__}" for e, f in EMITTERS])
def test_it_carries_what_its_catalog_entry_names(
    paths: Paths, heard: Heard, event: Event, emit: Callable[[Paths], None]
) -> None:
    emit(paths)
    entries = heard()
    mine = [e for e in entries if e.get("MESSAGE_ID") == event]
    assert mine, entries
    named = set(re.findall(r"@(\w+)@", entry(event)))
    for fields in mine:
        assert named <= set(fields), fields
        assert all(fields[name] for name in named), fields


def test_there_is_no_other_event() -> None:
    assert {event for event, _ in EMITTERS} == set(Event)
    assert {kind for _, kind, _ in SAYINGS.values()} < set(Event)


def test_only_what_was_just_taken_over_is_said_to_be(paths: Paths, heard: Heard) -> None:
    promoted(paths)
    (said,) = [e for e in heard() if e.get("MESSAGE_ID") == Event.MODULES_PROMOTED]
    assert (said["AUTOKMOD_KERNEL"], said["AUTOKMOD_PACKAGE"]) == (B, "evdi")


def test_what_is_not_finished_is_no_event(paths: Paths, heard: Heard) -> None:
    add_kernel(paths, A)
    (status,) = read_machine(paths, Config(), (Job(Verb.RECONCILE, A, "test", NOW),), NOW)
    say(status)
    (said,) = heard()
    assert "MESSAGE_ID" not in said
    assert (said["AUTOKMOD_KERNEL"], said["AUTOKMOD_RESULT"]) == (A, "pending")


def test_jobs_without_a_number_go_by_their_name(paths: Paths, heard: Heard) -> None:
    fails_once(paths)
    (said,) = [e for e in heard() if e.get("MESSAGE_ID") == Event.JOB_FAILED]
    assert said["AUTOKMOD_JOB"] == f"reconcile-{A}"
