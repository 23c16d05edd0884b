"""verify: read every module of ours again, and compare with the record and with what depmod picks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autokmod.act.depmod import verify_placed
from autokmod.ctl.render import clean, reason_lines
from autokmod.ctl.terminal import Style
from autokmod.ctl.view import FAILED, OK, output_of, paths_of
from autokmod.errors import FormatError
from autokmod.jsonvalue import to_json
from autokmod.model import KernelRecord, PlacedFile, Reason
from autokmod.observe.kernels import find_kernels, read_kernel
from autokmod.observe.records import read_record
from autokmod.paths import OWN, WEAK, Paths


def add_parser(sub: Any) -> None:
    parser = sub.add_parser(
        "verify",
        help="read the placed modules again and compare",
        description="Compare every module that autokmod placed with what it recorded, and with what depmod picks. "
        "Exit status: 0 if all agrees, 1 if not.",
    )
    parser.add_argument("krels", nargs="*", metavar="KREL", help="the kernels (default: all)")
    parser.set_defaults(run=run_verify)


def run_verify(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    krels = [read_kernel(paths, k).krel for k in args.krels] or [k.krel for k in find_kernels(paths)]
    results = {krel: verify_kernel(paths, krel) for krel in krels}
    if output.json != "off":
        found = [{"krel": k, "files": n, "problems": to_json(problems)} for k, (n, problems) in results.items()]
        output.data({"kernels": found})
    else:
        output.lines([line for krel, result in results.items() for line in _lines(krel, *result, output.style)])
    return FAILED if any(problems for _, problems in results.values()) else OK


def _lines(krel: str, count: int, problems: tuple[Reason, ...], style: Style) -> Iterator[str]:
    files = f"{count} file{'' if count == 1 else 's'}"
    yield f"{clean(krel)}: {files} as recorded" if not problems else f"{clean(krel)}: {files} recorded"
    for problem in problems:
        yield from reason_lines(problem, style, indent="    ")


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
