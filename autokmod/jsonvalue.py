"""Dataclass ⇄ JSON, driven by the type hints: what the state files, the D-Bus replies and `--json` share.

The hints that count: str, int, float, bool, None, Any, enums of strings, dataclasses, `tuple[T, ...]`,
`Mapping[str, T]` and `X | None`. Reading is strict: a missing key without default, a key that the class does not
have, or a value of another type is a FormatError that names the field. An int passes where a float is meant; a bool
never passes as a number.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from autokmod.errors import FormatError

T = TypeVar("T")
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
_EXACT = 1 << 53  # the whole numbers that a float holds


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
    value: T = _read(cls, data, _Where(path, ""))
    return value


@dataclasses.dataclass(frozen=True, slots=True)
class _Where:
    path: str
    field: str

    def key(self, name: str) -> _Where:
        return _Where(self.path, f"{self.field}.{name}" if self.field else name)

    def item(self, index: int) -> _Where:
        return _Where(self.path, f"{self.field}[{index}]")

    def error(self, what: str) -> FormatError:
        return FormatError(self.path, f"{self.field}: {what}" if self.field else what)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _read(hint: Any, data: Any, where: _Where) -> Any:
    if hint is Any:
        return data
    origin = get_origin(hint)
    if origin in (UnionType, Union):
        return _read_union(get_args(hint), data, where)
    if origin is tuple:
        return _read_tuple(get_args(hint), data, where)
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(get_args(hint), data, where)
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, data, where)
    if issubclass(hint, Enum):
        return _read_enum(hint, data, where)
    return _read_plain(hint, data, where)


def _read_union(options: tuple[Any, ...], data: Any, where: _Where) -> Any:
    """Only `X | None` has one meaning in JSON."""
    if data is None and NoneType in options:
        return None
    rest = [o for o in options if o is not NoneType]
    if len(rest) != 1:
        raise TypeError(f"{where.field}: a union of {len(rest)} types cannot be read from JSON")
    return _read(rest[0], data, where)


def _read_tuple(args: tuple[Any, ...], data: Any, where: _Where) -> tuple[Any, ...]:
    if len(args) != 2 or args[1] is not Ellipsis:
        raise TypeError(f"{where.field}: only tuple[T, ...] can be read from JSON")
    if not isinstance(data, list):
        raise where.error("a list expected")
    return tuple(_read(args[0], item, where.item(i)) for i, item in enumerate(data))


def _read_mapping(args: tuple[Any, ...], data: Any, where: _Where) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise where.error("an object expected")
    return {key: _read(args[1], value, where.key(key)) for key, value in data.items()}


def _read_dataclass(cls: Any, data: Any, where: _Where) -> Any:
    if not isinstance(data, dict):
        raise where.error("an object expected")
    hints = _hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for name in data.keys() - fields.keys():
        raise where.key(name).error("not known")
    for name in fields.keys() - data.keys():
        if fields[name].default is dataclasses.MISSING and fields[name].default_factory is dataclasses.MISSING:
            raise where.key(name).error("missing")
    return cls(**{name: _read(hints[name], value, where.key(name)) for name, value in data.items()})


def _read_enum(cls: type[Enum], data: Any, where: _Where) -> Enum:
    try:
        return cls(data)
    except ValueError as exc:
        known = ", ".join(str(member.value) for member in cls)
        raise where.error(f"one of {known} expected") from exc


def _read_plain(cls: type, data: Any, where: _Where) -> Any:
    if cls is float and type(data) is int and abs(data) <= _EXACT:
        return float(data)
    if type(data) is not cls or (isinstance(data, float) and not math.isfinite(data)):
        raise where.error(f"{_WORDS.get(cls, cls.__name__)} expected")
    return data
