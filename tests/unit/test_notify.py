"""sd_notify against a real socket, by name and abstract."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from autokmod.daemon.notify import notify, notify_status, watchdog_s


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_notify(tmp_path: Path, kind: str) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name if kind == "path" else "\0" + name)
        notify("READY=1\nSTATUS=idle", {"NOTIFY_SOCKET": name if kind == "path" else "@" + name})
        assert sock.recv(100) == b"READY=1\nSTATUS=idle"


def test_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notify("READY=1", {})
    assert capsys.readouterr().err == ""
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert "systemd cannot be told 'READY=1'" in capsys.readouterr().err
    notify_status("idle", {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert capsys.readouterr().err == ""


def test_a_status_never_waits(tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(env["NOTIFY_SOCKET"])
        for number in range(1000):  # more than the kernel queues
            notify_status(f"line {number}\nanother", env)
        assert sock.recv(100) == b"STATUS=line 0"


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "17"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "18"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog(env: dict[str, str], seconds: float | None) -> None:
    assert watchdog_s(env, pid=17) == seconds
