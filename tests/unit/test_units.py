"""The shipped units, as systemd itself judges them, and the files beside them."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from autokmod.daemon.authorize import Action
from autokmod.daemon.bounded import LONGEST_S
from autokmod.daemon.bus import INTERFACE, NAME

SYSTEMD = Path(__file__).parents[2] / "systemd"
WORST_EXPOSURE = 40  # times ten, as `systemd-analyze security` counts; what is left open is explained in the unit


UNITS = ("autokmodd.service", "autokmod-flush.service", "autokmod-boot.service")


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make install` writes them, with a program that is there."""
    place = tmp_path_factory.mktemp("units")
    program = place / "autokmodd"
    shutil.copy("/bin/true", program)
    output("make", "-s", "-C", SYSTEMD.parent, "install-service", "install-man", f"DESTDIR={place}")
    installed = place / "usr/lib/systemd/system"
    assert {f.name for f in installed.iterdir()} >= set(UNITS)
    for unit in installed.iterdir():
        text = unit.read_text()
        assert not re.search(r"@[A-Z]+@", text), "everything is filled in"
        unit.write_text(text.replace("/usr/sbin/autokmodd", str(program)))
    return installed


def output(*argv: str | Path) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_unit(units: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And finds the manual pages that it names."""
    monkeypatch.setenv("MANPATH", str(units.parents[2] / "share/man"))
    assert output("systemd-analyze", "verify", "--man=yes", units / name) == ""


@pytest.mark.parametrize("name", UNITS)
def test_exposure(units: Path, name: str) -> None:
    argv = ("systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={WORST_EXPOSURE}")
    print(output(*argv, units / name))


def values(unit: Path, key: str) -> list[str]:
    return [word for line in re.findall(rf"^{key}=(.*)$", unit.read_text(), re.M) for word in line.split()]


def test_what_runs_at_shutdown_runs_after_all_that_brings_work(units: Path) -> None:
    """Units stop in the reverse order of their start."""
    flush = units / "autokmod-flush.service"
    before = values(flush, "Before")
    assert {"autokmodd.service", "systemd-user-sessions.service", "display-manager.service"} <= set(before)
    assert {"apt-daily-upgrade.service", "unattended-upgrades.service", "packagekit.service"} <= set(before)
    assert values(flush, "After") == ["local-fs.target"]
    assert values(flush, "ExecStart") == []
    assert values(flush, "ExecStop")[1:] == ["--flush"]


def test_what_runs_at_boot_runs_before_the_daemon_and_the_screen(units: Path) -> None:
    boot = units / "autokmod-boot.service"
    assert values(boot, "Before") == ["autokmodd.service", "display-manager.service"]
    assert values(boot, "ExecStart")[1:] == ["--boot-check"]


@pytest.mark.parametrize(("name", "key"), [(UNITS[1], "TimeoutStopSec"), (UNITS[2], "TimeoutStartSec")])
def test_systemd_waits_longer_than_we_work(units: Path, name: str, key: str) -> None:
    """And less than reboot.target does: 30 minutes, then it forces the way."""
    (text,) = values(units / name, key)
    assert text.endswith("min")
    assert LONGEST_S < 60 * int(text.removesuffix("min")) < 1800


def test_everything_that_is_installed_is_enabled(units: Path) -> None:
    preset = (SYSTEMD / "95-autokmod.preset").read_text()
    enabled = {u.name for u in units.iterdir() if "[Install]" in u.read_text()}
    assert enabled == set(re.findall(r"^enable (.+)$", preset, re.M)) == set(UNITS)
    assert f"units='{' '.join(UNITS)}'" in (SYSTEMD / "activate").read_text()


def test_bus_names_agree() -> None:
    activation = (SYSTEMD / f"{NAME}.service").read_text()
    unit = (SYSTEMD / "autokmodd.service").read_text()
    assert f"Name={NAME}\n" in activation
    alias = re.search(r"^SystemdService=(.+)$", activation, re.M)
    assert alias is not None
    assert f"Alias={alias[1]}\n" in unit
    assert f"BusName={NAME}\n" in unit


def test_bus_policy_lets_everybody_read_and_nobody_set() -> None:
    policies = {p.get("context") or p.get("user"): p for p in ET.parse(SYSTEMD / f"{NAME}.conf").getroot()}
    default = [(rule.get("send_interface"), rule.get("send_member")) for rule in policies["default"].iter("allow")]
    assert (INTERFACE, None) in default
    assert {member for interface, member in default if interface == "org.freedesktop.DBus.Properties"} == {
        "Get",
        "GetAll",
    }
    assert [rule.get("own") for rule in policies["root"].iter("allow") if rule.get("own")] == [NAME]
    assert all(rule.get("send_destination") == NAME for p in policies.values() for rule in p if not rule.get("own"))


def test_polkit_knows_every_action() -> None:
    actions = ET.parse(SYSTEMD / "io.github.autokmod.AutoKmod.policy").getroot().iter("action")
    assert sorted(str(a.get("id")) for a in actions) == sorted(Action)


def test_the_build_user_and_the_spool(tmp_path: Path) -> None:
    for directory, name in (("sysusers.d", "sysusers"), ("tmpfiles.d", "tmpfiles")):
        target = tmp_path / "usr/lib" / directory
        target.mkdir(parents=True)
        shutil.copy(SYSTEMD / f"autokmod.{name}", target / "autokmod.conf")
    (tmp_path / "etc").mkdir()
    output("systemd-sysusers", f"--root={tmp_path}", "autokmod.conf")
    assert re.search(
        r"^autokmod-build:x:\d+:\d+:autokmod builds:/:.*nologin$", (tmp_path / "etc/passwd").read_text(), re.M
    )
    output("systemd-tmpfiles", f"--root={tmp_path}", "--create", "autokmod.conf")
    assert (tmp_path / "var/lib/autokmod/spool").stat().st_mode & 0o7777 == 0o755


def test_the_catalog_is_accepted(tmp_path: Path) -> None:
    target = tmp_path / "usr/lib/systemd/catalog"
    target.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(SYSTEMD / "autokmod.catalog", target)
    output("journalctl", "--update-catalog", f"--root={tmp_path}")
    assert "autokmod: " in output("journalctl", "--list-catalog", f"--root={tmp_path}")
