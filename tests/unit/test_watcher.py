"""Real inotify on a real directory tree."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from autokmod.daemon.watcher import Watcher
from autokmod.daemon.watchlist import Hint, Interest, find_directories
from autokmod.paths import Paths

KERNELS, SOURCES, SPOOL, CONFIG = Hint.KERNELS, Hint.SOURCES, Hint.SPOOL, Hint.CONFIG
K = "usr/lib/modules/6.1.0-1"
DIRECTORIES = (
    f"{K}/kernel",
    f"{K}/updates/autokmod",
    "boot",
    "etc/autokmod/autokmod.toml.d",
    "etc/autokmod/packages.d",
    "etc/dkms",
    "usr/src/evdi-1.0",
    "usr/src/linux-headers-6.1.0-1/include",
    "var/lib/autokmod/spool",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for directory in DIRECTORIES:
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / K / "build").symlink_to("/usr/src/linux-headers-6.1.0-1")
    return tmp_path


@pytest.fixture
def watcher(root: Path) -> Iterator[Watcher]:
    watcher = Watcher(Paths(root))
    yield watcher
    watcher.close()


def hints(watcher: Watcher) -> set[Hint]:
    """inotify's queue is filled by the very system call that made the change: there is nothing to wait for."""
    found: set[Hint] = set()
    while select.select([watcher], [], [], 0)[0]:
        found |= watcher.read()
    return found


