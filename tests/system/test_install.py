"""make install, into a whole system: what it puts there runs there, and make uninstall takes all of it away."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from autokmod import __version__
from tests.conftest import MakeRoot
from tests.corpus import CHECKOUT
from tests.dbus.busmachine import NOBODY
from tests.realroot import RealRoot, mount

pytestmark = pytest.mark.root

LIST = "usr/share/autokmod/installed"


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


def test_what_this_version_has_no_more_is_removed(tmp_path: Path) -> None:
    make("install", f"DESTDIR={tmp_path}")
    gone, listed = tmp_path / "usr/lib/systemd/system/autokmod-old.service", tmp_path / LIST
    gone.touch()
    listed.write_text(listed.read_text() + "/usr/lib/systemd/system/autokmod-old.service\n")
    assert "removed /usr/lib/systemd/system/autokmod-old.service" in make("install", f"DESTDIR={tmp_path}")
    assert not gone.exists()
    assert {f"/{f}" for f in files(tmp_path) if "/python/" not in f} == {*listed.read_text().split(), f"/{LIST}"}


@pytest.mark.parametrize("target", ["install", "uninstall", "purge"])
def test_who_is_not_root_is_told_at_once(target: str) -> None:
    done = subprocess.run([*NOBODY, "make", "-s", target], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"make {target.replace('purge', 'uninstall')}: this changes the system, and needs root" in done.stderr
    assert "denied" not in done.stderr


# ---- in a system, without DESTDIR ----


@pytest.fixture
def bare(real_root: MakeRoot) -> RealRoot:
    """A system in which the checkout lies at /src, and Debian's packages are known to be there."""
    root = real_root()
    for host, inside in ((CHECKOUT, "src"), (Path("/var/lib/dpkg"), "var/lib/dpkg")):
        (root.path / inside).mkdir(parents=True)
        mount("--bind", str(host), str(root.path / inside))
    return root


def run_make(root: RealRoot, target: str, *more: str) -> str:
    done = root.chroot("make", "-s", "-C", "/src", target, *more)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_administrators_word_on_units_survives_an_upgrade(bare: RealRoot) -> None:
    def states() -> list[str]:
        units = ("autokmodd.service", "autokmod-boot.service", "autokmod-flush.service")
        return [bare.chroot("systemctl", "is-enabled", unit).stdout.strip() for unit in units]

    run_make(bare, "install")
    assert states() == ["enabled"] * 3
    bare.chroot("systemctl", "disable", "--quiet", "autokmod-boot.service")
    bare.chroot("systemctl", "mask", "--quiet", "autokmod-flush.service")
    said = run_make(bare, "install")
    assert states() == ["enabled", "disabled", "masked"]
    assert "autokmod-flush.service is masked, and stays so" in said
    assert "autokmod-boot.service is disabled, and stays so" in said
    bare.chroot("systemctl", "unmask", "--quiet", "autokmod-flush.service")
    run_make(bare, "uninstall")
    run_make(bare, "install")
    assert states() == ["enabled"] * 3, "a new installation is a new decision"


def test_uninstall_keeps_what_is_in_use_and_purge_keeps_nothing(bare: RealRoot) -> None:
    catalog = bare.path / "var/lib/systemd/catalog/database"
    before = files(bare.path / "usr") | {f"etc/{f}" for f in files(bare.path / "etc")}
    run_make(bare, "install")
    assert b"autokmod" in catalog.read_bytes()
    own = bare.paths.own_dir("6.1.0-1", "x") / "x.ko"
    for path in (own, bare.paths.etc / "autokmod.toml", bare.paths.boot / "initrd.img-6.1.0-1.autokmod-previous"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    said = run_make(bare, "uninstall")
    for kept in (
        "/etc/autokmod",
        "/var/lib/autokmod",
        "/boot/initrd.img-6.1.0-1.autokmod-previous",
        "place for 6.1.0-1",
    ):
        assert kept in said
    assert own.exists()
    assert (bare.path / "usr/lib/depmod.d/autokmod.conf").exists(), "links are still looked for"
    assert b"autokmod" not in catalog.read_bytes()
    run_make(bare, "purge")
    left = files(bare.path / "usr") | {f"etc/{f}" for f in files(bare.path / "etc")}
    assert left - before == set()
    assert not any(map(os.path.lexists, (own, bare.paths.modulesd("6.1.0-1"), bare.paths.etc, bare.paths.state)))
    assert not list(bare.paths.boot.iterdir())


def test_uninstall_where_python_is_broken(bare: RealRoot) -> None:
    run_make(bare, "install")
    for name in ("adopted", "bootguard"):
        (bare.paths.state / f"{name}.json").write_text("{}")
    (bare.path / "usr/lib/autokmod/python/autokmod/errors.py").write_text("raise SystemExit(1)\n")
    said = run_make(bare, "uninstall")
    assert "DKMS is still masked: see /var/lib/autokmod/adopted.json" in said
    assert "the boot loader's default may be another than you chose: see /var/lib/autokmod/bootguard.json" in said
    assert not (bare.path / "usr/bin/autokmodctl").exists()
