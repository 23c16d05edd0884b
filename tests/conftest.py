"""Fixtures that every test can use, and the rule that no test leaves anything behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import pytest

from autokmod import journal
from tests import realroot
from tests.corpus import CHECKOUT, Corpus
from tests.journaldhere import Fields, Heard, Journald

# A shell starts what it puts into the background with SIGINT ignored, and every child would inherit that: Ctrl-C could
# not be tested. Python's own handler is not inherited, so that children begin with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Set by `make test`, which has installed everything: nothing may be left out then for want of something.
COMPLETE = "AUTOKMOD_TEST_COMPLETE"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = realroot.is_possible()
    wanting = [item for item in items if item.get_closest_marker("root")]
    if why and wanting and os.environ.get(COMPLETE):
        raise pytest.UsageError(f"{len(wanting)} tests cannot run: the real root {why}")
    for item in wanting if why else []:
        item.add_marker(pytest.mark.skip(reason=f"the real root {why}"))


class MakeRoot(Protocol):
    def __call__(self, *, kernels: tuple[str, ...] = (), packages: tuple[str, ...] = ()) -> realroot.RealRoot: ...


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Kernels and packages from the distribution's archive: `corpus.trio` names the three kernels to test with."""
    return Corpus()


@pytest.fixture
def real_root(corpus: Corpus) -> Iterator[MakeRoot]:
    """Makes whole systems (see realroot.RealRoot); for tests marked `root`."""
    with ExitStack() as stack:

        def make(*, kernels: tuple[str, ...] = (), packages: tuple[str, ...] = ()) -> realroot.RealRoot:
            # Not below tmp_path, which pytest closes to others: builds run as another user.
            scratch = Path(stack.enter_context(TemporaryDirectory(prefix="autokmod-test-")))
            return stack.enter_context(realroot.made(scratch, corpus, kernels=kernels, packages=packages))

        yield make


@pytest.fixture
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    journald = Journald(tmp_path_factory.mktemp("journald") / "socket")
    journal.setup(journald=True, socket_path=journald.path)
    ends: list[list[Fields]] = []

    def end() -> list[Fields]:
        journal.setup()
        if not ends:
            ends.append(journald.close())
        return ends[0]

    yield end
    end()


@pytest.fixture(scope="session", autouse=True)
def checkout_for_all() -> Iterator[None]:
    """Tests that become a plain user start the program from the working directory, which may lie below /root."""
    if os.geteuid() != 0 or all(d.stat().st_mode & 0o001 for d in (CHECKOUT, *CHECKOUT.parents)):
        yield
        return
    realroot.private_mounts()
    with TemporaryDirectory(prefix="autokmod-checkout-") as place:
        os.chmod(place, 0o755)
        realroot.mount("--bind", str(CHECKOUT), place)
        os.chdir(place)
        yield
        os.chdir(CHECKOUT)
        subprocess.run(["umount", place], check=True)


# ---- nothing is left behind ----


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """No test may leave a child process, a thread or an open file."""
    looks: list[Callable[[], set[str]]] = [children, threads, open_files]
    before = [look() for look in looks]
    yield
    left = [now - then for now, then in zip([look() for look in looks], before, strict=True)]
    if left[2]:
        gc.collect()  # a file in a reference cycle is closed late, but not left
        left[2] = open_files() - before[2]
    assert not any(left), f"left behind: {sorted(set().union(*left))}"


def children() -> set[str]:
    """Zombies included: a child that nobody waited for is left behind as well."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            pids = (task / "children").read_text().split()
            found |= {f"process {pid} ({_name(pid)})" for pid in pids}
    return found


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def threads() -> set[str]:
    return {f"thread {t.name} {t.ident}" for t in threading.enumerate()}


def open_files() -> set[str]:
    """GLib makes an eventfd for the default main context at its first use and keeps it: that is not the test's."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the descriptor of this very listing
            continue
        if target != "anon_inode:[eventfd]":
            found.add(f"fd {fd} → {target}")
    return found
