"""Writes what autokmod believes of a kernel: last, after all that it says is true on disk."""

from __future__ import annotations

import contextlib

from autokmod.files import write_json
from autokmod.model import KernelRecord
from autokmod.observe.records import record_to_json
from autokmod.paths import Paths


def write_record(paths: Paths, record: KernelRecord) -> None:
    path = paths.record(record.krel)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record_to_json(record))


def remove_record(paths: Paths, krel: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        paths.record(krel).unlink()
