"""Images that stand are never lost: not by a failure, a full disk, or a power cut at any call that changes a name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autokmod.act.archive import archive
from autokmod.act.former import forget_leftovers, restore
from autokmod.act.generators import Generator
from autokmod.act.initrd import Draft, InitrdFailed, drafted
from autokmod.config import Config
from autokmod.jobs.initrd.step import InitrdStep
from autokmod.jobs.publishing import unattended
from autokmod.observe.bootplaces import find_away
from autokmod.observe.initrd import ASIDE, NEW, PREVIOUS, SWAP, Place, find_image
from autokmod.paths import Paths
from autokmod.run import Cancel
from tests.corpus import CHECKOUT
from tests.unit.handmade import add_kernel, place, record

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not there")
RESTORING = "import sys, pathlib; from autokmod.act.former import restore; restore(pathlib.Path(sys.argv[1]))"
KEEPING = """import sys, pathlib
from autokmod.act.generators import Generator
from autokmod.act.initrd import drafted
from autokmod.paths import Paths
from autokmod.run import Cancel
shell = Generator("sh", "sh", lambda *_: ("true",), in_place=True)
with drafted(Paths(), shell, "", pathlib.Path(sys.argv[1]), timeout_s=60, cancel=Cancel()):
    pass
"""
KREL = "6.1.0-55-amd64"
GOOD, OTHER = archive({"init": b"good"}), archive({"init": b"other"})


def image(tmp_path: Path, data: bytes = GOOD) -> Path:
    path = tmp_path / "boot" / f"initrd.img-{KREL}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def writes(script: str) -> Generator:
    """In place; $1 is the image."""
    return Generator("sh", "sh", lambda _k, path, _n: ("sh", "-c", script, "sh", path), in_place=True, by_hand="sh")


def make(path: Path, generator: Generator) -> None:
    with drafted(Paths(), generator, KREL, path, timeout_s=60, cancel=Cancel()) as draft:
        draft.publish()


def test_a_power_cut_in_a_generator_that_writes_in_place(tmp_path: Path) -> None:
    """What was set aside before is the only whole image then: it is neither copied over nor forgotten."""
    path = image(tmp_path, GOOD[:50])
    beside(path, ASIDE).write_bytes(GOOD)
    with pytest.raises(InitrdFailed):
        make(path, writes("exit 3"))
    assert path.read_bytes() == GOOD
    path.write_bytes(OTHER)
    beside(path, ASIDE).write_bytes(GOOD)
    with pytest.raises(InitrdFailed):
        make(path, writes("exit 3"))
    assert path.read_bytes() == OTHER


def killed_at(calls: str, when: int, code: str, path: Path) -> bool:
    """A power cut, as far as names go."""
    strace = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    inject = ["-e", f"inject={calls}:signal=KILL:when={when}"]
    program = [sys.executable, "-B", "-c", code, str(path)]
    return subprocess.run([*strace, *inject, *program], cwd=CHECKOUT, check=False).returncode != 0


@needs_strace
@pytest.mark.parametrize("when", range(1, 4))
def test_a_power_cut_while_the_former_image_comes_back(tmp_path: Path, when: int) -> None:
    path = image(tmp_path)
    beside(path, PREVIOUS).write_bytes(OTHER)
    assert killed_at("rename,link", when, RESTORING, path) or when == 3
    assert path.read_bytes() in (GOOD, OTHER)
    kept = [f.read_bytes() for f in path.parent.iterdir()]
    assert GOOD in kept
    assert OTHER in kept


def test_restored_twice_is_as_it_was(tmp_path: Path) -> None:
    path = image(tmp_path)
    beside(path, PREVIOUS).write_bytes(OTHER)
    restore(path)
    assert (path.read_bytes(), beside(path, PREVIOUS).read_bytes()) == (OTHER, GOOD)
    restore(path)
    assert (path.read_bytes(), beside(path, PREVIOUS).read_bytes()) == (GOOD, OTHER)
    assert len(list(path.parent.iterdir())) == 2


def test_a_copy_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    path = image(tmp_path)
    done = subprocess.run(["prlimit", "--fsize=100", sys.executable, "-B", "-c", KEEPING, str(path)], cwd=CHECKOUT,
                          stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    assert "File too large" in done.stderr
    assert [p.name for p in path.parent.iterdir()] == [path.name]


CHECKING = """import sys, pathlib
from autokmod.act.initrd import check_space
from autokmod.paths import Paths
check_space(Paths(), pathlib.Path(sys.argv[1]), in_place=len(sys.argv) > 2)
"""
LINKLESS = ("strace", "-qq", "-o", "/dev/null", "-e", "trace=link,linkat", "-e", "inject=link,linkat:error=EPERM")


def sparse(tmp_path: Path, share: float) -> Path:
    """An image with this share of what is free for its size, and no content."""
    path, room = image(tmp_path), os.statvfs(tmp_path)
    os.truncate(path, int(room.f_bavail * room.f_frsize * share))
    return path


def complaint(path: Path, *before: str, in_place: bool = False) -> str:
    argv = [*before, sys.executable, "-B", "-c", CHECKING, str(path), *(["in place"] if in_place else [])]
    done = subprocess.run(argv, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, check=False)
    assert [p.name for p in path.parent.iterdir() if PREVIOUS not in p.name] == [path.name]
    return done.stderr.strip().rpartition("\n")[2]


@needs_strace
def test_room_for_all_that_is_there_at_once(tmp_path: Path) -> None:
    """A link keeps the image that is there; where there are none, as on FAT, a copy, of which one is enough."""
    path = sparse(tmp_path, 0.5)
    assert complaint(path) == ""
    assert "a new image, and a copy of the present one, take some" in complaint(path, *LINKLESS)
    beside(path, PREVIOUS).write_bytes(GOOD)
    assert complaint(path, *LINKLESS) == ""
    assert "a new image takes some" in complaint(sparse(tmp_path, 0.9))


@needs_strace
def test_room_where_a_generator_writes_in_place(tmp_path: Path) -> None:
    path = sparse(tmp_path, 0.7)
    assert complaint(path, in_place=True) == ""
    assert complaint(path, *LINKLESS, in_place=True) == ""
    assert "a copy of the present one" in complaint(sparse(tmp_path, 0.9), in_place=True)


def test_what_was_kept_for_another_kernel_is_not_put_back(tmp_path: Path) -> None:
    """An image that is named after a package is of whichever kernel that has."""
    for_old, for_new, newer = (
        archive({f"usr/lib/modules/{krel}/modules.dep": data})
        for krel, data in (("6.5.1-arch1", b""), ("6.6.0-arch1", b""), ("6.6.0-arch1", b"x"))
    )
    path = tmp_path / "initramfs-linux.img"
    path.write_bytes(for_new)
    beside(path, PREVIOUS).write_bytes(for_old)
    beside(path, NEW).write_bytes(newer)
    Draft(path, beside(path, NEW)).publish()
    assert (path.read_bytes(), beside(path, PREVIOUS).read_bytes()) == (newer, for_new)
    beside(path, NEW).write_bytes(for_new)
    Draft(path, beside(path, NEW)).publish()
    assert (path.read_bytes(), beside(path, PREVIOUS).read_bytes()) == (for_new, for_new)


@needs_strace
def test_nobody_else_reads_a_copy_while_it_is_made(tmp_path: Path) -> None:
    """Images may hold keys. utimensat is what shutil calls before it gives a copy its mode."""
    path = image(tmp_path)
    path.chmod(0o600)
    assert killed_at("utimensat", 1, KEEPING, path)
    assert [oct(p.stat().st_mode & 0o777) for p in path.parent.iterdir()] == ["0o600", "0o600"]


def test_a_name_that_is_a_link(tmp_path: Path) -> None:
    """Whoever boots by the file, and not by the link, is to find the new image as well."""
    paths = Paths(tmp_path)
    path = image(tmp_path)
    (tmp_path / "efi/debian").mkdir(parents=True)
    real = tmp_path / "efi/debian/initrd"
    path.rename(real)
    path.symlink_to("/efi/debian/initrd")
    found = find_image(paths, KREL)
    assert found is not None
    assert (found.path, found.place) == (real, Place.DEBIAN)
    path.unlink()
    path.symlink_to(path.name)
    assert find_image(paths, KREL) is None


def test_what_a_kernel_that_is_gone_left(tmp_path: Path) -> None:
    other = image(tmp_path).with_name(f"initrd.img-{KREL}-rt{PREVIOUS}")
    kept = image(tmp_path)
    for suffix in (PREVIOUS, NEW, ASIDE, SWAP):
        beside(kept, suffix).write_bytes(GOOD)
    other.write_bytes(GOOD)
    forget_leftovers(Paths(tmp_path), KREL)
    assert sorted(p.name for p in kept.parent.iterdir()) == [kept.name, other.name]


def test_a_boot_that_is_not_mounted(tmp_path: Path) -> None:
    """What is not seen is not known to be right."""
    paths = Paths(tmp_path)
    add_kernel(paths, KREL)
    before = record(paths, KREL, place(paths, KREL, "pkg"))
    for file in paths.boot.iterdir():
        file.unlink()
    (tmp_path / "etc").mkdir(exist_ok=True)
    assert not find_away(paths, KREL)
    (tmp_path / "etc/fstab").write_text("# /boot\nUUID=1 / ext4\nUUID=2 /boot ext4 noauto 0 2\n")
    assert find_away(paths, KREL)
    step = InitrdStep(paths, Config(), KREL, dict, Cancel(), unattended)
    away = step.run(before)
    assert away.initrd is not None
    assert (away.initrd_ok, away.initrd.kind) == (False, "initrd-away")
    (tmp_path / f"boot/vmlinuz-{KREL}").write_bytes(b"")
    assert not find_away(paths, KREL)
    assert step.run(away).initrd_ok


LOOKED_INTO: list[tuple[str, dict[str, bytes], str, str]] = [
    ("hidden", {"squash-root.img": b"hsqs" + bytes(99)}, "initrd-opaque", "of /boot/initrd.img"),
    # There is no generator here, but one was asked.
    ("of another kernel", {"usr/lib/modules/6.0/x.ko": b""}, "initrd-failed", "made for 6.0, and has nothing for"),
]


@pytest.mark.parametrize(("_name", "files", "kind", "says"), LOOKED_INTO, ids=[i[0] for i in LOOKED_INTO])
def test_neither_right_nor_known_to_be(
    tmp_path: Path, _name: str, files: dict[str, bytes], kind: str, says: str
) -> None:
    paths = Paths(tmp_path)
    add_kernel(paths, KREL)
    before = record(paths, KREL, place(paths, KREL, "pkg"))
    (tmp_path / "etc/initramfs-tools").mkdir(parents=True)
    (tmp_path / "etc/initramfs-tools/modules").write_text("pkg\n")
    image(tmp_path, archive(files))
    looked = InitrdStep(paths, Config(), KREL, dict, Cancel(), unattended).run(before)
    assert looked.initrd is not None
    assert (looked.initrd_ok, looked.initrd.kind) == (False, kind)
    assert says in looked.initrd.text
