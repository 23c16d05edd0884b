"""What autokmod recorded of each kernel: /var/lib/autokmod/kernels/KREL.json.

{"format": 1, "krel": …, "updated_at": …, "placements": […], …}: the fields of KernelRecord beside the format number.
"""

from __future__ import annotations

from typing import Any

from autokmod.errors import FormatError
from autokmod.files import read_json
from autokmod.jsonvalue import from_json, to_json
from autokmod.model import KernelRecord
from autokmod.paths import Paths

FORMAT = 1


def record_to_json(record: KernelRecord) -> dict[str, Any]:
    return {"format": FORMAT, **to_json(record)}


def record_from_json(data: Any, path: str) -> KernelRecord:
    """Raises FormatError."""
    if not isinstance(data, dict):
        raise FormatError(path, "an object expected")
    if type(data.get("format")) is not int or data["format"] != FORMAT:
        raise FormatError(path, f"format {data.get('format')!r} is not known, {FORMAT} expected")
    return from_json(KernelRecord, {k: v for k, v in data.items() if k != "format"}, path)


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