def make(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


EVENTS: list[tuple[str, set[Hint]]] = [
    (f"{K}/vmlinuz", {KERNELS}),
    (f"{K}/modules.order", {KERNELS}),
    (f"{K}/modules.dep", set()),
    (f"{K}/modules.dep.bin", set()),
    (f"{K}/updates/autokmod/evdi/evdi.ko", set()),
    (f"{K}/updates/dkms/evdi.ko", {KERNELS}),
    (f"{K}/extra/evdi.ko", {KERNELS}),
    (f"{K}/extra/kmod-evdi/evdi.ko", {KERNELS}),
    (f"{K}/weak-updates/autokmod/evdi/evdi.ko", set()),
    (f"{K}/kernel/drivers/x.ko", set()),
    ("usr/lib/modules/6.1.0-2/modules.order", {KERNELS}),
    ("usr/src/linux-headers-6.1.0-1/Module.symvers", {KERNELS, SOURCES}),
    ("usr/src/linux-headers-6.1.0-1/include/x.h", set()),
    ("usr/src/evdi-1.0/dkms.conf", {SOURCES}),
    ("usr/src/new-1.0/dkms.conf", {SOURCES}),
    ("etc/dkms/evdi.conf", {SOURCES}),
    ("boot/vmlinuz-6.1.0-1", {KERNELS}),
    ("boot/initrd.img-6.1.0-1", {KERNELS}),
    ("boot/initrd.img-6.1.0-1.new", {KERNELS}),
    ("boot/initrd.img-6.1.0-1.autokmod-new", set()),
    ("boot/initrd.img-6.1.0-1.autokmod-previous.part", set()),
    ("etc/autokmod/autokmod.toml", {CONFIG}),
    ("etc/autokmod/autokmod.toml.d/10-x.toml", {CONFIG}),
    ("etc/autokmod/packages.d/evdi.toml", {CONFIG, SOURCES}),
    ("etc/autokmod/packages.d/evdi/patches/1.patch", {SOURCES}),
    ("etc/autokmod/.autokmod.toml.swp", set()),
    ("etc/autokmod/4913", set()),
    ("var/lib/autokmod/spool/reconcile-a.json", {SPOOL}),
    ("var/lib/autokmod/spool/.tmp.xyz", set()),
    ("var/lib/autokmod/queue.json", set()),
    ("var/lib/autokmod/kernels/6.1.0-1.json", set()),
    ("etc/hosts", set()),
]


@pytest.mark.parametrize(("path", "wanted"), EVENTS, ids=[e[0] for e in EVENTS])
def test_what_a_new_file_is_a_hint_of(root: Path, watcher: Watcher, path: str, wanted: set[Hint]) -> None:
    make(root / path)
    assert hints(watcher) == wanted
    (root / path).unlink()
    assert hints(watcher) == wanted & {KERNELS, SOURCES, SPOOL, CONFIG}


def test_a_file_is_a_hint_when_it_is_whole(root: Path, watcher: Watcher) -> None:
    with open(root / "etc/autokmod/autokmod.toml", "w") as file:
        assert hints(watcher) == set()
        file.write("[daemon]\n")
        file.flush()
        assert hints(watcher) == set()
    assert hints(watcher) == {CONFIG}


def test_a_rename_and_a_link_are_hints(root: Path, watcher: Watcher) -> None:
    make(root / "var/lib/autokmod/spool/.tmp")
    assert hints(watcher) == set()
    os.rename(root / "var/lib/autokmod/spool/.tmp", root / "var/lib/autokmod/spool/remove-a.json")
    assert hints(watcher) == {SPOOL}
    (root / "etc/autokmod/autokmod.toml").symlink_to("/dev/null")
    assert hints(watcher) == {CONFIG}


def test_a_kernel_that_appears_is_watched_from_then_on(root: Path, watcher: Watcher) -> None:
    new = root / "usr/lib/modules/6.1.0-2"
    new.mkdir()
    assert KERNELS in hints(watcher)
    make(new / "modules.order")
    assert hints(watcher) == {KERNELS}
    make(root / "usr/src/linux-headers-6.1.0-2/Makefile")
    assert SOURCES in hints(watcher)
    (new / "build").symlink_to("/usr/src/linux-headers-6.1.0-2")
    assert KERNELS in hints(watcher)
    make(root / "usr/src/linux-headers-6.1.0-2/Module.symvers")
    assert KERNELS in hints(watcher)


def test_headers_that_the_link_leads_to_come_later(root: Path, watcher: Watcher) -> None:
    new = root / "usr/lib/modules/6.1.0-2"
    new.mkdir()
    (new / "build").symlink_to("/opt/headers/6.1.0-2")
    hints(watcher)
    make(root / "opt/headers/6.1.0-2/Module.symvers")
    assert hints(watcher) == {KERNELS}
    (root / "opt/headers/6.1.0-2/Module.symvers").unlink()
    assert hints(watcher) == {KERNELS}


def test_what_is_there_before_the_watch_is_not_missed(root: Path, watcher: Watcher) -> None:
    """All of it happens before the first event is read: nothing of it but the top directory was watched."""
    for number in range(50):
        make(root / f"usr/lib/modules/6.2.0-{number}/modules.order")
    assert hints(watcher) == {KERNELS}
    for number in range(50):
        make(root / f"usr/lib/modules/6.2.0-{number}/vmlinuz")
        assert hints(watcher) == {KERNELS}


@pytest.mark.parametrize(
    ("directory", "file", "hint"),
    [
        ("usr/lib/modules", f"{K}/vmlinuz", KERNELS),
        (K, f"{K}/vmlinuz", KERNELS),
        ("usr/src/evdi-1.0", "usr/src/evdi-1.0/dkms.conf", SOURCES),
        ("usr/src", "usr/src/evdi-1.0/dkms.conf", SOURCES),
        ("boot", "boot/vmlinuz-1", KERNELS),
        ("etc/autokmod", "etc/autokmod/packages.d/x.toml", CONFIG),
        ("etc/dkms", "etc/dkms/x.conf", SOURCES),
        ("var/lib/autokmod", "var/lib/autokmod/spool/x.json", SPOOL),
        ("usr", f"{K}/vmlinuz", KERNELS),
    ],
)
def test_a_directory_that_is_deleted_and_comes_back(
    root: Path, watcher: Watcher, directory: str, file: str, hint: Hint
) -> None:
    for _ in range(3):
        shutil.rmtree(root / directory)
        assert hint in hints(watcher)
        make(root / file)
        assert hint in hints(watcher)
        (root / file).unlink()
        assert hint in hints(watcher)


def test_a_directory_that_is_moved_away_and_back(root: Path, watcher: Watcher) -> None:
    (root / K).rename(root / "aside")
    assert KERNELS in hints(watcher)
    make(root / "aside/vmlinuz")
    assert hints(watcher) == set()
    (root / "aside").rename(root / K)
    assert KERNELS in hints(watcher)
    make(root / K / "vmlinuz")
    assert hints(watcher) == {KERNELS}


def test_another_directory_under_the_old_name(root: Path, watcher: Watcher) -> None:
    spool = root / "var/lib/autokmod/spool"
    spool.rename(root / "var/lib/autokmod/old")
    spool.mkdir()
    assert SPOOL in hints(watcher)
    make(spool / "remove-a.json")
    assert hints(watcher) == {SPOOL}


def overflow(directory: Path) -> None:
    """More events than the kernel keeps; two for each renaming, and no two alike in a row."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    make(directory / "a")
    for _ in range(limit // 4 + 10):
        os.rename(directory / "a", directory / "b")
        os.rename(directory / "b", directory / "a")


def test_an_overflow_is_a_hint_of_everything(root: Path, watcher: Watcher) -> None:
    overflow(root / "etc/dkms")
    (root / "usr/lib/modules/6.1.0-9").mkdir()  # its event is lost
    assert hints(watcher) == set(Hint)
    make(root / "usr/lib/modules/6.1.0-9/vmlinuz")
    assert hints(watcher) == {KERNELS}


def test_nothing_there_yet(tmp_path: Path) -> None:
    watcher = Watcher(Paths(tmp_path))
    try:
        (tmp_path / "usr").mkdir()
        hints(watcher)
        make(tmp_path / "var/lib/autokmod/spool/remove-a.json")
        assert SPOOL in hints(watcher)
        make(tmp_path / "usr/src/evdi-1.0/dkms.conf")
        assert SOURCES in hints(watcher)
    finally:
        watcher.close()


def test_links_in_circles_are_survived(root: Path, watcher: Watcher) -> None:
    (root / K / "build").unlink()
    (root / K / "build").symlink_to("build")
    assert hints(watcher) == {KERNELS}
    (root / K / "build").unlink()
    assert hints(watcher) == {KERNELS}


def test_two_kernels_with_the_same_headers(root: Path, watcher: Watcher) -> None:
    (root / "usr/lib/modules/6.1.0-2").mkdir()
    (root / "usr/lib/modules/6.1.0-2/build").symlink_to("/usr/src/linux-headers-6.1.0-1")
    hints(watcher)
    shutil.rmtree(root / "usr/lib/modules/6.1.0-2")
    hints(watcher)
    make(root / "usr/src/linux-headers-6.1.0-1/Module.symvers")
    assert KERNELS in hints(watcher)


def test_it_comes_to_rest(root: Path, watcher: Watcher) -> None:
    """Looking makes no events, or the daemon would never sleep."""
    make(root / f"{K}/vmlinuz")
    hints(watcher)
    assert hints(watcher) == set()


def test_the_limit_of_watches_is_told_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = Watcher(Paths(root))

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    try:
        monkeypatch.setattr(watcher._inotify, "add_watch", refuse)
        watcher._walk()
        watcher._walk()
    finally:
        watcher.close()
    assert capsys.readouterr().err.count("max_user_watches is reached") == 1


def test_interests_of_a_whole_tree(root: Path) -> None:
    found = find_directories(Paths(root))
    assert found[root / "var/lib/autokmod/spool"] == {Interest(SPOOL, ("[!.]*",))}
    headers = found[root / "usr/src/linux-headers-6.1.0-1"]
    assert {i.hint for i in headers} == {KERNELS, SOURCES}
    assert root / "etc" not in found
