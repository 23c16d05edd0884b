"""How much of a build's log goes into the journal, and in which shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autokmod import journal
from autokmod.jobs.output import MOST_BYTES, MOST_LINES, output_lines, tell_output
from autokmod.model import BuildError
from tests.journaldhere import Heard
from tests.unit.test_store import BAD

ALL = "… (autokmodctl logs shows all that was printed)"
ERROR = BuildError("evdi.c", 4, "error: no_such_thing")


def test_a_short_log_is_shown_whole() -> None:
    assert output_lines(b"make: one\r\n\n\tCC two  \n", is_whole=True, errors=[ERROR]) == ["make: one", "\tCC two"]


def test_nothing_steers_a_terminal_and_all_is_text() -> None:
    assert output_lines(b"\x1b[31m \xff \0\n", is_whole=True) == ["?[31m \ufffd ?"]


def test_only_the_last_lines_and_the_errors_before_them() -> None:
    text = "".join(f"line {i}\n" for i in range(MOST_LINES + 1)).encode()
    shown = output_lines(text, is_whole=True, errors=[ERROR, BuildError("", 0, "line 7")])
    assert shown == ["evdi.c:4: error: no_such_thing", ALL, *(f"line {i}" for i in range(1, MOST_LINES + 1))]


def test_a_line_without_its_beginning_is_left_out() -> None:
    assert output_lines(b"rest of it\nwhole\n", is_whole=False) == [ALL, "whole"]
    assert output_lines(b"x" * 100, is_whole=False) == [ALL]


def test_what_arrives(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "build.log").write_bytes(b"x" * MOST_BYTES + b"\nevdi.c:4: error\n")
    build = replace(BAD, directory=str(tmp_path), errors=())
    with journal.context(job=7):
        tell_output(build)
    first, last = heard()
    assert (first["MESSAGE"], last["MESSAGE"]) == (ALL, "evdi.c:4: error")
    for fields in first, last:
        assert fields["PRIORITY"] == "6"
        assert "MESSAGE_ID" not in fields
        assert {name: value for name, value in fields.items() if name.startswith("AUTOKMOD_")} == {
            "AUTOKMOD_JOB": "7",
            "AUTOKMOD_KERNEL": build.krel,
            "AUTOKMOD_PACKAGE": build.package,
            "AUTOKMOD_VERSION": build.version,
            "AUTOKMOD_LOG_PATH": str(tmp_path / "build.log"),
        }


def test_a_log_that_is_gone_is_said(tmp_path: Path, heard: Heard) -> None:
    tell_output(replace(BAD, directory=str(tmp_path)))
    (said,) = heard()
    assert "cannot be read" in said["MESSAGE"]


def test_a_terminal_gets_none_of_it(tmp_path: Path) -> None:
    tell_output(replace(BAD, directory=str(tmp_path / "is not looked for")))
