"""Which files count, what they may say, and how each mistake is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autokmod.config import Config, DaemonConfig, PackageConfig
from autokmod.config_load import load_config
from autokmod.errors import ConfigError
from autokmod.paths import Paths

ETC, RUN, USR = "etc/autokmod/", "run/autokmod/", "usr/lib/autokmod/"
MAIN, DROP_IN = "autokmod.toml", "autokmod.toml.d/"


def load_all(root: Path, files: dict[str, str]) -> Config:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_text(text)
    return load_config(Paths(root))


def settle(seconds: float) -> str:
    return f"[daemon]\nsettle_s = {seconds}\n"


def test_nothing_on_disk_is_the_defaults(tmp_path: Path) -> None:
    assert load_all(tmp_path, {}) == Config()


PRECEDENCE: list[tuple[str, dict[str, str], float]] = [
    ("vendor alone", {USR + MAIN: settle(1)}, 1),
    ("run before vendor", {USR + MAIN: settle(1), RUN + MAIN: settle(2)}, 2),
    ("etc before all", {USR + MAIN: settle(1), RUN + MAIN: settle(2), ETC + MAIN: settle(4)}, 4),
    ("an empty main file hides the vendor's", {USR + MAIN: settle(1), ETC + MAIN: ""}, 3),
    ("a main file linked to /dev/null hides the vendor's", {USR + MAIN: settle(1), ETC + MAIN: "->/dev/null"}, 3),
    ("a vendor's drop-in comes on top of the administrator's main file",
     {ETC + MAIN: settle(4), USR + DROP_IN + "10-a.toml": settle(5)}, 5),
    ("drop-ins in the order of names, wherever they are",
     {ETC + DROP_IN + "10-a.toml": settle(5), USR + DROP_IN + "20-b.toml": settle(6)}, 6),
    ("a namesake in /etc hides the vendor's",
     {USR + DROP_IN + "10-a.toml": settle(5), ETC + DROP_IN + "10-a.toml": settle(7)}, 7),
    ("a namesake in /run hides the vendor's",
     {USR + DROP_IN + "10-a.toml": settle(5), RUN + DROP_IN + "10-a.toml": settle(8)}, 8),
    ("a link to /dev/null hides",
     {USR + DROP_IN + "10-a.toml": settle(5), ETC + DROP_IN + "10-a.toml": "->/dev/null"}, 3),
    ("an empty file hides", {USR + DROP_IN + "10-a.toml": settle(5), ETC + DROP_IN + "10-a.toml": ""}, 3),
    ("other suffixes and dot files do not count",
     {ETC + DROP_IN + "a.toml~": settle(5), ETC + DROP_IN + ".a.toml": settle(6), ETC + DROP_IN + "README": "x"}, 3),
    ("an absolute link means the same inside the root",
     {"srv/mine.toml": settle(9), ETC + MAIN: "->/srv/mine.toml"}, 9),
]  # fmt: skip


@pytest.mark.parametrize(("files", "seconds"), [p[1:] for p in PRECEDENCE], ids=[p[0] for p in PRECEDENCE])
def test_which_file_counts(tmp_path: Path, files: dict[str, str], seconds: float) -> None:
    assert load_all(tmp_path, files).daemon.settle_s == seconds


def test_keys_of_one_section_may_come_from_several_files(tmp_path: Path) -> None:
    drop_in = '[daemon]\nlog_level = "debug"\n[build]\njobs = 3\n'
    config = load_all(tmp_path, {ETC + MAIN: settle(4), ETC + DROP_IN + "a.toml": drop_in})
    assert config.daemon == DaemonConfig(settle_s=4, log_level="debug")
    assert config.build.jobs == 3


def test_packages(tmp_path: Path) -> None:
    files = {
        ETC + "packages.d/v4l2loopback.toml": 'required = true\nexclude_kernels = ["*-rt-*", "5.*"]\n',
        USR + "packages.d/v4l2loopback.toml": "enabled = false\n",
        USR + "packages.d/dahdi.toml": 'link = "never"\n',
    }
    config = load_all(tmp_path, files)
    wanted = PackageConfig(required=True, exclude_kernels=("*-rt-*", "5.*"))
    assert config.packages == (("dahdi", PackageConfig(link="never")), ("v4l2loopback", wanted))
    assert config.package("v4l2loopback") == wanted
    assert config.package("other") == PackageConfig()


MISTAKES: list[tuple[str, str, str]] = [
    ("[daemon]\nsetle_s = 3\n", "daemon.setle_s", "unknown key; did you mean settle_s?"),
    ("[daemon]\nxyzzy = 3\n", "daemon.xyzzy", "unknown key; known: settle_s, log_level"),
    ("[deamon]\nsettle_s = 3\n", "deamon", "unknown section; did you mean daemon?"),
    ("[packages.a]\nrequired = true\n", "packages", "unknown section"),
    ("settle_s = 3\n", "settle_s", "unknown section"),
    ("daemon = 3\n", "daemon", "a section, [daemon], expected, not 3"),
    ("[[daemon]]\nsettle_s = 3\n", "daemon", "a section, [daemon], expected"),
    ("[daemon]\nsettle_s = '3'\n", "daemon.settle_s", "a number, at least 0 expected, not '3'"),
    ("[daemon]\nsettle_s = -1\n", "daemon.settle_s", "a number, at least 0 expected, not -1"),
    ("[daemon]\nsettle_s = nan\n", "daemon.settle_s", "a number, at least 0 expected, not nan"),
    ("[daemon]\nsettle_s = inf\n", "daemon.settle_s", "a number, at least 0 expected, not inf"),
    ("[daemon]\nsettle_s = true\n", "daemon.settle_s", "a number, at least 0 expected, not true"),
    ("[daemon]\nlog_level = 'loud'\n", "daemon.log_level", 'one of "debug", "info", "notice", "warning", "error"'),
    ("[build]\njobs = 1.5\n", "build.jobs", "a whole number, at least 0 expected, not 1.5"),
    ("[build]\njobs = true\n", "build.jobs", "a whole number, at least 0 expected, not true"),
    ("[build]\ntime_limit_s = 0\n", "build.time_limit_s", "a whole number, at least 1 expected, not 0"),
    ("[build]\nallow_unsandboxed = 1\n", "build.allow_unsandboxed", "true or false expected, not 1"),
    ("[build]\nuser = 7\n", "build.user", "a text expected, not 7"),
    ("[daemon]\nsettle_s =\n", "", "not TOML: Invalid value (at line 2, column 11)"),
    ("[daemon]\nlog_level = 'x", "", "at line 2"),
    ("[daemon]\nsettle_s = [1,\n2,\n", "", "at line 4, the end"),
    ("a = " + "[" * 100_000, "", "not TOML"),
]


@pytest.mark.parametrize(("text", "key", "why"), MISTAKES, ids=[m[2][:40] for m in MISTAKES])
def test_a_mistake_names_file_key_and_reason(tmp_path: Path, text: str, key: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_all(tmp_path, {ETC + DROP_IN + "10-x.toml": text})
    assert caught.value.path == str(tmp_path / ETC / DROP_IN / "10-x.toml")
    assert caught.value.key == key
    assert why in caught.value.why


def test_a_mistake_in_a_package_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"packages.d/evdi.toml:1: requird: unknown key; did you mean required\?"):
        load_all(tmp_path, {ETC + "packages.d/evdi.toml": "requird = true\n"})
    with pytest.raises(ConfigError, match="exclude_kernels: a list of texts expected"):
        load_all(tmp_path, {ETC + "packages.d/evdi.toml": 'exclude_kernels = "6.*"\n'})
    with pytest.raises(ConfigError, match="exclude_kernels: a list of texts expected"):
        load_all(tmp_path, {ETC + "packages.d/evdi.toml": "exclude_kernels = [6]\n"})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    etc = tmp_path / ETC
    etc.mkdir(parents=True)
    (etc / MAIN).write_bytes(b"[daemon]\n# \xff\n")
    with pytest.raises(ConfigError, match=r"not UTF-8 \(at line 2\)"):
        load_config(Paths(tmp_path))
    (etc / MAIN).unlink()
    (etc / MAIN).mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(Paths(tmp_path))
    (etc / MAIN).rmdir()
    os.symlink(MAIN, etc / MAIN)
    with pytest.raises(ConfigError, match="cannot be read: too many levels of symbolic links"):
        load_config(Paths(tmp_path))
    (etc / MAIN).unlink()
    os.symlink("nowhere.toml", etc / MAIN)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(Paths(tmp_path))


def test_a_masked_file_may_be_wrong(tmp_path: Path) -> None:
    files = {USR + DROP_IN + "a.toml": "not TOML", ETC + DROP_IN + "a.toml": settle(2)}
    assert load_all(tmp_path, files).daemon.settle_s == 2


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ('"overlay"', "overlay")])
def test_initrd_of_a_package(tmp_path: Path, text: str, value: object) -> None:
    config = load_all(tmp_path, {ETC + "packages.d/pkg.toml": f"initrd = {text}\n"})
    assert config.package("pkg").initrd == value


@pytest.mark.parametrize("text", ["1", '"yes"', '"true"'])
def test_initrd_of_a_package_is_one_of_three(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match='one of false, true, "overlay" expected'):
        load_all(tmp_path, {ETC + "packages.d/pkg.toml": f"initrd = {text}\n"})
