"""State that is damaged in any way keeps nobody from being served, and the journal names the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dbus.busmachine import Machine, until
from tests.dbus.test_daemon import configure
from tests.dbus.test_service import A, B
from tests.unit.handmade import add_kernel, add_source

pytestmark = [pytest.mark.dbus, pytest.mark.root]


def directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)


def full_directory(path: Path) -> None:
    directory(path)
    (path / "file").touch()


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere")


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def says(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


DAMAGES = {
    "directory": directory,
    "full-directory": full_directory,
    "fifo": fifo,
    "loop": loop,
    "dangling": dangling,
    "device": device,
    "empty": says(b""),
    "not-utf8": says(b'{"\xff\xfe": 1}'),
    "list": says(b"[]"),
    "null": says(b"null"),
    "deep": says(b"[" * 100_000),
    "huge": says(b'{"a": "' + b"x" * (17 << 20) + b'"}'),
    "many-digits": says(b'{"format": ' + b"9" * 100_000 + b"}"),
    "newer": says(b'{"format": 99}'),
    "surrogate": says(b'{"format": 1, "krel": "\\ud800", "\\udfff": 1}'),
}
KEY = "0" * 64
PLACES: tuple[str, ...] = (
    "queue.json",
    f"kernels/{A}.json",
    f"spool/reconcile-{A}.json",
    "bootguard.json",
    "adopted.json",
)
PLACES += (f"builds/{KEY}/manifest.json", f"builds/{'1' * 64}")


@pytest.mark.parametrize("damage", DAMAGES)
def test_all_of_it_at_once(machine: Machine, damage: str) -> None:
    paths = machine.paths
    configure(machine)
    for krel in (A, B):
        add_kernel(paths, krel)
    add_source(paths, "x", "1")
    for place in PLACES:
        (paths.state / place).parent.mkdir(parents=True, exist_ok=True)
        DAMAGES[damage](paths.state / place)
    with machine.daemon() as daemon:
        machine.settled(A, B)
        machine.call("ListKernels")
        machine.call("ListNeighbours")
        for name in () if damage == "dangling" else PLACES[:3]:  # such a link is as good as no file
            assert name in daemon.log
        assert "Traceback" not in daemon.log


def test_what_was_set_aside_before_is_not_in_the_way(machine: Machine) -> None:
    """A directory and a file: rename(2) puts neither over the other."""
    paths = machine.paths
    configure(machine)
    add_kernel(paths, A)
    for place in PLACES[:3]:
        (paths.state / place).parent.mkdir(parents=True, exist_ok=True)
        (paths.state / place).write_text("damaged")
        full_directory(paths.state / f"{place}.damaged")
    with machine.daemon():
        until(lambda: all((paths.state / f"{place}.damaged").is_file() for place in PLACES[:3]))
        machine.settled(A)
