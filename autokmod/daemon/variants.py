"""autokmod's values as D-Bus knows them: a{sv}, as the XML describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gi.repository import GLib


def record(value: Mapping[str, Any]) -> dict[str, Any]:
    """What to_json made of a dataclass, as a{sv}. What is None is left out."""
    return {key: _variant(item) for key, item in value.items() if item is not None}


def _variant(value: Any) -> Any:
    if isinstance(value, bool):
        return GLib.Variant("b", value)
    if isinstance(value, str):
        return GLib.Variant("s", value.encode("utf-8", "replace").decode().replace("\0", "?"))
    if isinstance(value, int):
        return GLib.Variant("t" if value >= 0 else "x", value)
    if isinstance(value, float):
        return GLib.Variant("d", value)
    if isinstance(value, Mapping):
        return GLib.Variant("a{sv}", record(value))
    return _list(value)


def _list(items: list[Any]) -> Any:
    if items and all(isinstance(item, str) for item in items):
        return GLib.Variant("as", items)
    if items and all(isinstance(item, Mapping) for item in items):
        return GLib.Variant("aa{sv}", [record(item) for item in items])
    return GLib.Variant("av", [_variant(item) for item in items])
