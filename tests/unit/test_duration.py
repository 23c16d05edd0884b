"""Which package is compiled first."""

from __future__ import annotations

import math

import pytest

from autokmod.decide.duration import UNIT_S, expected_s
from autokmod.model import Build, Package

PACKAGE = Package("p", "2", "/usr/src/p-2", "dkms", "d")


def build(package: str, built_at: float, duration_s: float, *, ok: bool = True) -> Build:
    return Build("k", "s", package, "1", "6.1.0", ok, False, (), (), built_at, duration_s, "")


@pytest.mark.parametrize(
    ("builds", "files", "expected"),
    [
        ((), ("Makefile", "a.c", "b/c.c", "d.S", "e.h"), 3 * UNIT_S),
        ((), ("Makefile", "x.orig.tar.gz"), math.inf),
        ((build("q", 1, 5),), ("a.c",), UNIT_S),
        ((build("p", 1, 5), build("p", 2, 7)), ("a.c",), 7),
        ((build("p", 3, 5), build("p", 2, 7)), ("a.c",), 5),
        ((build("p", 1, 5, ok=False),), ("a.c",), 5),
    ],
)
def test_by_what_it_took_last_or_by_what_there_is_to_compile(
    builds: tuple[Build, ...], files: tuple[str, ...], expected: float
) -> None:
    assert expected_s(PACKAGE, builds, files) == expected
