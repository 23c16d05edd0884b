"""One user who asks for much holds up nobody else: not root, not changes, not other calls of the same user."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue

import pytest

from autokmod.daemon.bus import INTERFACE, NAME, PATH
from autokmod.daemon.pools import WAITING, Leave, Pools, TooMuch, Work
from tests.dbus.busmachine import LIMIT_S, NOBODY, Machine
from tests.dbus.test_service import A, B, busy_daemon
from tests.unit.handmade import add_kernel, place, record

pytestmark = [pytest.mark.dbus, pytest.mark.root]

CALLS = 50
SIZE, TIMES = 32 << 20, 3000  # 100 GB to be hashed: minutes, until the file is cut short
# Calls at once, one line for each answer: the error's name, or "answered".
CALLER = f"""
import sys
from gi.repository import Gio, GLib
bus, loop, left = Gio.bus_get_sync(Gio.BusType.SYSTEM), GLib.MainLoop(), {CALLS}
def answered(bus, result):
    global left
    try:
        bus.call_finish(result)
        print("answered", flush=True)
    except GLib.Error as exc:
        print(Gio.DBusError.get_remote_error(exc), flush=True)
    left -= 1
    if not left:
        loop.quit()
arguments = GLib.Variant("(as)", ([{A!r}],))
target = ({NAME!r}, {PATH!r}, {INTERFACE!r}, "Verify", arguments, None, 0, GLib.MAXINT, None)
sys.stdin.readline()
if sys.argv[1] == "in turn":
    for _ in range(left):
        bus.call_sync(*target)
        print("answered", flush=True)
else:
    for _ in range(left):
        bus.call(*target, answered)
    loop.run()
"""


@contextmanager
def endless(machine: Machine) -> Iterator[None]:
    """Until this is left, whoever verifies A has enough to do."""
    add_kernel(machine.paths, A)
    add_kernel(machine.paths, B)
    placement = place(machine.paths, A, "evdi")
    module = machine.paths.own_dir(A, "evdi") / "evdi.ko"
    record(machine.paths, A, replace(placement, files=placement.files * TIMES))
    os.truncate(module, SIZE)
    try:
        yield
    finally:
        os.truncate(module, 0)


@contextmanager
def verifying(machine: Machine, how: str = "at once") -> Iterator[subprocess.Popen[str]]:
    """A plain user who asks 50 times when told to go."""
    argv = [*NOBODY, sys.executable, "-c", CALLER, how]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=machine.env(), stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_plain_users_fifty_calls_hold_up_nobody(machine: Machine) -> None:
    with busy_daemon(machine), verifying(machine) as caller:
        assert caller.stdout is not None
        with endless(machine):
            assert caller.stdin is not None
            print("go", file=caller.stdin, flush=True)
            refused = [caller.stdout.readline().strip() for _ in range(CALLS - 1)]
            assert refused == [f"{NAME}.Error.Busy"] * (CALLS - 1)

            (number,) = machine.call("Reconcile", "1", B, "false")
            assert machine.call("GetJob", str(number))["krel"] == B
            assert machine.call("CancelJob", str(number)) is None
            assert {kernel["krel"] for kernel in machine.call("ListKernels")} == {A, B}
            assert machine.call("Verify", "1", B)[0]["krel"] == B

            name, text = machine.error("Verify", f"['{B}']", before=NOBODY)
            assert (name, text) == ("Busy", "Verify is at work for this user: ask again when it has answered")
            assert machine.busctl("call", NAME, PATH, INTERFACE, "ListJobs", before=NOBODY).returncode == 0
            assert caller.poll() is None
        assert caller.stdout.readline().strip() == "answered"


def test_who_waits_for_each_answer_is_never_refused(machine: Machine) -> None:
    with busy_daemon(machine), verifying(machine, "in turn") as caller:
        assert caller.stdin is not None
        assert caller.stdout is not None
        add_kernel(machine.paths, A)
        print("go", file=caller.stdin, flush=True)
        assert [caller.stdout.readline().strip() for _ in range(CALLS)] == ["answered"] * CALLS


# ---- the bound, without a bus --------------------------------------------------------------------


@pytest.fixture
def pools() -> Iterator[Pools]:
    pools = Pools()
    yield pools
    pools.close()


def test_a_user_has_so_many_calls_and_root_is_not_counted(pools: Pools) -> None:
    go, changed = threading.Event(), threading.Event()
    done: SimpleQueue[int] = SimpleQueue()

    def work(uid: int) -> Work:
        def run(leave: Leave) -> None:
            assert go.wait(LIMIT_S)
            leave()
            done.put(uid)

        return run

    for uid in [1] * WAITING + [0] * 2:
        pools.read(uid, "ListJobs", work(uid), alone=False)
    with pytest.raises(TooMuch, match="16 calls are waiting for this user"):
        pools.read(1, "ListJobs", work(1), alone=False)
    pools.read(2, "ListJobs", work(2), alone=False)
    pools.change(lambda _: changed.set())
    assert changed.wait(LIMIT_S)
    go.set()
    assert sorted(done.get(timeout=LIMIT_S) for _ in range(WAITING + 3)) == [0, 0, *[1] * WAITING, 2]
    for _ in range(2 * WAITING):
        pools.read(1, "ListJobs", work(1), alone=False)
        assert done.get(timeout=LIMIT_S) == 1


def test_what_costs_much_is_done_once_at_a_time_for_each_user_root_too(pools: Pools) -> None:
    go, done = threading.Event(), threading.Semaphore(0)

    def run(leave: Leave) -> None:
        assert go.wait(LIMIT_S)
        leave()
        done.release()

    for uid in (0, 1, 2):
        pools.read(uid, "Verify", run, alone=True)
        with pytest.raises(TooMuch, match="Verify is at work"):
            pools.read(uid, "Verify", run, alone=True)
    go.set()
    assert all(done.acquire(timeout=LIMIT_S) for _ in range(3))
    pools.read(1, "Verify", run, alone=True)
    assert done.acquire(timeout=LIMIT_S)
