"""The one machine of these tests, and a line for each case at the end of the run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import COMPLETE, children, open_files
from tests.corpus import Corpus
from tests.vmsys.base import pack_checkout
from tests.vmsys.guest import Guest
from tests.vmsys.machine import machine
from tests.vmsys.world import World, make_world

TOOLS = ("debootstrap", "debugfs", "lz4", "mke2fs", "qemu-system-x86_64", "setpriv")
KEPT = "consoles"  # below the cache: what the last run's machine said


def pytest_runtest_setup(item: pytest.Item) -> None:
    title = getattr(item, "function", item).__doc__ or item.name
    item.user_properties += [("order", item.session.items.index(item)), ("title", title)]
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing and os.environ.get(COMPLETE):
        pytest.fail(f"the machine needs {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"the machine needs {', '.join(missing)}")


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Each case leaves the machine, which is another process after each reboot: only its last may leave nothing."""


@pytest.fixture(scope="module")
def leaves_no_machine() -> Iterator[None]:
    before = children() | open_files()
    yield
    left = (children() | open_files()) - before
    assert not left, f"left behind: {sorted(left)}"


@pytest.fixture(scope="session")
def world(corpus: Corpus) -> World:
    return make_world(corpus)


@pytest.fixture(scope="module")
def guest(corpus: Corpus, world: World, leaves_no_machine: None) -> Iterator[Guest]:
    """Running the first kernel; nothing of autokmod is on it but the checkout, in /root/checkout."""
    with TemporaryDirectory(prefix="autokmod-vm-", dir=os.environ.get("AUTOKMOD_VM_SCRATCH")) as scratch:
        checkout = Path(scratch) / "checkout.tar"
        pack_checkout(checkout)
        try:
            with machine(Path(scratch), world.system, (world.archive, checkout)) as found:
                found.power_on(world.kernels.first)
                found.run("mkdir checkout && tar -x -C checkout -f /dev/vdc && apt-get update -q").ok  # noqa: B018
                yield Guest(found)
                if found.is_on:
                    found.run("journalctl --no-pager -q -o short-precise -t autokmodd -t autokmod-hook -p debug")
        finally:
            keep(Path(scratch), corpus.directory / "vmsys" / KEPT)


def keep(scratch: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for log in scratch.glob("*.log"):
        shutil.copy(log, target)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [r for found in terminalreporter.stats.values() for r in found if isinstance(r, pytest.TestReport)]
    titled = [(dict(r.user_properties), r) for r in reports if r.when == "call" or r.failed]
    rows = sorted((p["order"], f"{r.outcome:7} {r.duration:4.0f} s  {p['title']}") for p, r in titled if "title" in p)
    if rows:
        terminalreporter.section("kernel updates in a virtual machine")
        terminalreporter.write_line("\n".join(row for _, row in rows))
