"""Commands and answers, over a line to the machine (agent.sh is at the other end)."""

from __future__ import annotations

import base64
import select
import socket
import time
from dataclasses import dataclass


class MachineError(Exception):
    """The machine itself failed, so there is no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    command: str
    status: int
    output: str

    @property
    def ok(self) -> str:
        """The output of a command that must succeed."""
        assert self.status == 0, f"{self.command} ended with status {self.status}:\n{self.output}"
        return self.output


class Words:
    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._rest, self._number = sock, b"", 0

    def say(self, command: str) -> int:
        self._number += 1
        self._sock.sendall(f"{self._number} {base64.b64encode(command.encode()).decode()}\n".encode())
        return self._number

    def ask(self, command: str, limit_s: float) -> Answer | None:
        """None: the other end is gone, or silent. Raises MachineError for an answer to something else."""
        number = self.say(command)
        line = self.line(limit_s)
        if line is None:
            return None
        answered, status, *output = line.split(" ")
        if answered != str(number):
            raise MachineError(f"an answer to another command than {number}: {line[:200]}")
        text = base64.b64decode(output[0]) if output else b""
        return Answer(command, int(status), text.decode("utf-8", "replace"))

    def line(self, limit_s: float) -> str | None:
        end = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._sock], [], [], max(end - time.monotonic(), 0))
            data = self._sock.recv(1 << 16) if ready else b""
            if not data:
                return None
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode("ascii", "replace").strip()

    def close(self) -> None:
        self._sock.close()
