"""make install, into a whole system: what it puts there runs there, and make uninstall takes all of it away."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from autokmod import __version__
from tests.conftest import MakeRoot
from tests.corpus import CHECKOUT
from tests.realroot import RealRoot

pytestmark = pytest.mark.root


@pytest.fixture
def system(real_root: MakeRoot) -> RealRoot:
    root = real_root()
    root.install_autokmod()
    return root


def make(*args: str) -> str:
    return subprocess.run(["make", "-s", "-C", CHECKOUT, *args], check=True, capture_output=True, text=True).stdout


def files(top: Path) -> set[str]:
    return {str(p.relative_to(top)) for p in top.rglob("*") if not p.is_dir()}


def test_the_programs_run(system: RealRoot) -> None:
    assert system.chroot("autokmodctl", "--version").stdout == f"autokmod {__version__}\n"
    assert system.chroot("autokmodd", "--version").stdout == f"autokmod {__version__}\n"
    assert system.chroot("autokmodd", "--oneshot").returncode in (0, 1)
    assert system.chroot("autokmodctl", "status").returncode == 0


def test_nobodys_python_gets_in(system: RealRoot) -> None:
    """A module of the same name in the working directory, in $PYTHONPATH or in root's own site-packages."""
    trap = "raise SystemExit('trapped')\n"
    for place in ("tmp", "root/.local/lib/python3.11/site-packages"):
        for name in ("autokmod", "argparse", "usercustomize"):
            (system.path / place).mkdir(parents=True, exist_ok=True)
            (system.path / place / f"{name}.py").write_text(trap)
    said = system.chroot("sh", "-c", "cd /tmp && HOME=/root exec autokmodctl --version")
    assert said.stdout == f"autokmod {__version__}\n"


def test_hooks_name_what_is_installed(system: RealRoot) -> None:
    for file in ("usr/lib/kernel/install.d/45-autokmod.install", "etc/kernel/postinst.d/autokmod"):
        event = next(line for line in (system.path / file).read_text().splitlines() if line.startswith("event="))
        assert (system.path / event.removeprefix("event=/")).is_file()


def test_uninstall_takes_all_of_it_away(tmp_path: Path) -> None:
    make("install", f"DESTDIR={tmp_path}")
    assert files(tmp_path)
    make("uninstall", f"DESTDIR={tmp_path}")
    assert not files(tmp_path)


def test_prefix(tmp_path: Path) -> None:
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/opt/autokmod")
    assert (tmp_path / "opt/autokmod/sbin/autokmodd").is_file()
    hook = (tmp_path / "etc/kernel/postinst.d/autokmod").read_text()
    assert "event=/opt/autokmod/libexec/autokmod/kernel-event" in hook
    for file in files(tmp_path):
        assert b"DIR@" not in (tmp_path / file).read_bytes(), file
    make("uninstall", f"DESTDIR={tmp_path}", "PREFIX=/opt/autokmod")
    assert not files(tmp_path)


def test_installing_twice_is_installing_once(tmp_path: Path) -> None:
    make("install", f"DESTDIR={tmp_path}")
    once = files(tmp_path)
    make("install", f"DESTDIR={tmp_path}")
    assert files(tmp_path) == once
