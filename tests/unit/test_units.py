"""The shipped units, as systemd itself judges them, and the files beside them."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from autokmod.daemon.authorize import Action
from autokmod.daemon.bus import INTERFACE, NAME

SYSTEMD = Path(__file__).parents[2] / "systemd"
WORST_EXPOSURE = 40  # times ten, as `systemd-analyze security` counts; what is left open is explained in the unit


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """As `make install` writes it, with a program that is there."""
    program = tmp_path / "autokmodd"
    shutil.copy("/bin/true", program)
    text = (SYSTEMD / "autokmodd.service").read_text()
    assert "ExecStart=@SBINDIR@/autokmodd" in text
    unit = tmp_path / "autokmodd.service"
    unit.write_text(text.replace("@SBINDIR@", str(tmp_path)))
    return unit


def output(*argv: str | Path) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_systemd_understands_the_unit(unit: Path) -> None:
    assert output("systemd-analyze", "verify", "--man=no", unit) == ""


def test_exposure(unit: Path) -> None:
    argv = ("systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={WORST_EXPOSURE}", unit)
    print(output(*argv))


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
