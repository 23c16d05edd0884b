"""What the boot guard last did, as it was written down: {"format": 1, "hold": …, …}, the fields of GuardState."""

from __future__ import annotations

from typing import Any

from autokmod.errors import FormatError
from autokmod.files import read_json
from autokmod.jsonvalue import from_json, to_json
from autokmod.model import GuardState
from autokmod.paths import Paths

FORMAT = 1


def read_guard(paths: Paths) -> GuardState:
    """Raises FormatError for a damaged one; OSError travels."""
    path = paths.boot_guard
    try:
        data = read_json(path)
    except FileNotFoundError:
        return GuardState()
    if not isinstance(data, dict) or type(data.get("format")) is not int or data["format"] != FORMAT:
        raise FormatError(str(path), f"a state of format {FORMAT} expected")
    return from_json(GuardState, {k: v for k, v in data.items() if k != "format"}, str(path))


def guard_to_json(state: GuardState) -> dict[str, Any]:
    return {"format": FORMAT, **to_json(state)}
