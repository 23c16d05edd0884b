"""The distribution's list of stable symbols: which file is taken, and what may stand in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autokmod.errors import FormatError
from autokmod.observe.stablelist import parse_stablelist, read_stablelist
from autokmod.paths import Paths

LIST = "[rhel9_x86_64_stablelist]\n\t__kmalloc\n\tkfree\n"


@pytest.mark.parametrize(
    ("krel", "taken"),
    [
        ("5.14.0-427.13.1.el9_4.x86_64", "kabi-rhel94/kabi_stablelist_x86_64"),
        ("5.14.0-362.8.1.el9_3.x86_64", "kabi-rhel93/kabi_stablelist_x86_64"),
        ("5.14.0-70.13.1.el9_0.x86_64", None),  # no list of its own, and the newest is another minor's
        ("5.14.0-503.el9.x86_64", "kabi-rhel94/kabi_stablelist_x86_64"),
        ("5.14.0-427.13.1.el9_4.aarch64", None),
        ("4.18.0-425.10.1.el8_7.x86_64", None),  # the newest list is of another major release
        ("6.11.4-301.fc41.x86_64", None),
        ("6.1.0-56-amd64", None),
    ],
)
def test_which_file(tmp_path: Path, krel: str, taken: str | None) -> None:
    modules = tmp_path / "usr/lib/modules"
    for directory in ("kabi-rhel93", "kabi-rhel94"):
        (modules / directory).mkdir(parents=True)
        (modules / directory / "kabi_stablelist_x86_64").write_text(LIST)
    (modules / "kabi-current").symlink_to("kabi-rhel94")
    found = read_stablelist(Paths(tmp_path), krel)
    assert (found and found.path.removeprefix("/usr/lib/modules/")) == taken
    assert found is None or found.symbols == {"__kmalloc", "kfree"}


def test_rhel_8_has_one_for_all_its_minors(tmp_path: Path) -> None:
    modules = tmp_path / "usr/lib/modules"
    for minor, text in (("85", "\tkfree\n"), ("810", "\tkfree\n\tnewer\n")):
        (modules / f"kabi-rhel{minor}").mkdir(parents=True)
        (modules / f"kabi-rhel{minor}" / "kabi_whitelist_x86_64").write_text(text)
    (modules / "kabi-current").symlink_to("/usr/lib/modules/kabi-rhel810")
    found = read_stablelist(Paths(tmp_path), "4.18.0-348.el8_5.x86_64")
    assert found is not None
    assert found.symbols == {"kfree", "newer"}


def test_an_empty_list_is_a_list() -> None:
    assert parse_stablelist(b"[rhel9_x86_64_stablelist]\n", "x") == frozenset()


@pytest.mark.parametrize("line", [b"two words", b"\x7fELF", b"caf\xc3\xa9", b"a\0b"])
def test_what_is_no_symbol(line: bytes) -> None:
    with pytest.raises(FormatError, match=re.escape("x: line 3 is not a symbol")):
        parse_stablelist(b"[list]\n\tgood\n" + line + b"\n", "x")


def test_one_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    file = tmp_path / "usr/lib/modules/kabi-rhel94/kabi_stablelist_x86_64"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\x7fELF\2\1\1\n")
    found = read_stablelist(Paths(tmp_path), "5.14.0-427.13.1.el9_4.x86_64")
    assert found is not None
    assert found.problem is not None
    assert "line 1 is not a symbol" in found.problem
