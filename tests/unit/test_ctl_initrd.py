"""autokmodctl initrd, as it is typed, on hand-made images."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from autokmod.act.archive import archive
from autokmod.act.former import NoPrevious
from autokmod.config import Config
from autokmod.jobs.byhand import restore_image
from autokmod.observe.initrd import PREVIOUS, identify
from autokmod.observe.records import read_record
from autokmod.paths import Paths
from tests.realroot import let_others_in
from tests.unit.handmade import add_kernel, place, record
from tests.unit.test_ctl import CTL, ENV, NOBODY, ctl, data

CHECKOUT = Path(__file__).parents[2]
A, B = "6.1.0-53-amd64", "6.1.0-55-amd64"
MODULE = f"usr/lib/modules/{A}/updates/autokmod/pkg/pkg.ko"
INDEX = f"usr/lib/modules/{A}/modules.dep"
EARLY = archive({"kernel/x86/microcode/GenuineIntel.bin": b"\x01" * 999})
EARLY += bytes(-len(EARLY) % 512)


def image_with(module: bytes) -> bytes:
    files = {MODULE: module, INDEX: b"updates/autokmod/pkg/pkg.ko:\n", "conf/initramfs.conf": b""}
    return EARLY + gzip.compress(archive(files, links={"lib": "usr/lib"}))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    add_kernel(paths, A)
    add_kernel(paths, B)
    record(paths, A, place(paths, A, "pkg"))
    image(paths).write_bytes(image_with(f"module pkg of {A}".encode()))
    return paths


def image(paths: Paths) -> Path:
    return paths.boot / f"initrd.img-{A}"


def previous(paths: Paths) -> Path:
    return image(paths).with_name(image(paths).name + PREVIOUS)


def test_list(paths: Paths) -> None:
    done = ctl(paths, "initrd", "list", A)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("segment 0: cpio at 0, ")
    assert lines[0].endswith("4 files")
    assert [line for line in lines if line.startswith("segment ")][1].startswith(f"segment 1: gzip at {len(EARLY)}, ")
    assert MODULE in lines
    plain = ctl(paths, "initrd", "list", "--no-legend", str(image(paths))).stdout.splitlines()
    assert plain == [line for line in lines if not line.startswith("segment ")]


def test_list_long_and_json(paths: Paths) -> None:
    size = len(f"module pkg of {A}")
    lines = ctl(paths, "initrd", "list", "-l", A).stdout.splitlines()
    assert f"-rw-r--r-- {size:>10} {MODULE}" in lines
    assert f"lrwxrwxrwx {7:>10} lib -> usr/lib" in lines
    said = data(ctl(paths, "initrd", "list", "--json=short", A))
    assert (said["image"], said["made_by"], said["opaque"]) == (str(image(paths)), "initramfs-tools", [])
    assert [(s["kind"], s["offset"]) for s in said["segments"]] == [("cpio", 0), ("gzip", len(EARLY))]
    found = {f["path"]: f for f in said["segments"][1]["files"]}
    assert found[MODULE] == {"path": MODULE, "kind": "file", "mode": "0644", "size": size, "target": None}
    assert (found["lib"]["kind"], found["lib"]["target"]) == ("symlink", "usr/lib")


def test_a_plain_user_may_look_and_edit(paths: Paths, tmp_path: Path) -> None:
    let_others_in(tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", 65534, 65534)
    assert ctl(paths, "initrd", "list", A, before=NOBODY).returncode == 0
    there = str(tmp_path / "mine/unpacked")
    done = ctl(paths, "initrd", "unpack", A, there, before=NOBODY)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{there}/1-gzip: gzip, " in done.stdout
    again = str(tmp_path / "mine/image")
    assert ctl(paths, "initrd", "repack", there, "-o", again, before=NOBODY).returncode == 0
    assert gzip.decompress(Path(again).read_bytes()[len(EARLY) :]) == gzip.decompress(
        image(paths).read_bytes()[len(EARLY) :]
    )
    assert (Path(again).stat().st_mode & 0o777, Path(again).stat().st_uid) == (0o600, 65534)


def test_what_is_in_the_way_is_left_alone(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert ctl(paths, "initrd", "unpack", A, str(tmp_path / "there")).returncode == 0
    done = ctl(paths, "initrd", "unpack", A, str(tmp_path / "there"))
    assert (done.returncode, "not an empty directory" in done.stderr) == (2, True)


def test_an_image_that_exists_keeps_its_mode(paths: Paths, tmp_path: Path) -> None:
    ctl(paths, "initrd", "unpack", A, str(tmp_path / "there"))
    image(paths).chmod(0o640)
    done = ctl(paths, "initrd", "repack", str(tmp_path / "there"), "--output", str(image(paths)), "--json=short")
    assert data(done) == {"image": str(image(paths)), "size": image(paths).stat().st_size}
    assert image(paths).stat().st_mode & 0o777 == 0o640


def test_damage_is_told_with_its_offset(paths: Paths) -> None:
    whole = image(paths).read_bytes()
    image(paths).write_bytes(whole[:-20])
    for verb in (("list", A), ("unpack", A, str(paths.root / "x"))):
        done = ctl(paths, "initrd", *verb)
        assert done.returncode == 1
        assert "truncated" in done.stderr
        assert " at offset " in done.stderr
    assert not (paths.root / "x").exists()


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("list", "6.9.9"), 2, "neither a file here nor a kernel"),
        (("list", B), 2, f"no initrd of {B}"),
        (("list", "/nowhere/image"), 1, "/nowhere/image: No such file"),
        (("repack", "/nowhere", "-o", "/tmp/x"), 1, "manifest.json: No such file"),
        (("restore", "6.9.9"), 4, "no kernel 6.9.9"),
        (("restore", B), 1, "no initrd of it is found"),
        (("restore", A), 1, "nothing is kept beside /boot/initrd.img"),
        ((), 2, "required"),
    ],
)
def test_errors(paths: Paths, argv: tuple[str, ...], code: int, says: str) -> None:
    done = ctl(paths, "initrd", *argv)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


@pytest.mark.parametrize("verb", ["list", "unpack", "repack", "restore"])
def test_help(paths: Paths, verb: str) -> None:
    done = ctl(paths, "initrd", verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert verb in ctl(paths, "initrd", "--help").stdout


# ---- restore -------------------------------------------------------------------------------------


def test_restore(paths: Paths) -> None:
    """The former image lacks the module as it is on disk: not ready, and it is said why."""
    good, old = image(paths).read_bytes(), image_with(b"older")
    previous(paths).write_bytes(old)
    done = ctl(paths, "initrd", "restore", A)
    assert (done.returncode, done.stderr) == (3, "")
    assert "put back by hand: it carries another pkg" in done.stdout
    assert f"autokmodctl reconcile --force {A}" in done.stdout
    assert (image(paths).read_bytes(), previous(paths).read_bytes()) == (old, good)
    written = read_record(paths, A)
    assert written is not None
    assert (written.initrd_ok, written.initrd_seen) == (False, identify(image(paths)))
    assert "put back by hand" in ctl(paths, "status", A).stdout
    said = data(ctl(paths, "initrd", "restore", A, "--json=short"))
    assert (said["krel"], said["good"], said["word"]["kind"]) == (A, True, "initrd-restored")
    assert image(paths).read_bytes() == good
    status = ctl(paths, "status", A)
    assert (status.returncode, "put back by hand" in status.stdout) == (0, True)


def test_only_root_restores(paths: Paths) -> None:
    command = [*NOBODY, *CTL, "initrd", "restore", os.uname().release]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True)
    assert done.returncode in (1, 4)
    assert "as root" in done.stderr or "no kernel" in done.stderr


def test_without_a_former_image_nothing_happens(paths: Paths) -> None:
    before = image(paths).read_bytes()
    with pytest.raises(NoPrevious):
        restore_image(paths, Config(), A, 0.0)
    assert image(paths).read_bytes() == before


def test_completion(paths: Paths) -> None:
    script = CHECKOUT / "autokmod" / "data" / "completions" / "autokmodctl"
    source = f"""
        autokmodctl() {{ {" ".join(CTL)} "$@"; }}
        . {script}
        complete() {{
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _autokmodctl
            echo "${{COMPREPLY[*]}}"
        }}
        complete autokmodctl ini
        complete autokmodctl initrd re
        complete autokmodctl --root {paths.root} initrd restore 6.1.0-5
        complete autokmodctl initrd repack --o
    """
    done = subprocess.run(["bash", "-c", source], env=ENV, capture_output=True, text=True)
    assert done.stderr == ""
    assert [line.split() for line in done.stdout.splitlines()] == [
        *(["initrd"], ["repack", "restore"], [A, B], ["--output"]),
    ]
