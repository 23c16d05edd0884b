"""journald's side of its socket: reads all the time, so that nobody waits for it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

Fields = dict[str, str]
Heard = Callable[[], list[Fields]]  # what was said so far; nothing is heard after that


def decode(data: bytes) -> Fields:
    """The reading side of the protocol, as its specification has it."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + size], data[8 + size + 1 :]
        fields[name.decode()] = value.decode("utf-8", "surrogateescape")
    return fields


class Journald:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(self.path)
        self._entries: list[Fields] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while data := self._sock.recv(1 << 20):
            self._entries.append(decode(data))

    def close(self) -> list[Fields]:
        """All that came."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.path)
        self._reader.join()
        self._sock.close()
        return self._entries
