"""The order of versions: of kernels for the bounds of a recipe, of packages for "which is the newest".

Never for compatibility: that is decided by facts (decide/compat).

A version is its numbers, then -rc, then the rest: 4.12-rc1 < 4.12 = 4.12.0 < 4.12.0-7 < 4.12.0-7.el9 < 4.12.0-14.
Numbers compare as numbers whatever their length (5.14.0-427 < 5.14.0-1427); a number is newer than a word, as with
rpm; a `~` is older than nothing, as with dpkg and rpm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_UPSTREAM = re.compile(r"(\d+(?:\.\d+)*)(?:[-.~]?rc(\d+))?(.*)", re.DOTALL | re.ASCII)
_PART = re.compile(r"\d+|[A-Za-z]+|~", re.ASCII)
LONGEST = 1000  # characters; int() refuses some thousand digits
FINAL = 1 << 62  # no release candidate

Token = tuple[int, int, str]  # kind (0 tilde, 1 end, 2 word, 3 number), number, word
END: Token = (1, 0, "")


@dataclass(frozen=True, slots=True)
class Version:
    numbers: tuple[int, ...]
    candidate: int  # of -rcN; FINAL for a release
    rest: tuple[Token, ...]

    @property
    def key(self) -> tuple[tuple[int, ...], int, tuple[Token, ...]]:
        significant = len(self.numbers)
        while significant > 1 and self.numbers[significant - 1] == 0:
            significant -= 1
        return self.numbers[:significant], self.candidate, (*self.rest, END)


def parse_version(text: str) -> Version:
    found = _UPSTREAM.match(text[:LONGEST])
    if found is None:
        return Version((0,), FINAL, _tokens(text[:LONGEST]))
    numbers = tuple(int(n) for n in found[1].split("."))
    return Version(numbers, int(found[2]) if found[2] else FINAL, _tokens(found[3]))


def _tokens(text: str) -> tuple[Token, ...]:
    return tuple(_token(part) for part in _PART.findall(text))


def _token(part: str) -> Token:
    if part == "~":
        return (0, 0, "")
    return (3, int(part), "") if part.isdecimal() else (2, 0, part)


def is_older(a: str, b: str) -> bool:
    return parse_version(a).key < parse_version(b).key


def sort_key(text: str) -> tuple[object, ...]:
    """For `sorted` and `max`; versions that compare equal (1.0, 1.0.0) are told apart by their text."""
    return (*parse_version(text).key, text)


def is_at_least(krel: str, bound: str) -> bool:
    """BUILD_EXCLUSIVE_KERNEL_MIN."""
    return not is_older(krel, bound)


def is_at_most(krel: str, bound: str) -> bool:
    """BUILD_EXCLUSIVE_KERNEL_MAX: what the bound does not mention does not count, so 6.1.5-7 is at most 6.1."""
    kernel, limit = parse_version(krel), parse_version(bound)
    if not limit.rest and limit.candidate == FINAL:
        width = len(limit.numbers)
        padded = kernel.numbers + (0,) * width
        return padded[:width] <= limit.numbers
    shortened = Version(kernel.numbers, kernel.candidate, kernel.rest[: len(limit.rest)])
    return shortened.key <= limit.key
