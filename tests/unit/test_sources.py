"""Packages by what is in /usr/src: names, digests, and trees that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autokmod.config import Config
from autokmod.model import Package
from autokmod.observe import tree
from autokmod.observe.sources import find_overrides, find_packages, is_override, split_name
from autokmod.paths import Paths

Change = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("usr/src/foo-1.0/sub", "etc/dkms", "var/cache", "home/me"):
        (tmp_path / name).mkdir(parents=True)
    source = tmp_path / "usr/src/foo-1.0"
    (source / "dkms.conf").write_text('PACKAGE_NAME="foo"\nPACKAGE_VERSION="1.0"\n')
    (source / "foo.c").write_text("int x;\n")
    (source / "sub/a.h").write_text("")
    return tmp_path


def only(root: Path) -> Package:
    (package,) = find_packages(Paths(root), Config())
    return package


@pytest.mark.parametrize(
    ("directory", "conf", "expected"),
    [
        ("v4l2loopback-0.12.7", "", ("v4l2loopback", "0.12.7")),
        ("xtables-addons-3.23", "", ("xtables-addons", "3.23")),
        ("xtrx-0.0.1+git20190320-3.2", "", ("xtrx", "0.0.1+git20190320-3.2")),
        ("lime-forensics-1.9.1-5", "", ("lime-forensics", "1.9.1-5")),
        ("foo-main", "", ("foo", "main")),
        ("adv-17v35x-5.0.7.0", "", ("adv", "17v35x-5.0.7.0")),  # only the conf knows better
        ("adv-17v35x-5.0.7.0", 'PACKAGE_NAME="adv-17v35x"\n', ("adv-17v35x", "5.0.7.0")),
        ("adv-17v35x-5.0.7.0", "PACKAGE_VERSION=5.0.7.0 # x\n", ("adv-17v35x", "5.0.7.0")),
        ("adv-17v35x-5.0.7.0", "PACKAGE_VERSION='5.0.7.0'\r\n", ("adv-17v35x", "5.0.7.0")),
        ("a-1-2", 'PACKAGE_NAME="$X"\nPACKAGE_VERSION=$(git describe)\n', ("a", "1-2")),
        ("a-1-2", "#PACKAGE_VERSION=2\n", ("a", "1-2")),
        ("a-1-2", "PACKAGE_VERSION=1\nPACKAGE_VERSION=2\n", ("a-1", "2")),
        ("a-1", "PACKAGE_NAME=b\nPACKAGE_VERSION=9\n", ("a", "1")),  # the conf contradicts: told when it is evaluated
        ("a-", "PACKAGE_NAME=a\n", ("a", "")),
    ],
)
def test_name_and_version(directory: str, conf: str, expected: tuple[str, str]) -> None:
    assert split_name(directory, conf) == expected


def test_what_has_no_conf_or_no_version_is_no_package(root: Path) -> None:
    (root / "usr/src/linux-headers-6.1").mkdir()
    (root / "usr/src/checkout").mkdir()
    (root / "usr/src/checkout/dkms.conf").write_text("")
    (root / "usr/src/file-1.0").write_text("")
    assert only(root).id == "foo/1.0"
    assert only(root).source == str(root / "usr/src/foo-1.0")


def test_no_usr_src_is_no_package(tmp_path: Path) -> None:
    assert find_packages(Paths(tmp_path), Config()) == ()


@pytest.mark.parametrize("directory", ["fo o-1", "foo-1;reboot", "foo-1\n", "-foo-1", "foo-\udcff1"])
def test_strange_names_are_a_problem_of_that_package(root: Path, directory: str) -> None:
    (root / "usr/src" / directory).mkdir()
    (root / "usr/src" / directory / "dkms.conf").write_text("")
    problems = {p.source: p.problem for p in find_packages(Paths(root), Config())}
    assert problems.pop(str(root / "usr/src/foo-1.0")) is None
    (problem,) = problems.values()
    assert problem is not None
    assert problem.kind == "bad-package-name"
    problem.text.encode("ascii")


# ---- the digest ----------------------------------------------------------------------------------

SOURCE = "usr/src/foo-1.0"


def put(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text("x")


def file_to_link(root: Path) -> None:
    (root / SOURCE / "sub/a.h").unlink()
    (root / SOURCE / "sub/a.h").symlink_to("../foo.c")


CHANGES: dict[str, Change] = {
    "content": lambda r: (r / SOURCE / "foo.c").write_text("int y;\n"),
    "new file": lambda r: (r / SOURCE / "new").write_text(""),
    "new directory": lambda r: (r / SOURCE / "newdir").mkdir(),
    "removed": lambda r: (r / SOURCE / "sub/a.h").unlink(),
    "renamed": lambda r: (r / SOURCE / "sub/a.h").rename(r / SOURCE / "sub/b.h"),
    "execute bit": lambda r: (r / SOURCE / "foo.c").chmod(0o755),
    "link": lambda r: (r / SOURCE / "sub/link").symlink_to("a.h"),
    "file to link": file_to_link,
    "override": lambda r: (r / "etc/dkms/foo.conf").write_text("MAKE=make"),
    "override of a kernel": lambda r: (r / "etc/dkms/foo-1.0-6.1.0-5.conf").write_text(""),
    "override of all versions": lambda r: (r / "etc/dkms/foo--6.1.0-5.conf").write_text(""),
    "patch": lambda r: put(r, "etc/dkms/foo/a.patch"),
}
NO_CHANGES: dict[str, Change] = {
    "nothing": lambda _: None,
    "touched": lambda r: os.utime(r / SOURCE / "foo.c", (1, 1)),
    "umask": lambda r: (r / SOURCE / "foo.c").chmod(0o640),
    "git": lambda r: put(r, f"{SOURCE}/.git/index"),
    "git below": lambda r: put(r, f"{SOURCE}/sub/.git/index"),
    "override of another package": lambda r: (r / "etc/dkms/food.conf").write_text(""),
    "override of another version": lambda r: (r / "etc/dkms/foo-1.01.conf").write_text(""),
    "framework.conf": lambda r: (r / "etc/dkms/framework.conf").write_text(""),
    "another package": lambda r: (r / "usr/src/other-1").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_changes_with(root: Path, change: str) -> None:
    before = only(root).digest
    CHANGES[change](root)
    after = only(root)
    assert after.problem is None
    assert after.digest not in ("", before)


@pytest.mark.parametrize("change", NO_CHANGES)
def test_the_digest_stays_with(root: Path, change: str) -> None:
    before = only(root).digest
    NO_CHANGES[change](root)
    assert only(root).digest == before


def test_the_digest_does_not_depend_on_where_the_root_is(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("moved") / "root"
    before = only(root).digest
    root.rename(other)
    assert only(other).digest == before


def old(root: Path) -> None:
    """As if the files had been there for long: what changed just now is not kept in the cache."""
    for path in (root / SOURCE).rglob("*"):
        os.utime(path, (1, 1))


def test_contents_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "RACY_NS", 0)
    first = only(root)
    monkeypatch.setattr("hashlib.file_digest", None)  # any further reading would be a TypeError
    assert only(root) == first


def test_what_changed_just_now_is_read_again(root: Path) -> None:
    """Same size, same times, same inode, other content: within one tick of the clock this happens."""
    first = only(root)
    cache = Paths(root).cache / "sources/foo-1.0.json"
    assert not cache.exists() or "foo.c" not in cache.read_text()
    with open(root / SOURCE / "foo.c", "r+") as f:
        f.write("int z;\n")
    assert only(root).digest != first.digest


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"format": 99, "files": {}}', '{"format": 1, "files": {"foo.c": 3}}', "\0" * 100]
)
def test_a_damaged_cache_is_ignored(root: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "RACY_NS", 0)
    first = only(root)
    cache = Paths(root).cache / "sources/foo-1.0.json"
    cache.write_text(damage)
    assert only(root) == first
    assert "foo.c" in cache.read_text()


def test_without_a_place_for_the_cache_it_only_takes_longer(root: Path) -> None:
    (root / "var/cache/autokmod").write_text("a file where the directory should be")
    assert only(root).problem is None


# ---- trees that cannot be used -------------------------------------------------------------------

BAD: dict[str, tuple[Change, str, str]] = {
    "out": (
        lambda r: (r / SOURCE / "l").symlink_to("/etc/shadow"),
        "source-link-outward",
        "/usr/src/foo-1.0/l -> /etc/sh",
    ),
    "up": (lambda r: (r / SOURCE / "l").symlink_to("../../../home/me"), "source-link-outward", "to /home/me"),
    "through": (lambda r: (r / SOURCE / "l").symlink_to("sub/../../../../etc"), "source-link-outward", "to /etc"),
    "dangling": (lambda r: (r / SOURCE / "sub/l").symlink_to("gone"), "source-link-dangling", "sub/l -> gone leads to"),
    "dangling in usr": (lambda r: (r / SOURCE / "l").symlink_to("/usr/gone"), "source-link-dangling", "/usr/gone"),
    "loop": (lambda r: (r / SOURCE / "l").symlink_to("l"), "source-link-dangling", "round in circles"),
    "fifo": (lambda r: os.mkfifo(r / SOURCE / "sub/p"), "source-special-file", "foo-1.0/sub/p is a device"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_unusable_tree_is_a_problem_of_that_package(root: Path, name: str) -> None:
    (root / "usr/src/good-1").mkdir()
    (root / "usr/src/good-1/dkms.conf").write_text("")
    change, kind, text = BAD[name]
    change(root)
    bad, good = find_packages(Paths(root), Config())
    assert bad.id == "foo/1.0"
    assert bad.problem is not None
    assert (bad.problem.kind, bad.digest) == (kind, "")
    assert text in bad.problem.text
    assert good.problem is None


GOOD_LINKS: dict[str, Change] = {
    "inside": lambda r: (r / SOURCE / "sub/l").symlink_to("../foo.c"),
    "absolute inside": lambda r: (r / SOURCE / "l").symlink_to("/usr/src/foo-1.0/sub"),
    "the system's headers": lambda r: (r / SOURCE / "l").symlink_to("/usr/src"),
    "documentation that is left out": lambda r: (r / SOURCE / "README.gz").symlink_to("../../share/doc/foo/README.gz"),
}


@pytest.mark.parametrize("name", GOOD_LINKS)
def test_links_that_may_stand(root: Path, name: str) -> None:
    GOOD_LINKS[name](root)
    assert only(root).problem is None


def test_a_source_may_itself_be_a_link(root: Path) -> None:
    """`ln -s /home/me/foo /usr/src/foo-1.0` is how people work on a driver."""
    (root / SOURCE).rename(root / "home/me/foo")
    (root / SOURCE).symlink_to("/home/me/foo")
    package = only(root)
    assert package.problem is None
    assert package.source == str(root / SOURCE)


def test_too_many_files_and_too_many_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(root / SOURCE / "huge", "wb") as f:
        f.truncate(tree.MAX_BYTES + 1)  # sparse: takes no space
    problem = only(root).problem
    assert problem is not None
    assert problem.kind == "source-too-large"
    (root / SOURCE / "huge").unlink()
    monkeypatch.setattr(tree, "MAX_ENTRIES", 3)
    problem = only(root).problem
    assert problem is not None
    assert "more than 3 files" in problem.text


def test_a_conf_that_cannot_be_read_is_told(root: Path) -> None:
    (root / SOURCE / "dkms.conf").unlink()
    (root / SOURCE / "dkms.conf").mkdir()
    assert only(root).name == "foo"  # the recipe will say what is wrong
    (root / SOURCE / "dkms.conf").rmdir()
    (root / SOURCE / "dkms.conf").symlink_to("/nowhere")
    problem = only(root).problem
    assert problem is not None
    assert "dkms.conf" in problem.text


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("foo", True),
        ("foo.conf", True),
        ("foo-1.0.conf", True),
        ("foo-1.0-6.1.0-56-amd64.conf", True),
        ("foo-1.0-6.1.0-56-amd64-x86_64.conf", True),
        ("foo--6.1.0-56-amd64.conf", True),
        ("foo-1.0.conf.dpkg-old", False),
        ("foo-1.0", False),
        ("foo-2.0.conf", False),
        ("fo", False),
    ],
)
def test_overrides_of_a_package(file: str, expected: bool) -> None:
    assert is_override(file, "foo", "1.0") is expected


def test_no_etc_dkms_is_no_override(tmp_path: Path) -> None:
    assert find_overrides(Paths(tmp_path), "foo", "1.0") == ()
