"""Dataclass ⇄ JSON, driven by the type hints: what the state files, the D-Bus replies and `--json` share.

The hints that count: str, int, float, bool, None, Any, enums of strings, dataclasses, `tuple[T, ...]`,
`Mapping[str, T]` and `X | None`. Reading is strict: a missing key without default, a key that the class does not
have, or a value of another type is a FormatError that names the field. An int passes where a float is meant; a bool
never passes as a number.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from autokmod.errors import FormatError

T = TypeVar("T")
Reader = Callable[[Any], Any]
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
_EXACT = 1 << 53  # the whole numbers that a float holds
_WHOLE = range(-(1 << 63), 1 << 64)  # those that D-Bus can hold


def to_json(value: Any) -> Any:
    """What json.dump understands. Raises TypeError for a value that has no place in JSON."""
    if isinstance(value, Enum):
        return to_json(value.value)
    if value is None or isinstance(value, str | int | float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(v) for v in value]
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def from_json(cls: type[T], data: Any, path: str) -> T:
    """Raises FormatError(path, …) that names the field: `placements[2].files[0].size: a whole number expected`."""
    hint: Any = cls
    try:
        value: T = _reader(hint)(data)
    except _Mismatch as exc:
        field = exc.field.removeprefix(".")
        raise FormatError(path, f"{field}: {exc.what}" if field else exc.what) from exc
    return value


class _Mismatch(Exception):
    """`field` is completed on the way out: no one needs it while all is well."""

    def __init__(self, what: str, field: str = "") -> None:
        super().__init__(what)
        self.what, self.field = what, field


@cache
def _reader(hint: Any) -> Reader:
    """Made once for each type: records hold some thousands of the same few."""
    origin = get_origin(hint)
    if hint is Any:
        return lambda data: data
    if origin in (UnionType, Union):
        return _union_reader(hint)
    if origin is tuple:
        return _tuple_reader(hint)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping_reader(hint)
    if dataclasses.is_dataclass(hint):
        return _dataclass_reader(hint)
    return _enum_reader(hint) if issubclass(hint, Enum) else _plain_reader(hint)


def _union_reader(hint: Any) -> Reader:
    """Only `X | None` has one meaning in JSON."""
    rest = [option for option in get_args(hint) if option is not NoneType]
    if len(rest) != 1:
        raise TypeError(f"{hint} cannot be read from JSON")
    read = _reader(rest[0])
    return lambda data: None if data is None else read(data)


def _tuple_reader(hint: Any) -> Reader:
    args = get_args(hint)
    if len(args) != 2 or args[1] is not Ellipsis:
        raise TypeError(f"{hint}: only tuple[T, ...] can be read from JSON")
    read = _reader(args[0])

    def read_tuple(data: Any) -> tuple[Any, ...]:
        if not isinstance(data, list):
            raise _Mismatch("a list expected")
        values = []
        for item in data:
            try:
                values.append(read(item))
            except _Mismatch as exc:
                exc.field = f"[{len(values)}]{exc.field}"
                raise
        return tuple(values)

    return read_tuple


def _mapping_reader(hint: Any) -> Reader:
    read = _reader(get_args(hint)[1])

    def read_mapping(data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise _Mismatch("an object expected")
        return _read_values(data, dict.fromkeys(data, read))

    return read_mapping


def _dataclass_reader(cls: Any) -> Reader:
    hints = get_type_hints(cls)
    fields = [f for f in dataclasses.fields(cls) if f.init]
    readers = {f.name: _reader(hints[f.name]) for f in fields}
    required = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}

    def read_dataclass(data: Any) -> Any:
        if not isinstance(data, dict):
            raise _Mismatch("an object expected")
        for name in data.keys() - readers.keys():
            raise _Mismatch("not known", f".{name}")
        for name in required - data.keys():
            raise _Mismatch("missing", f".{name}")
        return cls(**_read_values(data, readers))

    return read_dataclass


def _read_values(data: Mapping[str, Any], readers: Mapping[str, Reader]) -> dict[str, Any]:
    values = {}
    for name, value in data.items():
        try:
            values[name] = readers[name](value)
        except _Mismatch as exc:
            exc.field = f".{name}{exc.field}"
            raise
    return values


def _enum_reader(cls: type[Enum]) -> Reader:
    known = ", ".join(str(member.value) for member in cls)

    def read_enum(data: Any) -> Enum:
        try:
            return cls(data)
        except ValueError as exc:
            raise _Mismatch(f"one of {known} expected") from exc

    return read_enum


def _plain_reader(cls: type) -> Reader:
    what = f"{_WORDS[cls]} expected"

    def read_float(data: Any) -> float:
        if type(data) is int and abs(data) <= _EXACT:
            return float(data)
        if type(data) is not float or not math.isfinite(data):
            raise _Mismatch(what)
        return data

    def read_plain(data: Any) -> Any:
        if type(data) is not cls:
            raise _Mismatch(what)
        return data

    def read_whole(data: Any) -> int:
        if type(data) is not int:
            raise _Mismatch(what)
        if data not in _WHOLE:
            raise _Mismatch("a number of at most 64 bits expected")
        return data

    return read_float if cls is float else read_whole if cls is int else read_plain
