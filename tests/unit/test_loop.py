"""What goes wrong in one callback is logged, and the loop goes on."""

from __future__ import annotations

import os
import threading

import pytest

from autokmod.daemon.loop import Loop


def broken() -> None:
    raise ValueError("no good")


def test_a_broken_callback_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    loop, seen = Loop(), list[str]()
    loop.post(broken)
    loop.after(0.0, broken)
    loop.post(seen.append, "posted")

    def last() -> None:
        seen.append("later")
        loop.quit(3)

    loop.after(0.05, last)
    assert loop.run() == 3
    assert seen == ["posted", "later"]
    assert capsys.readouterr().err.count("ValueError: no good") == 2


def test_a_broken_reader_is_called_again(capsys: pytest.CaptureFixture[str]) -> None:
    loop, calls = Loop(), list[bytes]()
    ours, theirs = os.pipe()

    def read() -> None:
        calls.append(os.read(ours, 1))
        if calls[-1] == b"3":
            loop.quit()
        broken()

    source = loop.on_readable(ours, read)
    os.write(theirs, b"123")
    loop.run()
    loop.forget(source)
    os.close(ours)
    os.close(theirs)
    assert calls == [b"1", b"2", b"3"]
    assert capsys.readouterr().err.count("ValueError: no good") == 3


def test_posting_keeps_the_order_and_the_thread() -> None:
    loop, seen = Loop(), list[tuple[int, int]]()

    def poster() -> None:
        for number in range(100):
            loop.post(lambda n: seen.append((n, threading.get_ident())), number)
        loop.post(loop.quit)

    thread = threading.Thread(target=poster)
    thread.start()
    loop.run()
    thread.join()
    assert seen == [(number, threading.get_ident()) for number in range(100)]


def test_the_first_failure_decides_the_exit_code() -> None:
    loop = Loop()
    loop.exit_code = 1
    loop.post(loop.quit, 0)
    assert loop.run() == 1
