"""build: packages for kernels, without placing anything; and a matrix of how that went."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from autokmod import journal
from autokmod.config_load import load_config
from autokmod.ctl.jobs import may_write_spool
from autokmod.ctl.render import BOLD, GREEN, GREY, MAX_ERRORS, RED, YELLOW, Cell, clean, paint, reason_lines, table
from autokmod.ctl.terminal import Output, Style
from autokmod.ctl.view import DETACHED, FAILED, OK, output_of, paths_of
from autokmod.decide.matrix import GOOD, Outcome
from autokmod.decide.matrix import Cell as Field
from autokmod.errors import NotAuthorized, UnknownPackage, UsageError
from autokmod.jobs.gc import Keeper
from autokmod.jobs.look import Looker
from autokmod.jobs.matrix import Matrix
from autokmod.jobs.tokens import TokenPool
from autokmod.jsonvalue import to_json
from autokmod.model import BuildError
from autokmod.observe.kernels import find_kernels, read_kernel
from autokmod.observe.machine import find_sources
from autokmod.paths import Paths
from autokmod.run import Cancel, cancelled_by_signals

COLOURS = {
    Outcome.BUILT: GREEN,
    Outcome.KNOWN: GREEN,
    Outcome.FAILED: RED,
    Outcome.EXCLUDED: GREY,
    Outcome.BLOCKED: YELLOW,
    Outcome.CANCELLED: YELLOW,
}


def add_parser(sub: Any) -> None:
    parser = sub.add_parser(
        "build",
        help="build packages for kernels, and place nothing",
        description="Build packages for kernels without placing anything, and show a matrix of how that went. What is "
        "built goes into the store: a later reconcile does not compile it again. What is there already is known, and "
        "not compiled either. The kernels' headers are enough. "
        "Exit status: 0 if all is built, known or excluded; 1 if not.",
    )
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="NAME, its newest version, or NAME/VERSION")
    parser.add_argument("--kernel", nargs="+", action="extend", default=[], metavar="KREL", help="for these kernels")
    parser.add_argument("--all-kernels", action="store_true", help="for every kernel whose headers are installed")
    parser.add_argument("--all", action="store_true", help="every package")
    parser.add_argument("--force", action="store_true", help="try builds again that failed")
    parser.set_defaults(run=run_build)


def run_build(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    krels = _krels(paths, args)
    names = _packages(paths, args)
    if not may_write_spool(paths):
        raise NotAuthorized("build packages")
    journal.setup("warning", identifier="autokmodctl")
    with cancelled_by_signals() as cancel:
        fields = _build(paths, output, names, krels, cancel, force=args.force)
    _tell(paths, fields, krels, output)
    if cancel.requested:
        return DETACHED
    return OK if all(f.outcome in GOOD for f in fields) else FAILED


def _krels(paths: Paths, args: argparse.Namespace) -> list[str]:
    """Raises UnknownKernel, UsageError."""
    named = [read_kernel(paths, krel).krel for krel in args.kernel]
    found = [k.krel for k in find_kernels(paths) if k.kdir is not None] if args.all_kernels else []
    if not args.kernel and not args.all_kernels:
        raise UsageError("for which kernels? name them with --kernel, or say --all-kernels")
    return list(dict.fromkeys([*named, *found]))


def _packages(paths: Paths, args: argparse.Namespace) -> list[str]:
    """None: all. Raises UnknownPackage, UsageError."""
    if not args.packages and not args.all:
        raise UsageError("which packages? name them, or say --all")
    known = {name for source in find_sources(paths) for name in (source.name, source.id)}
    for name in args.packages:
        if name not in known:
            raise UnknownPackage(name)
    return [] if args.all else args.packages


def _build(
    paths: Paths, output: Output, names: Sequence[str], krels: Sequence[str], cancel: Cancel, *, force: bool
) -> tuple[Field, ...]:
    config = load_config(paths)
    with closing(TokenPool(config.build.jobs)) as tokens:
        matrix = Matrix(paths, config, Looker(paths, config), tokens, cancel, output.note, names, force)
        fields = matrix.run(krels)
    Keeper(paths, config).keep_small(time.time())
    return fields


# ---- telling -------------------------------------------------------------------------------------


def _tell(paths: Paths, fields: Sequence[Field], krels: Sequence[str], output: Output) -> None:
    if output.json != "off":
        output.data({"kernels": list(krels), "cells": [_as_json(paths, f) for f in fields]})
        return
    lines = list(_matrix(fields, krels, output.style, legend=output.legend))
    output.lines([*lines, *(line for f in fields for line in _explained(paths, f, output.style))])


def _as_json(paths: Paths, field: Field) -> dict[str, Any]:
    return {**to_json(field), "log": paths.inside(field.log) if field.log else None}


def _matrix(fields: Sequence[Field], krels: Sequence[str], style: Style, *, legend: bool) -> Iterator[str]:
    packages = sorted({(f.package, f.version) for f in fields})
    at = {(f.package, f.version, f.krel): f for f in fields}
    rows = [
        [Cell(name), Cell(version), *(_word(at.get((name, version, k))) for k in krels)] for name, version in packages
    ]
    yield from table(rows, style, header=("PACKAGE", "VERSION", *krels) if legend and rows else ())


def _word(field: Field | None) -> Cell:
    if field is None:
        return Cell("-", GREY)
    names = [e.symbol for e in field.errors if e.symbol]
    told = f"{field.outcome}: {names[0]}" if names else str(field.outcome)
    return Cell(
        f"{told} ({field.duration_s:.1f} s)" if field.outcome is Outcome.BUILT else told, COLOURS[field.outcome]
    )


def _explained(paths: Paths, field: Field, style: Style) -> Iterator[str]:
    if field.outcome in (Outcome.BUILT, Outcome.KNOWN):
        return
    yield ""
    yield paint(f"{clean(field.package)}/{clean(field.version)} for {field.krel}: {field.outcome}", BOLD, style)
    for reason in field.reasons:
        yield from reason_lines(reason, style, indent="    ")
    for error in field.errors[:MAX_ERRORS]:
        yield f"    {_error(error, style)}"
    if len(field.errors) > MAX_ERRORS:
        yield f"    and {len(field.errors) - MAX_ERRORS} more"
    if field.log:
        yield f"    log: {paths.inside(field.log)}"


def _error(error: BuildError, style: Style) -> str:
    where = f"{error.file}:{error.line}: " if error.file and error.line else f"{error.file}: " if error.file else ""
    return clean(where) + paint(clean(error.text), RED, style)
