"""What autokmod recorded of each kernel: /var/lib/autokmod/kernels/KREL.json.

{"format": 1, "krel": …, "updated_at": …, "placements": […], …}: the fields of KernelRecord beside the format number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from autokmod.errors import FormatError
from autokmod.files import read_json
from autokmod.jsonvalue import from_json, to_json
from autokmod.model import KernelRecord, PlacedFile, Placement
from autokmod.paths import OWN, WEAK, Paths

FORMAT = 1
NAME_LIMIT = 255  # bytes, Linux's


def record_to_json(record: KernelRecord) -> dict[str, Any]:
    return {"format": FORMAT, **to_json(record)}


def record_from_json(data: Any, path: str) -> KernelRecord:
    """Raises FormatError."""
    if not isinstance(data, dict):
        raise FormatError(path, "an object expected")
    if type(data.get("format")) is not int or data["format"] != FORMAT:
        raise FormatError(path, f"format {data.get('format')!r} is not known, {FORMAT} expected")
    record = from_json(KernelRecord, {k: v for k, v in data.items() if k != "format"}, path)
    for i, placement in enumerate(record.placements):
        for field in _misplaced(placement):
            raise FormatError(path, f"placements[{i}].{field}: nothing of ours can be there")
    return record


def _misplaced(placement: Placement) -> Iterator[str]:
    """Names of files are used as they stand here: one that leads out of its directory is never believed."""
    for i, file in enumerate(placement.files):
        if file.path not in (f"{base}/{placement.package}/{os.path.basename(file.path)}" for base in (OWN, WEAK)):
            yield f"files[{i}].path"
    for name, files in (("files", placement.files), ("beside", placement.beside)):
        yield from (f"{name}[{i}].path" for i, file in enumerate(files) if not _is_sound(file))
    if placement.link_from is not None and not _is_name(placement.link_from):
        yield "link_from"
    yield from (name for name in ("key", "log") if not _is_text(getattr(placement, name) or ""))


def _is_sound(file: PlacedFile) -> bool:
    return all(map(_is_name, file.path.split("/"))) and (file.target is None or _is_text(file.target))


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and "/" not in text and _is_text(text) and len(os.fsencode(text)) <= NAME_LIMIT


def _is_text(text: str) -> bool:
    """Whether the system could have told it: a name from the disk may hold bytes that are no UTF-8."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def read_record(paths: Paths, krel: str) -> KernelRecord | None:
    """None where nothing was recorded yet. Raises FormatError for a damaged one; OSError travels."""
    path = paths.record(krel)
    try:
        data = read_json(path)
    except FileNotFoundError:
        return None
    record = record_from_json(data, str(path))
    if record.krel != krel:
        raise FormatError(str(path), f"krel: the record is of kernel {record.krel!r}")
    return record
