"""State files in which one field is foolish: nothing that shows or serves the others breaks."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gi.repository import GLib

from autokmod.config import Config, RetryConfig
from autokmod.ctl.main import main as autokmodctl
from autokmod.daemon.variants import record as variant
from autokmod.errors import FormatError
from autokmod.jobs.engine import Engine
from autokmod.jobs.machine import read_machine
from autokmod.jobs.queue import Change, Queue
from autokmod.jobs.queued import read_jobs
from autokmod.jobs.spool import Spool
from autokmod.jsonvalue import to_json
from autokmod.model import Verb
from autokmod.observe.records import read_record
from autokmod.paths import Paths
from tests.unit.handmade import add_kernel, add_source, link, place, record

A, B = "6.1.0-1-amd64", "6.1.0-2-amd64"
FOOLISH: tuple[Any, ...] = (None, True, -1, 1 << 32, 1 << 64, 10**400, -1e308, 1e308, "", "x" * 5000, "\ud800", "a\0b")
FOOLISH += ("../../x", "/etc/passwd", "\x1b[2J", [], [1], {}, {"a": 1})


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def variants(value: Any) -> Iterator[str]:
    """The same value, foolish in one place; and with one thing left out."""
    for at in places(value):
        for foolish in FOOLISH:
            yield json.dumps(_with(value, at, foolish))
    for at in places(value):
        if at:
            yield json.dumps(_with(value, at, None, leave_out=True))


def _with(value: Any, at: tuple[Any, ...], new: Any, *, leave_out: bool = False) -> Any:
    if not at:
        return new
    made = copy.deepcopy(value)
    holder = made
    for key in at[:-1]:
        holder = holder[key]
    if leave_out:
        del holder[at[-1]]
    else:
        holder[at[-1]] = new
    return made


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    (tmp_path / "lib").symlink_to("usr/lib")
    paths.modules.mkdir(parents=True)
    for krel in (A, B):
        add_kernel(paths, krel, headers=False)
    add_source(paths, "x", "1.0")
    record(paths, A, place(paths, A, "x"))
    record(paths, B, link(paths, B, "x", A))
    return paths


def test_the_queues_own_notes(paths: Paths) -> None:
    spool = Spool(paths)
    for krel in (A, B):
        spool.add(Verb.RECONCILE, krel, "admin")
    queue = Queue(paths, RetryConfig(), time.time, lambda _: None)
    assert queue.take()
    queue.delay(time.time() + 50, "an error")
    assert queue.take()
    for text in variants(json.loads(paths.queue.read_text())):
        paths.queue.write_text(text)
        read_jobs(paths, RetryConfig(), time.time())
        told: list[Change] = []
        queue = Queue(paths, RetryConfig(), time.time, told.append)
        assert {job.name for job in queue.jobs()} == {f"reconcile-{A}", f"reconcile-{B}"}, text
        numbers = [change.job.id for change in told]
        assert len(set(numbers)) == len(numbers) == 2, text
        GLib.Variant("au", numbers)
        for job in queue.jobs():
            GLib.Variant("a{sv}", variant(to_json(job)))


def test_what_is_recorded_of_a_kernel(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    file = paths.record(A)
    verbs = (("status",), ("status", "x"), ("explain", "x", A), ("logs", "x", A), ("verify", A), ("ready", "--all"))
    believed = 0
    for text in variants(json.loads(file.read_text())):
        file.write_text(text)
        if not is_believed(paths):
            continue
        believed += 1
        for status in read_machine(paths, Config(), (), time.time()):
            GLib.Variant("a{sv}", variant(to_json(status)))
        for verb in verbs:
            assert autokmodctl(["--root", str(paths.root), *verb]) in (0, 1, 3, 4), (verb, text)
        assert "\x1b" not in capsys.readouterr().out
        with closing(Engine(paths, Config(), time.time)) as engine:
            engine.looker.look(B)
            engine.looker.look(A)
    assert believed > 50


def is_believed(paths: Paths) -> bool:
    """What is not, is damaged as a whole, whatever is foolish in it."""
    with contextlib.suppress(FormatError):
        return read_record(paths, A) is not None
    return False
