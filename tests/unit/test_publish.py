"""Several files at once: all of them or none, and nothing beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autokmod.act.publish import write_files


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_all_are_there_and_old_ones_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "other").write_bytes(b"other")
    write_files(tmp_path, [("a", b"1"), ("b", b"2")])
    assert contents(tmp_path) == {"a": b"1", "b": b"2", "other": b"other"}
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644


def test_none_is_none(tmp_path: Path) -> None:
    write_files(tmp_path, [])
    assert contents(tmp_path) == {}


def test_what_cannot_be_made_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def wanted() -> Iterator[tuple[str, bytes]]:
        yield "a", b"new"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_files(tmp_path, wanted())
    assert contents(tmp_path) == {"a": b"old"}


def test_a_name_that_cannot_be_taken_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "b/full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_files(tmp_path, [("a", b"1"), ("b", b"2")])
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_what_a_killed_process_left_is_not_written_through(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    (tmp_path / f".a.{os.getpid()}").symlink_to(elsewhere)
    write_files(tmp_path, [("a", b"1")])
    assert contents(tmp_path) == {"a": b"1", "elsewhere": b"mine"}
