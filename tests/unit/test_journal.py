"""What reaches journald's socket, byte for byte, and what a terminal, a pipe and a service without journald see."""

from __future__ import annotations

import array
import fcntl
import io
import os
import pty
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from autokmod import journal
from autokmod.config import LogLevel
from autokmod.events import Event
from autokmod.journald import SEALS, JournalSocket, encode, is_journal
from tests.journaldhere import Fields, decode

CATALOG = Path(__file__).parents[2] / "systemd/autokmod.catalog"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    journal.setup()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.setblocking(False)
        yield sock


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[io.TextIOWrapper]:
    with open(tmp_path / "stderr", "w+") as file:
        yield file


def stream_env(file: io.TextIOWrapper) -> dict[str, str]:
    found = os.fstat(file.fileno())
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


def receive(sock: socket.socket) -> Fields:
    return decode(sock.recv(1 << 20))


def into_journal(tmp_path: Path, stream: io.TextIOWrapper, level: LogLevel = "info") -> journal.Logger:
    journal.setup(level, stream=stream, env=stream_env(stream), socket_path=str(tmp_path / "socket"))
    return journal.get()


def test_fields(tmp_path: Path, journald: socket.socket, stream: io.TextIOWrapper) -> None:
    log = into_journal(tmp_path, stream)
    with journal.context(job=7):
        log.warning(
            "a sentence", kind=Event.BUILD_FAILED, krel="6.1", package="evdi", duration_s=1.5, log="/x", nothing=None
        )
    fields = receive(journald)
    assert fields.pop("CODE_FILE") == __file__
    assert fields.pop("CODE_FUNC") == "test_fields"
    assert fields.pop("CODE_LINE").isdigit()
    assert fields == {
        "MESSAGE": "a sentence",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "autokmodd",
        "MESSAGE_ID": Event.BUILD_FAILED.value,
        "AUTOKMOD_JOB": "7",
        "AUTOKMOD_KERNEL": "6.1",
        "AUTOKMOD_PACKAGE": "evdi",
        "AUTOKMOD_DURATION_USEC": "1500000",
        "AUTOKMOD_LOG_PATH": "/x",
    }
    stream.seek(0)
    assert stream.read() == ""


@pytest.mark.parametrize("text", ["two\nlines", "surrogate \udcff", "équal=sign", "", "nul \0", "x" * 100_000])
def test_any_text_arrives_unchanged(
    tmp_path: Path, journald: socket.socket, stream: io.TextIOWrapper, text: str
) -> None:
    into_journal(tmp_path, stream).info(text)
    assert receive(journald)["MESSAGE"] == text


def test_a_trace_is_part_of_the_message(tmp_path: Path, journald: socket.socket, stream: io.TextIOWrapper) -> None:
    log = into_journal(tmp_path, stream)
    try:
        raise LookupError("gone")
    except LookupError:
        log.exception("it broke")
    message = receive(journald)["MESSAGE"]
    assert message.startswith("it broke\nTraceback")
    assert message.endswith("LookupError: gone")


def test_too_large_for_a_datagram(tmp_path: Path, journald: socket.socket, stream: io.TextIOWrapper) -> None:
    text = "start " + "0123456789\n" * 3_000_000
    into_journal(tmp_path, stream).info(text)
    data, ancillary, _, _ = journald.recvmsg(1 << 20, socket.CMSG_SPACE(4))
    assert data == b""
    (fd,) = array.array("i", ancillary[0][2])
    with os.fdopen(fd, "rb") as file:
        assert fcntl.fcntl(file, fcntl.F_GET_SEALS) == SEALS
        assert decode(os.pread(fd, len(text) + 4096, 0))["MESSAGE"] == text


LEVELS = ("debug", "info", "notice", "warning", "error")


@pytest.mark.parametrize("level", LEVELS)
def test_levels(tmp_path: Path, journald: socket.socket, stream: io.TextIOWrapper, level: LogLevel) -> None:
    log = into_journal(tmp_path, stream, level)
    for name in LEVELS:
        getattr(log, name)(name)
    wanted = list(LEVELS[LEVELS.index(level) :])
    assert [receive(journald)["MESSAGE"] for _ in wanted] == wanted
    with pytest.raises(BlockingIOError):
        journald.recv(1)


def test_level_may_change_while_running(tmp_path: Path, journald: socket.socket, stream: io.TextIOWrapper) -> None:
    log = into_journal(tmp_path, stream, "error")
    log.debug("not this")
    journal.set_level("debug")
    log.debug("this")
    assert receive(journald)["MESSAGE"] == "this"


