"""One budget of job tokens over all builds: a GNU make jobserver that outlives each make.

A token is a byte in a pipe. Each build holds one, its first process; for every further one its makes read a byte, and
write it back at the end. So no more than N processes compile at a time, whatever packages and kernels they are for.

* make 4.3 sets O_NONBLOCK on the pipe that it inherits. The flag belongs to the open file description, so each build
  gets descriptions of its own, opened anew through /proc.
* A build that is killed takes its tokens with it, and a hostile one may write more than it read. Which are missing
  cannot be known while others run; with none running the pipe is set right. What can only be forged is taken out
  at once (trim).
* A build that keeps all tokens must not keep the others from starting. As long as fewer than N builds run, a waiting
  one starts without a token when none has come for a while. More than N builds never run.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import termios
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from autokmod.run import Cancel

TOKEN = b"+"
PATIENCE_S = 30.0
LOOK_S = 0.2  # how soon a waiting build notices that it was cancelled


@dataclass(frozen=True, slots=True)
class Slot:
    """A build's share. The descriptors are its own and are to be inherited."""

    read_fd: int
    write_fd: int

    @property
    def makeflags(self) -> str:
        """For the environment. File descriptors, not a named pipe: make knows those before 4.4, too."""
        return f" -j --jobserver-auth={self.read_fd},{self.write_fd}"


class TokenPool:
    def __init__(self, jobs: int) -> None:
        """`jobs` as configured: 0 means one for each CPU that this process may use."""
        self.tokens = jobs or len(os.sched_getaffinity(0))
        self._lock = threading.Condition()
        self._queue: deque[object] = deque()  # who waits; longest first is whoever asked first
        self._running = 0
        self._holding = 0  # of those, with a token
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._set_right()

    @contextlib.contextmanager
    def slot(self, cancel: Cancel | None = None, *, patience_s: float = PATIENCE_S) -> Iterator[Slot]:
        """Wait for a token and hold it. For threads, which are served in the order in which they come.

        With `cancel` requested it does not wait any longer.
        """
        cancel = cancel or Cancel()
        with self._turn(cancel):
            has_token = self._take(cancel, patience_s)
        try:
            with self._own_descriptions() as slot:
                yield slot
        finally:
            self._release(has_token=has_token)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)

    @contextlib.contextmanager
    def _turn(self, cancel: Cancel) -> Iterator[None]:
        ticket = object()
        with self._lock:
            self._queue.append(ticket)
            while self._queue[0] is not ticket and not cancel.requested:
                self._lock.wait(LOOK_S)
        try:
            yield
        finally:
            with self._lock:
                self._queue.remove(ticket)
                self._lock.notify_all()

    def _take(self, cancel: Cancel, patience_s: float) -> bool:
        """Whether there was a token to start with."""
        deadline = time.monotonic() + patience_s
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        while True:
            impatient = time.monotonic() >= deadline
            has_token = self._try(impatient=impatient, cancelled=cancel.requested)
            if has_token is not None:
                return has_token
            poll.poll(1000 * LOOK_S)

    def _try(self, *, impatient: bool, cancelled: bool) -> bool | None:
        """None: to be tried again."""
        with self._lock:
            if self._running == 0:
                self._set_right()
            try:
                os.read(self._read, 1)
                has_token = True
            except BlockingIOError:
                if not cancelled and not (impatient and self._running < self.tokens):
                    return None
                has_token = False
            self._running += 1
            self._holding += has_token
            return has_token

    def _release(self, *, has_token: bool) -> None:
        with self._lock:
            self._running -= 1
            self._holding -= has_token
            if self._running == 0:
                self._set_right()
            elif has_token:
                with contextlib.suppress(BlockingIOError):  # a hostile build has filled the pipe
                    os.write(self._write, TOKEN)

    def trim(self) -> None:
        """Take out what a hostile build wrote beyond what can be free: each build that runs holds one at least."""
        with self._lock:
            free = array.array("i", [0])
            fcntl.ioctl(self._read, termios.FIONREAD, free)
            excess = free[0] - (self.tokens - self._holding)
            if excess > 0:
                with contextlib.suppress(BlockingIOError):  # somebody was quicker
                    os.read(self._read, excess)

    def _set_right(self) -> None:
        """Exactly N tokens. Only while no build is running."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 1 << 16):
                pass
        os.write(self._write, TOKEN * self.tokens)

    @contextlib.contextmanager
    def _own_descriptions(self) -> Iterator[Slot]:
        read_fd = os.open(f"/proc/self/fd/{self._read}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            write_fd = os.open(f"/proc/self/fd/{self._write}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                yield Slot(read_fd, write_fd)
            finally:
                os.close(write_fd)
        finally:
            os.close(read_fd)
