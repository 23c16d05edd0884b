"""From TOML's tables to values: what keys there are, and what they may hold, is read from dataclasses.

The hints that count: bool, int, float, str, Literal, `tuple[T, ...]` (a list), a dataclass (a table), `T | None`, and
beside a type AtLeast and OneOrMany. A field without default has to be there. `not_` is the key `not`. A dataclass may
have `problems()`: keys and what is wrong with their values beyond their types. Pure but for reading the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from autokmod.files import open_regular
from autokmod.tomllines import Key, key_lines

T = TypeVar("T")
SIZE_LIMIT = 1 << 20
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Beside the type of a number: what the reader of the files refuses."""

    minimum: float

    def takes(self, value: float) -> bool:
        return value >= self.minimum

    def __str__(self) -> str:
        return f"at least {self.minimum:g}"


@dataclass(frozen=True, slots=True)
class OneOrMany:
    """Beside the type of a list: one item may stand there without brackets."""


class TomlError(Exception):
    """`key` is empty where the text as a whole is no TOML; `line` is 0 where nothing in the text is to blame."""

    def __init__(self, key: Key, why: str, line: int = 0) -> None:
        super().__init__(key, why, line)
        self.key, self.why, self.line = key, why, line

    @property
    def name(self) -> str:
        """As a person would write it: patch[1].when.kernel."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.key)
        return "".join(parts).removeprefix(".")


@dataclass(frozen=True, slots=True)
class Text:
    """A file that is TOML."""

    table: Mapping[str, Any]
    text: str

    def line(self, key: Key) -> int:
        """Of the key, or of what holds it where it is missing."""
        lines = key_lines(self.text)
        while key and key not in lines:
            key = key[:-1]
        return lines.get(key, 0)

    def read(self, cls: type[T], at: Key = (), table: Any = None) -> T:
        """Raises TomlError with its line."""
        try:
            return read_table(cls, self.table if table is None else table, at)
        except TomlError as exc:
            raise TomlError(exc.key, exc.why, exc.line or self.line(exc.key)) from exc


def read_text(path: str | os.PathLike[str]) -> Text:
    """Raises TomlError; OSError travels."""
    with open_regular(path) as f:
        return parse_text(f.read(SIZE_LIMIT + 1))


def parse_text(data: bytes) -> Text:
    if len(data) > SIZE_LIMIT:
        raise TomlError((), f"larger than {SIZE_LIMIT} bytes")
    try:
        text = data.decode()
        return Text(tomllib.loads(text), text.replace("\r\n", "\n"))
    except UnicodeDecodeError as exc:
        raise TomlError((), f"not UTF-8 (at line {_line(data[: exc.start])})") from exc
    except tomllib.TOMLDecodeError as exc:
        why = str(exc).replace("at end of document", f"at line {_line(data)}, the end")
        raise TomlError((), f"not TOML: {why}") from exc
    except RecursionError as exc:
        raise TomlError((), "not TOML: nested too deeply") from exc


def _line(data: bytes) -> int:
    return data.count(b"\n") + 1


# ---- tables --------------------------------------------------------------------------------------


def read_table(cls: type[T], table: Any, at: Key = ()) -> T:
    """Raises TomlError without a line."""
    made: T = cls(**read_fields(cls, table, at))
    for key, why in getattr(made, "problems", tuple)():
        raise TomlError((*at, *key.split(".")), why)
    return made


def read_fields(cls: type, table: Any, at: Key = ()) -> dict[str, Any]:
    """What is there, checked; of a table that may be a part only."""
    if not isinstance(table, dict):
        raise TomlError(at, f"a section, [{TomlError(at, '').name}], expected, not {shown(table)}")
    hints = hints_of(cls)
    for name in table:
        if name not in hints:
            raise TomlError((*at, name), unknown("key", name, hints))
    values = {_field(name): _read(hints[name], value, (*at, name)) for name, value in table.items()}
    _check_complete(cls, table, at)
    return values


def _check_complete(cls: type, table: Mapping[str, Any], at: Key) -> None:
    for field in dataclasses.fields(cls):
        key = _key(field.name)
        if field.default is field.default_factory is dataclasses.MISSING and key not in table:
            raise TomlError((*at, key), f"is missing; {expected(hints_of(cls)[key])} expected")


def _key(field: str) -> str:
    return field.removesuffix("_")


def _field(key: str) -> str:
    return f"{key}_" if key == "not" else key


@cache
def hints_of(cls: type) -> Mapping[str, Any]:
    """Key → type."""
    return {_key(name): hint for name, hint in get_type_hints(cls, include_extras=True).items()}


def table_type(hint: Any) -> type | None:
    """The dataclass that a table, or each item of a list of tables, is to become."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    if get_origin(hint) in (Annotated, tuple, UnionType, Union):
        return next((cls for arg in get_args(hint) if (cls := table_type(arg)) is not None), None)
    return None


def _read(hint: Any, value: Any, at: Key) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated and OneOrMany() in args and not isinstance(value, list):
        return (_read(get_args(args[0])[0], value, at),)
    if origin is Annotated and get_origin(args[0]) is tuple:
        return _read(args[0], value, at)
    if origin in (UnionType, Union):
        return _read(next(a for a in args if a is not NoneType), value, at)
    if origin is tuple and table_type(args[0]) is not None and isinstance(value, list):
        return tuple(_read(args[0], item, (*at, i)) for i, item in enumerate(value))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return read_table(hint, value, at)
    if not _fits(hint, value):
        raise TomlError(at, f"{expected(hint)} expected, not {shown(value)}")
    return tuple(value) if isinstance(value, list) else value


def _fits(hint: Any, value: Any) -> bool:
    args = get_args(hint)
    if get_origin(hint) is Annotated:
        return _fits(args[0], value) and all(a.takes(value) for a in args[1:] if isinstance(a, AtLeast))
    if get_origin(hint) is Literal:
        return any(type(value) is type(a) and value == a for a in args)  # 1 is not true
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(args[0], item) for item in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


# ---- sentences -----------------------------------------------------------------------------------


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown {what}; did you mean {near[0]}?" if near else f"unknown {what}; known: {', '.join(known)}"


def shown(value: Any) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def expected(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated and OneOrMany() in args:
        inner = get_args(args[0])[0]
        return "a text or a list of texts" if inner is str else f"{expected(inner)} or a list of them"
    if origin is Annotated:
        bounds = (f", {a}" for a in args[1:] if isinstance(a, AtLeast))
        return expected(args[0]) + "".join(bounds)
    if origin is Literal:
        return "one of " + ", ".join(shown(a) if isinstance(a, bool) else f'"{a}"' for a in args)
    if origin in (UnionType, Union):
        return expected(next(a for a in args if a is not NoneType))
    if origin is tuple:
        return "a list of texts" if args[0] is str else f"a list, each item {expected(args[0])}"
    return _WORDS.get(hint, "a table")
