"""Tables to values, and the line of every key."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from autokmod.tomllines import key_lines
from autokmod.tomltable import AtLeast, OneOrMany, TomlError, parse_text, read_table


@dataclass(frozen=True)
class Inner:
    name: str
    size: Annotated[int, AtLeast(1)] = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner
    many: tuple[Inner, ...] = ()
    texts: Annotated[tuple[str, ...], OneOrMany()] = ()
    mode: Literal["a", "b"] = "a"
    maybe: Inner | None = None
    not_: bool = False


def test_a_table_becomes_a_value() -> None:
    text = 'texts = "one"\nnot = true\n[inner]\nname = "x"\n[[many]]\nname = "y"\nsize = 2\n[maybe]\nname = "z"\n'
    assert parse_text(text.encode()).read(Outer) == Outer(
        Inner("x"), (Inner("y", 2),), ("one",), maybe=Inner("z"), not_=True
    )


@pytest.mark.parametrize(
    ("text", "name", "line", "why"),
    [
        ("x = 1\n", "x", 1, "unknown key"),
        ("\ntexts = 1\n", "texts", 2, "a text expected, not 1"),
        ("texts = ['a', 1]\n", "texts", 1, "a list of texts expected"),
        ("inner = 1\n", "inner", 1, "a table expected"),
        ("[inner]\n", "inner.name", 1, "is missing; a text expected"),
        ("[inner]\nnane = 'x'\n", "inner.nane", 2, "did you mean name?"),
        (
            "[inner]\nname = 'x'\n[[many]]\nname = 'a'\n[[many]]\nname = 'b'\nsize = 0\n",
            "many[1].size",
            7,
            "at least 1",
        ),
        ("mode = 'c'\n[inner]\nname = 'x'\n", "mode", 1, 'one of "a", "b" expected'),
        ("many = [\n {name = 'a'},\n {name = 1},\n]\n[inner]\nname = 'x'\n", "many[1].name", 3, "a text expected"),
    ],
)
def test_errors_name_key_and_line(text: str, name: str, line: int, why: str) -> None:
    with pytest.raises(TomlError) as caught:
        parse_text(text.encode()).read(Outer)
    assert (caught.value.name, caught.value.line) == (name, line)
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("data", "why"), [(b"a = \n", "not TOML: Invalid value (at line 1"), (b"\xff", "not UTF-8 (at line 1)")]
)
def test_what_is_no_toml(data: bytes, why: str) -> None:
    with pytest.raises(TomlError) as caught:
        parse_text(data)
    assert why in caught.value.why


def test_no_table_at_all() -> None:
    with pytest.raises(TomlError, match="expected"):
        read_table(Inner, 3)


DOCUMENT = '''# first
title = "a [not] = {a} # table"  # comment
"quoted key" = 1
a.b.c = 3
text = """
[no] table
key = 1
"""
literal = \'\'\'
x = 1\'\'\'
list = [ # comment ]
  1,
  "two, ]",
  { deep = 1,  also.deeper = [ 2 ] },
]

[ table ]
inline = { one = 1, "two" = "}", three = { four = 4 } }

[table.sub]
key = 1979-05-27T07:32:00Z

[[array]]
name = 'x'
  [array.sub]
  of = "first"
  [[array.nested]]
  n = 1
  [[array.nested]]
  n = 2
[[array]]
name = 'y'
[array.sub]
of = "second"
'''
LINES = {
    ("title",): 2,
    ("quoted key",): 3,
    ("a", "b", "c"): 4,
    ("a",): 4,
    ("text",): 5,
    ("literal",): 9,
    ("list",): 11,
    ("list", 0): 12,
    ("list", 1): 13,
    ("list", 2, "deep"): 14,
    ("list", 2, "also", "deeper", 0): 14,
    ("table",): 17,
    ("table", "inline", "three", "four"): 18,
    ("table", "inline", "two"): 18,
    ("table", "sub"): 20,
    ("table", "sub", "key"): 21,
    ("array",): 23,
    ("array", 0): 23,
    ("array", 0, "name"): 24,
    ("array", 0, "sub", "of"): 26,
    ("array", 0, "nested", 0, "n"): 28,
    ("array", 0, "nested", 1, "n"): 30,
    ("array", 1): 31,
    ("array", 1, "name"): 32,
    ("array", 1, "sub", "of"): 34,
}


@pytest.mark.parametrize("key", LINES, ids=str)
def test_lines(key: tuple[str | int, ...]) -> None:
    assert key_lines(DOCUMENT)[key] == LINES[key]


def every_key(value: Any, at: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {k for name, item in inner for k in ({(*at, name)} | every_key(item, (*at, name)))}


def test_every_key_that_tomllib_finds_has_a_line() -> None:
    assert every_key(tomllib.loads(DOCUMENT)) <= set(key_lines(DOCUMENT))


@pytest.mark.parametrize(
    "text", ["a = [1 2", "= 3", "a = {", "[", "a\n\n]]", '"', "a = ]]", "{{{", "[[a]\nb", "a=" + "[" * 9999]
)
def test_the_scanner_ends_whatever_it_reads(text: str) -> None:
    key_lines(text)
