"""The only door to subprocesses.

Every command gets an argv list, a clean environment, /dev/null as standard input and a time limit. On the time
limit the whole process group is killed. Nothing else in autokmod starts a process.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from autokmod.errors import CommandFailed, ToolMissing

ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
}
TAIL = 64 << 10  # bytes of output kept for messages
GONE_LIMIT_S = 10  # for what was killed to be gone
WATCH_S = 0.2  # how often a command that is watched is looked at


@dataclass(frozen=True, slots=True)
class Result:
    argv: tuple[str, ...]
    returncode: int | None  # negative: signal; None: time limit, or stopped by whoever watched it
    output: str


def find_tool(name: str, hint: str = "") -> str:
    """Raises ToolMissing."""
    path = shutil.which(name, path=ENV["PATH"])
    if path is None:
        raise ToolMissing(name, hint)
    return path


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    log: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    check: bool = True,
    stdout_only: bool = False,
    cancelled: Cancel | None = None,
    watch: Callable[[int], bool] | None = None,
) -> Result:
    """Run to the end. Output goes to `log` if given (and is then empty in the result).

    `watch` is called every WATCH_S with the process's id; when it says True the command is ended.
    Raises ToolMissing, and CommandFailed if `check`. OSError travels for anything else that exec(2) says.
    """
    proc = start(argv, env=env, cwd=cwd, log=log, pass_fds=pass_fds, stdout_only=stdout_only)
    if cancelled is not None:
        cancelled.add(proc)
    try:
        has_ended, out = _wait(proc, timeout_s, watch)
        code = proc.returncode if has_ended else None
    except BaseException:
        kill_group(proc)
        proc.communicate()
        raise
    finally:
        if cancelled is not None:
            cancelled.discard(proc)
    result = Result(tuple(argv), code, (out or b"").decode("utf-8", "replace"))
    if check and code != 0:
        raise CommandFailed(argv, code, result.output[-TAIL:])
    return result


def _wait(proc: subprocess.Popen[bytes], timeout_s: float, watch: Callable[[int], bool] | None) -> tuple[bool, bytes]:
    """Whether it ended by itself, and its output."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = max(deadline - time.monotonic(), 0.0)
        try:
            return True, proc.communicate(timeout=min(left, WATCH_S) if watch else left)[0]
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline or (watch is not None and watch(proc.pid)):
                with _until_gone(proc.pid):
                    kill_group(proc)
                return False, proc.communicate()[0]


@contextlib.contextmanager
def _until_gone(pid: int) -> Iterator[None]:
    """Waits at the end for this process's children. A PID namespace is gone with its first process, not before."""
    with contextlib.ExitStack() as stack:
        poll, todo = select.poll(), 0
        with contextlib.suppress(OSError, ValueError):  # it has just ended; before Linux 5.3 nobody is waited for
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
                fd = os.pidfd_open(int(child))
                stack.callback(os.close, fd)
                poll.register(fd, select.POLLIN)
                todo += 1
        yield
        while todo and (gone := poll.poll(GONE_LIMIT_S * 1000)):
            for fd, _ in gone:
                poll.unregister(fd)
                todo -= 1


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    log: IO[bytes] | None,
    pass_fds: Sequence[int],
    stdout_only: bool,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            env={**ENV, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log if log is not None else subprocess.PIPE,
            stderr=subprocess.DEVNULL if stdout_only else subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        if cwd is not None and not os.path.isdir(cwd):
            raise
        raise ToolMissing(argv[0]) from exc


def page(argv: Sequence[str], text: str, env: Mapping[str, str]) -> bool:
    """Show `text` through a pager on this terminal, until the person leaves it. False where it cannot be started."""
    try:
        proc = subprocess.Popen(argv, stdin=subprocess.PIPE, env=env)
    except (FileNotFoundError, PermissionError):
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pager's
    try:
        proc.communicate(text.encode("utf-8", "backslashreplace"))
    finally:
        signal.signal(signal.SIGINT, before)
    return True


def interact(argv: Sequence[str]) -> int:
    """Leave this terminal to a program that talks with the person. Its exit status; 130 where Ctrl-C ended it.

    Raises ToolMissing.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the program's: what is ignored, it would inherit
    try:
        done = subprocess.run(argv, env={**os.environ, **ENV}, check=False)
    except FileNotFoundError as exc:
        raise ToolMissing(argv[0]) from exc
    finally:
        signal.signal(signal.SIGINT, before)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


@contextlib.contextmanager
def beside(argv: Sequence[str]) -> Iterator[None]:
    """A program on this terminal as long as this lasts. `{fd}` in argv is the descriptor to close when it is ready.

    Nothing happens where it cannot be started.
    """
    known, tell = os.pipe()
    try:
        found = [find_tool(argv[0]), *(arg.replace("{fd}", str(tell)) for arg in argv[1:])]
        proc = subprocess.Popen(found, pass_fds=(tell,))
    except (ToolMissing, PermissionError):
        proc = None
    os.close(tell)
    os.read(known, 1)  # returns when everybody has closed the other end
    os.close(known)
    try:
        yield
    finally:
        if proc is not None:
            proc.terminate()
            proc.wait()


def kill_group(proc: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(proc.pid, signal.SIGKILL)


@contextlib.contextmanager
def cancelled_by_signals() -> Iterator[Cancel]:
    """Ctrl-C and its like: what runs is ended, what was done stays done, and the caller goes on to say so."""
    cancel = Cancel()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: cancel.cancel()) for number in numbers]
    try:
        yield cancel
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Cancel:
    """Lets another thread end the commands that were started with it: at SIGTERM, or when a job is cancelled."""

    def __init__(self) -> None:
        self._procs: set[subprocess.Popen[bytes]] = set()
        self._event = threading.Event()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Sleep, but not past a cancellation. True if there was one."""
        return self._event.wait(timeout_s)

    def add(self, proc: subprocess.Popen[bytes]) -> None:
        self._procs.add(proc)
        if self.requested:
            kill_group(proc)

    def discard(self, proc: subprocess.Popen[bytes]) -> None:
        self._procs.discard(proc)

    def cancel(self) -> None:
        self._event.set()
        for proc in tuple(self._procs):
            if proc.poll() is None:
                kill_group(proc)
