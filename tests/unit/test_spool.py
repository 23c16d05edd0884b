"""The spool as shell scripts, the daemon and plain users see it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
from pathlib import Path

import pytest

from autokmod.errors import FormatError
from autokmod.jobs.spool import Spool, put_aside
from autokmod.model import Job, Verb
from autokmod.paths import Paths

KREL = "6.1.0-56-amd64"
SHELL = r"""
tmp=$(mktemp "$1/.tmp.XXXXXX")
printf '{"format":1,"verb":"%s","krel":"%s","why":"kernel-install"}\n' "$2" "$3" >"$tmp"
mv -f "$tmp" "$1/$2-$3.json"
"""


def write(spool: Spool, name: str, text: str) -> Path:
    spool.directory.mkdir(parents=True, exist_ok=True)
    path = spool.directory / name
    path.write_text(text)
    return path


def names(jobs: tuple[Job, ...]) -> list[str]:
    return [job.name for job in jobs]


def test_no_spool_is_an_empty_one(tmp_path: Path) -> None:
    assert Spool(Paths(tmp_path)).jobs() == ()
    Spool(Paths(tmp_path)).recover()


def test_add_and_read_back(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    added = spool.add(Verb.RECONCILE, KREL, "admin", force=True)
    (job,) = spool.jobs()
    assert (job.verb, job.krel, job.why, job.force, job.id) == (Verb.RECONCILE, KREL, "admin", True, 0)
    assert added.name == job.name
    assert os.listdir(spool.directory) == [f"reconcile-{KREL}.json"]
    assert spool.directory.stat().st_mode & 0o777 == 0o755
    assert spool.path(job).stat().st_mode & 0o777 == 0o644


def test_a_shell_script_is_writer_enough(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    spool.directory.mkdir(parents=True)
    subprocess.run(["sh", "-c", SHELL, "sh", spool.directory, "remove", KREL], check=True)
    (job,) = spool.jobs()
    assert (job.verb, job.krel, job.why, job.force) == (Verb.REMOVE, KREL, "kernel-install", False)
    assert job.created_at == spool.path(job).stat().st_mtime


def test_the_same_intent_twice_is_one_job(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    spool.add(Verb.RECONCILE, KREL, "watcher")
    spool.add(Verb.RECONCILE, KREL, "kernel-install")
    spool.add(Verb.REMOVE, KREL, "kernel-install")
    assert sorted(names(spool.jobs())) == [f"reconcile-{KREL}", f"remove-{KREL}"]
    assert {job.why for job in spool.jobs()} == {"kernel-install"}


def test_force_stays_when_the_intent_is_repeated_without(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    spool.add(Verb.RECONCILE, KREL, "admin", force=True)
    assert spool.add(Verb.RECONCILE, KREL, "watcher").force
    assert spool.jobs()[0].force


BAD_KRELS = ["", ".", "..", "../../etc", "a/b", "a b", "-rf", ".hidden", "a\nb", "é", "x" * 129, "a\0b"]


@pytest.mark.parametrize("krel", BAD_KRELS)
def test_a_krel_that_cannot_be_one(tmp_path: Path, krel: str) -> None:
    spool = Spool(Paths(tmp_path))
    with pytest.raises(FormatError, match="is no kernel release"):
        spool.add(Verb.RECONCILE, krel, "admin")
    assert not spool.directory.exists()


def test_a_rescan_is_of_all(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    assert spool.add(Verb.RESCAN, "all", "rpm").name == "rescan-all"
    with pytest.raises(FormatError):
        spool.add(Verb.RESCAN, KREL, "rpm")
    with pytest.raises(FormatError):
        spool.add(Verb.RECONCILE, "all", "rpm")


GOOD = {"format": 1, "verb": "reconcile", "krel": "6.1", "why": "x"}
DAMAGED: list[tuple[str, str, str]] = [
    ("reconcile-6.1.json", "", "not JSON"),
    ("reconcile-6.1.json", '{"format": 1,', "not JSON"),
    ("reconcile-6.1.json", "[" * 60_000, "not JSON"),
    ("reconcile-6.1.json", '"text"', 'an object with "format": 1 expected'),
    ("reconcile-6.1.json", "[1]", "an object"),
    ("reconcile-6.1.json", json.dumps({**GOOD, "format": 2}), 'an object with "format": 1 expected'),
    ("reconcile-6.1.json", json.dumps({**GOOD, "verb": "destroy"}), "verb: 'destroy' is not one of"),
    ("reconcile-6.1.json", json.dumps({**GOOD, "verb": ["remove"]}), "is not one of"),
    ("reconcile-6.1.json", json.dumps({**GOOD, "krel": 6.1}), "must be texts"),
    ("reconcile-6.1.json", json.dumps({**GOOD, "krel": "../6.1"}), "krel: '../6.1' is no kernel release"),
    ("reconcile-6.1.json", json.dumps({**GOOD, "force": "yes"}), "true or false"),
    ("reconcile-6.2.json", json.dumps(GOOD), "the file must be called reconcile-6.1.json"),
    ("job.json", json.dumps(GOOD), "the file must be called reconcile-6.1.json"),
    ("README", "hello", "not JSON"),
    ("reconcile-6.1.json", " " * 70_000, "larger than"),
]


@pytest.mark.parametrize(("name", "text", "what"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_named_and_nothing_else_suffers(tmp_path: Path, name: str, text: str, what: str) -> None:
    spool = Spool(Paths(tmp_path))
    path = write(spool, name, text)
    spool.add(Verb.RECONCILE, KREL, "admin")
    entries, problems = spool.read()
    assert [e.job.name for e in entries] == [f"reconcile-{KREL}"]
    assert [p.path for p in problems] == [str(path)]
    assert what in problems[0].what
    assert put_aside(problems[0])
    assert spool.read() == (entries, ())
    assert (spool.directory / f"{name}.damaged").read_text() == text


def test_what_is_not_a_regular_file_is_never_followed(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    secret = write(spool, ".elsewhere", json.dumps(GOOD))
    (spool.directory / "reconcile-6.1.json").symlink_to(secret)
    (spool.directory / "remove-6.1.json").mkdir()
    os.mkfifo(spool.directory / "reconcile-6.2.json")
    entries, problems = spool.read()
    assert entries == ()
    assert [p.what for p in problems] == ["not a regular file"] * 3


def test_a_reason_cannot_steer_a_terminal(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    write(spool, "reconcile-6.1.json", json.dumps({**GOOD, "why": "a\x1b[31m\nb" + "c" * 500}))
    why = spool.jobs()[0].why
    assert why.startswith("a?[31m?bccc")
    assert len(why) == 200


def test_files_beginning_with_a_dot_are_not_looked_at(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    write(spool, ".tmp.XyZ", '{"format":1,')
    assert spool.read() == ((), ())


def test_remove_leaves_an_intent_that_came_again(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    spool.add(Verb.RECONCILE, KREL, "admin")
    (entry,), _ = spool.read()
    spool.add(Verb.RECONCILE, KREL, "kernel-install")
    assert not spool.remove(entry)
    (again,), _ = spool.read()
    assert again.job.why == "kernel-install"
    assert spool.remove(again)
    assert spool.remove(again)  # gone already
    assert os.listdir(spool.directory) == []


def test_after_a_kill_in_the_middle_of_remove_nothing_is_lost(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    spool.add(Verb.RECONCILE, KREL, "admin")
    path = spool.directory / f"reconcile-{KREL}.json"
    path.rename(spool.directory / f".reconcile-{KREL}.taken")
    spool.recover()
    assert names(spool.jobs()) == [f"reconcile-{KREL}"]
    path.rename(spool.directory / f".reconcile-{KREL}.taken")
    spool.add(Verb.RECONCILE, KREL, "newer")
    spool.recover()
    assert [job.why for job in spool.jobs()] == ["newer"]
    assert os.listdir(spool.directory) == [f"reconcile-{KREL}.json"]


@pytest.mark.root
def test_a_plain_user_may_read_and_not_put_aside() -> None:
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        spool = Spool(Paths(Path(root)))
        spool.add(Verb.RECONCILE, KREL, "admin")
        write(spool, "damaged.json", "{")
        os.seteuid(65534)
        try:
            entries, problems = spool.read()
            assert [e.job.name for e in entries] == [f"reconcile-{KREL}"]
            assert not put_aside(problems[0])
            with pytest.raises(PermissionError):
                spool.add(Verb.RECONCILE, KREL, "nobody")
        finally:
            os.seteuid(0)


def test_a_write_that_fails_leaves_the_old_intent_whole(tmp_path: Path) -> None:
    spool = Spool(Paths(tmp_path))
    spool.add(Verb.RECONCILE, KREL, "admin")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            spool.add(Verb.RECONCILE, KREL, "kernel-install")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [job.why for job in spool.jobs()] == ["admin"]
    assert os.listdir(spool.directory) == [f"reconcile-{KREL}.json"]
