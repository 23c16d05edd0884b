"""The store: whole or absent, whatever happened to it; and the directories of work in progress."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.act.scratch import PREFIX, remove_tree, scratch, sweep
from autokmod.act.store import (
    find_build,
    list_builds,
    new_entry,
    publish,
    read_built,
    remove_build,
    verify_build,
    write_entry_file,
)
from autokmod.errors import FormatError
from autokmod.model import Build, BuildError, BuiltModule
from autokmod.paths import Paths

KEY = "a" * 64
DATA = b"\x7fELF module"
MODULE = BuiltModule("foo", "foo", "foo.ko", hashlib.sha256(DATA).hexdigest(), len(DATA), "SRC", "6.1 SMP")
GOOD = Build(KEY, "s" * 64, "foo", "1.0", "6.1", True, False, (), (MODULE,), 1.5, 2.5, "")
BAD = replace(GOOD, ok=False, modules=(), errors=(BuildError("a.c", 3, "no"),))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def store(paths: Paths, build: Build) -> Build:
    with new_entry(paths) as entry:
        write_entry_file(entry, "build.log", b"log")
        for module in build.modules:
            write_entry_file(entry, module.file, DATA)
        return publish(paths, entry, build)


def test_a_build_comes_back_as_it_was(paths: Paths) -> None:
    stored = store(paths, GOOD)
    assert stored == replace(GOOD, directory=str(paths.builds / KEY))
    assert find_build(paths, KEY) == stored
    assert list_builds(paths) == (stored,)
    assert read_built(stored, MODULE) == DATA
    verify_build(stored)


def test_a_failure_is_kept_with_its_errors(paths: Paths) -> None:
    store(paths, BAD)
    found = find_build(paths, KEY)
    assert found is not None
    assert found.errors == (BuildError("a.c", 3, "no"),)


def test_nothing_else_is_left_in_the_store(paths: Paths) -> None:
    store(paths, BAD)
    store(paths, GOOD)
    assert os.listdir(paths.builds) == [KEY]
    assert sorted(os.listdir(paths.builds / KEY)) == ["build.log", "foo.ko", "manifest.json"]


def test_the_later_build_of_a_key_replaces_the_earlier(paths: Paths) -> None:
    store(paths, BAD)
    store(paths, GOOD)
    assert [b.ok for b in list_builds(paths)] == [True]


def test_an_empty_store(paths: Paths) -> None:
    assert list_builds(paths) == ()
    assert find_build(paths, KEY) is None
    remove_build(paths, KEY)
    assert find_build(paths, KEY) is None


def test_removal(paths: Paths) -> None:
    store(paths, GOOD)
    remove_build(paths, KEY)
    assert os.listdir(paths.builds) == []


def test_an_exception_while_an_entry_is_made_leaves_nothing(paths: Paths) -> None:
    with pytest.raises(ZeroDivisionError), new_entry(paths) as entry:
        write_entry_file(entry, "build.log", bytes(1 // (1 - len("x"))))
    assert os.listdir(paths.builds) == []


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 1}',
        '{"format": 1, "build": {"key": 3}}',
        "\0" * 1000,
        json.dumps({"format": 2, "build": {}}),
    ],
)
def test_a_damaged_manifest_is_set_aside(paths: Paths, manifest: str) -> None:
    other = store(paths, replace(GOOD, key="b" * 64))
    store(paths, GOOD)
    (paths.builds / KEY / "manifest.json").write_text(manifest)
    assert list_builds(paths) == (other,)
    assert (paths.builds / f"{KEY}.damaged/manifest.json").read_text() == manifest
    assert find_build(paths, KEY) is None
    store(paths, GOOD)
    assert len(list_builds(paths)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"key": "c" * 64},
        {"file": "../../../etc/passwd"},
        {"file": "/etc/shadow"},
        {"file": "manifest.json"},
    ],
)
def test_a_manifest_that_says_something_else_is_damaged(paths: Paths, change: dict[str, object]) -> None:
    path = paths.builds / KEY / "manifest.json"
    store(paths, GOOD)
    data = json.loads(path.read_text())
    for name, value in change.items():
        place = {"format": data, "key": data["build"], "file": data["build"]["modules"][0]}[name]
        place[name] = value
    path.write_text(json.dumps(data))
    assert find_build(paths, KEY) is None
    assert (paths.builds / f"{KEY}.damaged").is_dir()


def test_a_directory_without_a_manifest_is_damaged(paths: Paths) -> None:
    store(paths, GOOD)
    (paths.builds / KEY / "manifest.json").unlink()
    assert list_builds(paths) == ()
    assert (paths.builds / f"{KEY}.damaged").is_dir()


def test_only_the_last_damage_is_kept(paths: Paths) -> None:
    for text in ("first", "second"):
        store(paths, GOOD)
        (paths.builds / KEY / "manifest.json").write_text(text)
        assert list_builds(paths) == ()
    assert os.listdir(paths.builds) == [f"{KEY}.damaged"]
    assert (paths.builds / f"{KEY}.damaged/manifest.json").read_text() == "second"


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", b"X" + DATA[1:], None])
def test_a_module_that_is_not_what_was_built_is_never_used(paths: Paths, data: bytes | None) -> None:
    stored = store(paths, GOOD)
    file = Path(stored.directory, "foo.ko")
    file.unlink() if data is None else file.write_bytes(data)
    with pytest.raises(FormatError, match="not what was built"):
        verify_build(stored)
    assert list_builds(paths) == ()  # so it is built again


def test_what_is_no_key_is_left_alone(paths: Paths) -> None:
    store(paths, GOOD)
    for name in ("README", "x.damaged", "A" * 64, "a" * 63):
        (paths.builds / name).mkdir()
    assert len(list_builds(paths)) == 1
    assert (paths.builds / "README").is_dir()


# ---- work in progress ----------------------------------------------------------------------------


def test_scratch_is_gone_afterwards_also_when_it_was_made_unreadable(tmp_path: Path) -> None:
    with scratch(tmp_path) as place:
        (place / "a/b").mkdir(parents=True)
        (place / "a/b/f").write_text("")
        (place / "a/b").chmod(0)
        (place / "a").chmod(0)
    assert os.listdir(tmp_path) == []


def test_scratch_is_gone_also_when_it_is_deeper_than_paths_can_say(tmp_path: Path) -> None:
    with scratch(tmp_path) as place:
        fd = os.open(place, os.O_RDONLY)
        for _ in range(1200):
            os.mkdir("deep", dir_fd=fd)
            inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
        os.close(fd)
    assert os.listdir(tmp_path) == []


def test_links_out_of_scratch_are_removed_not_followed(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/file").write_text("")
    with scratch(tmp_path / "work") as place:
        (place / "link").symlink_to(tmp_path / "keep")
    assert (tmp_path / "keep/file").exists()


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from autokmod.act.scratch import scratch\n"
        "with scratch(pathlib.Path(sys.argv[1])): print('ready', flush=True); sys.stdin.read(); os._exit(9)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        sweep(tmp_path)
        (alive,) = os.listdir(tmp_path)
        assert alive.startswith(PREFIX)
        other.communicate("")
    assert os.listdir(tmp_path) == [alive]
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def test_many_at_once_do_not_sweep_each_other(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                with scratch(tmp_path) as place:
                    (place / "file").write_text("x")
                    assert (place / "file").read_text() == "x"
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert os.listdir(tmp_path) == []


def test_foreign_files_are_not_swept(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{PREFIX}file").write_text("")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [f"{PREFIX}file", "mine"]


def test_removing_what_is_not_there(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")
    assert os.listdir(tmp_path) == []
