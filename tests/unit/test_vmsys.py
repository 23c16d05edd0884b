"""What the tests in a virtual machine lean on, without a machine."""

from __future__ import annotations

import base64
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vmsys.protocol import Answer, MachineError, Words
from tests.vmsys.redress import SIGNATURE, rename, unsigned


@pytest.fixture
def ends() -> Iterator[tuple[Words, socket.socket]]:
    mine, machine = socket.socketpair()
    words = Words(mine)
    yield words, machine
    words.close()
    machine.close()


def encoded(text: str) -> bytes:
    return base64.b64encode(text.encode())


def test_an_answer(ends: tuple[Words, socket.socket]) -> None:
    words, machine = ends
    machine.sendall(b"1 0 " + encoded("x" * 100_000) + b"\n2 3 \n")
    assert words.ask("first", 5) == Answer("first", 0, "x" * 100_000)
    assert words.ask("second\nline", 5) == Answer("second\nline", 3, "")
    assert machine.recv(1000) == b"1 " + encoded("first") + b"\n2 " + encoded("second\nline") + b"\n"


def test_an_answer_to_another_command_is_none(ends: tuple[Words, socket.socket]) -> None:
    words, machine = ends
    machine.sendall(b"7 0 \n")
    with pytest.raises(MachineError, match="another command than 1"):
        words.ask("first", 5)


@pytest.mark.parametrize("is_gone", [True, False])
def test_gone_or_silent(ends: tuple[Words, socket.socket], is_gone: bool) -> None:
    words, machine = ends
    machine.sendall(b"1 0")
    if is_gone:
        machine.shutdown(socket.SHUT_WR)
    assert words.ask("first", 5 if is_gone else 0.01) is None


def test_what_must_succeed() -> None:
    assert Answer("true", 0, "fine").ok == "fine"
    with pytest.raises(AssertionError, match="false ended with status 1:\nwhy"):
        _ = Answer("false", 1, "why").ok


def test_a_signature_is_taken_off() -> None:
    signed = b"module" + b"s" * 300 + b"\0" * 8 + struct.pack(">I", 300) + SIGNATURE
    assert unsigned(signed) == b"module"
    assert unsigned(b"module") == b"module"


def test_a_tree_says_another_release(tmp_path: Path) -> None:
    (tmp_path / "lib/6.1.0-53-x/kernel").mkdir(parents=True)
    (tmp_path / "lib/6.1.0-53-x/kernel/a.ko").write_bytes(b"\0vermagic=6.1.0-53-x SMP\0")
    (tmp_path / "lib/6.1.0-53-x/build").symlink_to("/usr/src/linux-headers-6.1.0-53-x")
    (tmp_path / "config-6.1.0-53-x").write_text("# 6.1.0-53-common\n")
    rename(tmp_path, b"6.1.0-53-x", b"6.1.0-54-x")
    assert (tmp_path / "lib/6.1.0-54-x/kernel/a.ko").read_bytes() == b"\0vermagic=6.1.0-54-x SMP\0"
    assert (tmp_path / "lib/6.1.0-54-x/build").readlink() == Path("/usr/src/linux-headers-6.1.0-54-x")
    assert (tmp_path / "config-6.1.0-54-x").read_text() == "# 6.1.0-53-common\n"
