"""GRUB's `test`, where some of what it asks is not known: True, False, or None for what only GRUB can say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

UNKNOWN = "\0"  # what a variable holds, or a part of a word is, of which nothing is known

MAX_WORDS = 100


class IsThere(Protocol):
    def __call__(self, file: str, *, filled: bool) -> bool | None: ...


def evaluate(args: Sequence[str], is_there: IsThere) -> bool | None:
    """-o binds less than -a, as in test(1). What is not understood is unknown."""
    if len(args) > MAX_WORDS:
        return None
    for operator, decided in (("-o", True), ("-a", False)):
        if operator in args[1:]:
            at = len(args) - 1 - list(reversed(args)).index(operator)
            one, two = evaluate(args[:at], is_there), evaluate(args[at + 1 :], is_there)
            if decided in (one, two):
                return decided
            return None if None in (one, two) else not decided
    return _one(list(args), is_there)


def _one(args: list[str], is_there: IsThere) -> bool | None:
    if not args:
        return False
    if args[0] == "!" and len(args) > 1:
        held = _one(args[1:], is_there)
        return None if held is None else not held
    if len(args) == 1:
        return None if args[0] == UNKNOWN else bool(args[0])
    if len(args) == 2:
        return _unary(args[0], args[1], is_there)
    return _compare(*args) if len(args) == 3 else None


def _unary(operator: str, value: str, is_there: IsThere) -> bool | None:
    if operator in ("-n", "-z"):
        return None if value == UNKNOWN else bool(value) == (operator == "-n")
    if operator in ("-f", "-e", "-s", "-d"):
        return is_there(value, filled=operator == "-s")
    return None


def _compare(one: str, operator: str, two: str) -> bool | None:
    if operator not in ("=", "==", "!="):
        return _numbers(one, operator, two)
    if UNKNOWN in one or UNKNOWN in two:
        return None
    return (one == two) == (operator != "!=")


def _numbers(one: str, operator: str, two: str) -> bool | None:
    if not (one.lstrip("-").isdecimal() and two.lstrip("-").isdecimal() and len(one) < 20 > len(two)):
        return None
    a, b = int(one), int(two)
    answers = {"-eq": a == b, "-ne": a != b, "-lt": a < b, "-le": a <= b, "-gt": a > b, "-ge": a >= b}
    return answers.get(operator)