def test_without_journald_the_stream_gets_the_sentence(tmp_path: Path, stream: io.TextIOWrapper) -> None:
    log = into_journal(tmp_path, stream)
    log.error("one\ntwo \x1b[31m", krel="6.1")
    stream.seek(0)
    assert stream.read() == "<3>one\n<3>two ?[31m\n"


def test_journald_is_asked_for(tmp_path: Path, journald: socket.socket, stream: io.TextIOWrapper) -> None:
    journal.setup(journald=True, stream=stream, env={}, socket_path=str(tmp_path / "socket"))
    journal.get().info("straight to it")
    assert receive(journald)["MESSAGE"] == "straight to it"


def test_a_restarted_journald_is_found_again(tmp_path: Path, stream: io.TextIOWrapper) -> None:
    log = into_journal(tmp_path, stream)
    log.info("before")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        log.info("after")
        assert receive(sock)["MESSAGE"] == "after"


def test_a_field_name_that_journald_would_drop_is_not_sent(tmp_path: Path) -> None:
    for name in ("_PID", "lower", "A-B", "1A", "", "A" * 65):
        with pytest.raises(ValueError, match="not a journal field"):
            encode([(name, "x")])


def test_logging_never_raises(tmp_path: Path, stream: io.TextIOWrapper) -> None:
    log = into_journal(tmp_path, stream)
    log.info("a keyword that is no field name", é=1)
    stream.close()
    log.info("nowhere to go")
    journal.setup(stream=stream, env={})
    journal.get().info("nowhere to go")


LINES: list[tuple[LogLevel, str, Fields, str]] = [
    ("info", "evdi: built for 6.1", {"krel": "6.1", "package": "evdi"}, "evdi: built for 6.1\n"),
    ("info", "built", {"krel": "6.1", "package": "evdi"}, "built [kernel=6.1, package=evdi]\n"),
    ("info", "built", {"job": "reconcile-6.1", "package": "evdi"}, "built [package=evdi]\n"),
    ("warning", "hm", {}, "warning: hm\n"),
    ("error", "no\nTraceback", {"job": "3"}, "error: no [job=3]\nTraceback\n"),
    ("notice", "bell \x07 and \x1b]0;title\x07", {}, "bell ? and ?]0;title?\n"),
    ("info", "lone \udcff", {}, "lone \\udcff\n"),
]


@pytest.mark.parametrize(("level", "message", "fields", "line"), LINES)
def test_lines(stream: io.TextIOWrapper, level: str, message: str, fields: Fields, line: str) -> None:
    journal.setup(stream=stream, env={"TERM": "xterm"})
    getattr(journal.get(), level)(message, kind=Event.NO_BUS, **fields)
    stream.seek(0)
    assert stream.read() == line


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colour_only_on_a_terminal_that_wants_it(env: dict[str, str], coloured: bool) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        journal.setup(stream=terminal, env=env)
        journal.get().error("x")
        seen = os.read(ours, 100)
    os.close(ours)
    assert seen == (b"\x1b[1;31merror: x\x1b[0m\r\n" if coloured else b"error: x\r\n")


def test_is_journal(stream: io.TextIOWrapper) -> None:
    fd = stream.fileno()
    assert is_journal(fd, stream_env(stream))
    assert not is_journal(fd, {})
    assert not is_journal(fd, {"JOURNAL_STREAM": "1:2"})
    assert not is_journal(-1, stream_env(stream))


def test_the_real_socket_class_leaves_nothing_open(tmp_path: Path, journald: socket.socket) -> None:
    before = os.listdir("/proc/self/fd")
    sender = JournalSocket(str(tmp_path / "socket"))
    sender.send([("MESSAGE", "x" * (20 << 20))])
    _, ancillary, _, _ = journald.recvmsg(1, socket.CMSG_SPACE(4))
    os.close(array.array("i", ancillary[0][2])[0])
    sender.close()
    assert os.listdir("/proc/self/fd") == before


def test_every_kind_of_event_has_its_catalog_entry() -> None:
    text = CATALOG.read_text()
    entries = re.findall(
        r"^-- (\w+)\nSubject: .+\nDefined-By: autokmod\nSupport: \S+\nDocumentation: man:\S+\n\n\S", text, re.M
    )
    assert sorted(entries) == sorted(e.value for e in Event)
    assert len(set(entries)) == len(entries)
    assert all(re.fullmatch(r"[0-9a-f]{32}", e.value) for e in Event)
