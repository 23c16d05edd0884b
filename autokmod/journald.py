"""journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram of fields an entry."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping, Sequence

SOCKET = "/run/systemd/journal/socket"
SEND_BUFFER = 8 << 20  # bytes; journald's own clients ask for as much
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# Not starting with "_": those are journald's own. Everything else it drops without a word.
FIELD = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def encode(fields: Sequence[tuple[str, str]]) -> bytes:
    """Raises ValueError for a field name that journald would drop."""
    return b"".join(_encode_field(name, value) for name, value in fields)


def _encode_field(name: str, value: str) -> bytes:
    if not FIELD.fullmatch(name):
        raise ValueError(f"not a journal field: {name!r}")
    raw = value.encode("utf-8", "surrogateescape")
    if b"\n" in raw:
        return name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
    return name.encode() + b"=" + raw + b"\n"


class JournalSocket:
    """Unconnected, so that a restarted journald is found again."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # capped, never refused

    def send(self, fields: Sequence[tuple[str, str]]) -> None:
        """Raises OSError where journald does not listen."""
        data = encode(fields)
        try:
            self._sock.sendto(data, self._path)
        except OSError as exc:
            if exc.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_sealed(data)

    def _send_sealed(self, data: bytes) -> None:
        """Too large for a datagram: journald takes it from a memfd that nobody can change any more."""
        with os.fdopen(os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb", 0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))
            self._sock.sendmsg([], [rights], 0, self._path)

    def close(self) -> None:
        self._sock.close()


def is_journal(fd: int, env: Mapping[str, str]) -> bool:
    """Whether `fd` is the journal stream that systemd opened for this service (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return env.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
