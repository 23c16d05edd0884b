"""The order of versions, with the cases that string comparison gets wrong."""

from __future__ import annotations

import itertools

import pytest

from autokmod.versions import is_at_least, is_at_most, is_older, parse_version, sort_key

ASCENDING = (
    "word",
    "2.6.24-16-generic",
    "4.12-rc1",
    "4.12-rc2",
    "4.12-rc10",
    "4.12",
    "4.12.0-7",
    "4.12.0-14",
    "4.12.1",
    "4.18.0-425.3.1.el8.x86_64",
    "4.18.0-425.10.1.el8_7.x86_64",
    "5.14.0-427.el9",
    "5.14.0-427.13.1.el9_4",
    "5.14.0-1427.el9",
    "6.1.0-56-amd64",
    "6.1.0-56-cloud-amd64",
    "6.1.5~bpo1",
    "6.1.5",
    "6.1.5-arch1-1",
    "6.1.10",
    "6.12.117+deb12-amd64",
    "10.0",
)


@pytest.mark.parametrize(("older", "newer"), itertools.combinations(ASCENDING, 2))
def test_ascending(older: str, newer: str) -> None:
    assert is_older(older, newer)
    assert not is_older(newer, older)


@pytest.mark.parametrize(("a", "b"), [("6.1", "6.1.0"), ("6", "6.0.0"), ("4.12-rc1", "4.12.0-rc1"), ("1.0-2", "1-2")])
def test_equal(a: str, b: str) -> None:
    assert parse_version(a).key == parse_version(b).key
    assert not is_older(a, b)
    assert not is_older(b, a)


def test_sort_key_tells_equals_apart() -> None:
    assert sorted(["1.0.0", "1.0", "0.9"], key=sort_key) == ["0.9", "1.0", "1.0.0"]
    assert max(["2.0", "10.0"], key=sort_key) == "10.0"


@pytest.mark.parametrize("text", ["", "-", "\0", "9" * 9999, "6.1." + "0." * 300, "é6", "\u0663.\u0661"])
def test_nonsense_has_an_order_too(text: str) -> None:
    assert is_older(text, "6.1") != is_older("6.1", text) or parse_version(text).key == parse_version("6.1").key


@pytest.mark.parametrize(
    ("krel", "bound", "at_least", "at_most"),
    [
        ("6.1.0-56-amd64", "6.1", True, True),
        ("6.1.5-7", "6.1", True, True),  # what DKMS gets wrong: its 6.1.5 is above 6.1
        ("6.2.0", "6.1", True, False),
        ("6.0.19", "6.1", False, True),
        ("6.10.3", "6.9", True, False),
        ("6.10.3", "6.9.12", True, False),
        ("6", "6.0", True, True),
        ("6.1.0-rc3", "6.1", False, True),
        ("4.12-rc1", "4.12-rc1", True, True),
        ("4.12-rc2", "4.12-rc1", True, False),
        ("5.14.0-427.el9", "5.14.0-1427", False, True),
        ("5.14.0-1427.el9", "5.14.0-427", True, False),
        ("5.14.0-427.13.1.el9_4.x86_64", "5.14.0-427", True, True),
        ("5.14.0-503.el9", "5.14.0-427", True, False),
        ("2.6.24-16-generic", "2.6.24-16", True, True),
    ],
)
def test_bounds(krel: str, bound: str, at_least: bool, at_most: bool) -> None:
    assert is_at_least(krel, bound) is at_least
    assert is_at_most(krel, bound) is at_most
