"""The manual pages: well-formed, complete, and there for whoever names them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autokmod import errors
from autokmod.config import Config, LinkConfig, PackageConfig
from autokmod.ctl.main import make_parser
from autokmod.errors import AutokmodError
from tests.corpus import CHECKOUT

MAN = CHECKOUT / "docs/man"
PAGES = sorted(MAN.iterdir())
CTL = (MAN / "autokmodctl.1").read_text()
DAEMON = (MAN / "autokmodd.8").read_text()
TOML = (MAN / "autokmod.toml.5").read_text().replace(r"\(dq", '"')
COMMON = {"-h", "--help", "--json", "--no-legend", "--no-pager", "-q", "--quiet", "--root"}


def output(*argv: str | Path) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
@pytest.mark.parametrize("linter", ["mandoc -T lint -W warning", "groff -m mdoc -ww -z"])
def test_a_formatter_has_nothing_to_say(linter: str, page: Path) -> None:
    assert output(*linter.split(), page) == ""


def parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each verb with its own; also those below another."""
    below = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield name, parser
    for verb, one in (dict(below[0]) if below else {}).items():
        yield from parsers(one, f"{name} {verb}".strip())


VERBS = dict(parsers(make_parser(["--help"])))


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_entry_with_every_option(verb: str) -> None:
    entries = re.findall(rf"^\.It Cm {verb}(?: .*)?$", CTL, re.M)
    assert len(entries) == 1, verb
    named = {option.removeprefix("-") for option in options(VERBS[verb]) - COMMON}
    assert {word for word in entries[0].split() if word.removeprefix("-") in named or word in named} >= named


def test_no_verb_is_described_that_there_is_not() -> None:
    body = CTL.split(".Ss What stands", 1)[1].split(".Sh OPTIONS", 1)[0]
    named = re.findall(r"^\.It Cm (.+)$", body, re.M)
    assert len(named) == len(VERBS)


def test_options_of_all_verbs_and_exit_statuses() -> None:
    section = CTL.split(".Sh OPTIONS", 1)[1].split(".Sh ENVIRONMENT", 1)[0]
    for option in COMMON | options(make_parser(["--help"])):
        assert re.search(rf"^\.It (.* )?Fl {option.removeprefix('-')}( |$)", section, re.M), option
    known = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, AutokmodError)]
    for code in {cls.exit_code for cls in known} | {0, 3, 130}:
        assert f"\n.It {code}\n" in CTL


def test_every_option_of_the_daemon() -> None:
    said = output(sys.executable, "-m", "autokmod.daemon.main", "--help")
    named = set(re.findall(r"^  (?:-h, )?--([a-z-]+)", said, re.M))
    assert {"oneshot", "flush", "root", "version"} < named
    assert [o for o in sorted(named) if not re.search(rf"^\.It (.* )?Fl -{o}( |$)", DAEMON, re.M)] == []


def shown(values: object) -> list[tuple[str, str]]:
    """Key and default, as TOML has them."""
    assert dataclasses.is_dataclass(values)
    return [(f.name, json.dumps(getattr(values, f.name))) for f in dataclasses.fields(values)]


def sections() -> dict[str, object]:
    config = Config()
    found = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return {name: value for name, value in found.items() if dataclasses.is_dataclass(value)}


@pytest.mark.parametrize("name", sections())
def test_every_key_of_the_configuration_with_its_default(name: str) -> None:
    text = TOML.split(f".Ss [{name}]\n", 1)[1].split("\n.Ss ", 1)[0].split("\n.Sh ", 1)[0]
    described = dict(re.findall(r"^\.It Va (\w+) No = (.+)$", text, re.M))
    wanted = dict(shown(sections()[name]))
    if name == "link":
        every = LinkConfig().same_features
        wanted["same_features"] = "all of them"
        assert set(re.findall(r"^\.Cm ([a-z-]+)", text, re.M)) == set(every)
    assert described == wanted


def test_every_key_of_a_package_with_its_default() -> None:
    text = TOML.split(".Sh PACKAGES\n", 1)[1].split("\n.Sh ", 1)[0]
    assert dict(re.findall(r"^\.It Va (\w+) No = (.+)$", text, re.M)) == dict(shown(PackageConfig()))
    assert set(re.findall(r"^\.Ss \[(\w+)\]$", TOML, re.M)) == set(sections())


def test_make_install_puts_them_where_man_looks(tmp_path: Path) -> None:
    output("make", "-s", "-C", CHECKOUT, "install-man", f"DESTDIR={tmp_path}", "PREFIX=/opt")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {f"opt/share/man/man{p.suffix[1:]}/{p.name}" for p in PAGES}


def test_who_names_a_page_finds_it() -> None:
    texts = [f.read_text() for f in (CHECKOUT / "systemd").iterdir() if f.is_file()]
    named = {match for text in texts for match in re.findall(r"man:(autokmod[\w.]*)\((\d)\)", text)}
    named |= set(re.findall(r"^\.Xr (autokmod\S*) (\d)", "".join(p.read_text() for p in PAGES), re.M))
    assert {f"{name}.{section}" for name, section in named} == {p.name for p in PAGES}
