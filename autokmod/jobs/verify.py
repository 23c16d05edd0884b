"""Every module of ours read again, and compared with the record and with what depmod picks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from autokmod.act.depmod import verify_placed
from autokmod.errors import FormatError
from autokmod.model import KernelRecord, PlacedFile, Reason
from autokmod.observe.records import read_record
from autokmod.paths import OWN, WEAK, Paths


def verify_kernel(paths: Paths, krel: str) -> tuple[int, tuple[Reason, ...]]:
    """How many files were compared, and what is wrong."""
    try:
        record = read_record(paths, krel)
    except FormatError as exc:
        return 0, (Reason("record-damaged", str(exc), hint=f"autokmodctl reconcile {krel}"),)
    files = [f for p in (record.placements if record else ()) for f in p.files]
    problems = [*_as_placed(paths, krel, files), *_wrong_links(paths, krel, files)]
    return len(files), (*problems, *_strangers(paths, krel, record))


def _as_placed(paths: Paths, krel: str, files: list[PlacedFile]) -> tuple[Reason, ...]:
    try:
        return verify_placed(paths, krel, files) if files else ()
    except FileNotFoundError as exc:
        return (Reason("no-index", f"{exc.filename} is missing: nothing can be loaded", hint=f"depmod {krel}"),)


def _wrong_links(paths: Paths, krel: str, files: list[PlacedFile]) -> Iterator[Reason]:
    for file in files:
        path = paths.modulesd(krel) / file.path
        target = os.readlink(path) if path.is_symlink() else None
        if target != file.target and os.path.lexists(path):
            yield Reason("link-changed", f"{file.path} leads to {target}, recorded is {file.target}")


def _strangers(paths: Paths, krel: str, record: KernelRecord | None) -> Iterator[Reason]:
    """Modules in our directories that no record knows."""
    known = {f.path for p in (record.placements if record else ()) for f in p.files}
    for base in (OWN, WEAK):
        for path in _files(paths.modulesd(krel) / base):
            where = os.path.relpath(path, paths.modulesd(krel))
            if where not in known:
                yield Reason("not-recorded", f"{where} is not recorded", hint=f"autokmodctl reconcile {krel}")


def _files(directory: Path) -> Iterator[Path]:
    for top, _, names in os.walk(directory):
        yield from (Path(top) / name for name in sorted(names))
