"""explain: all that is known of one package on one kernel."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from autokmod.ctl.render import Cell, clean, error_lines, placement_cell, table
from autokmod.ctl.status import is_named
from autokmod.ctl.terminal import Style
from autokmod.ctl.view import FAILED, OK, output_of, paths_of, take_view, tell_config_error
from autokmod.errors import FormatError, UnknownPackage
from autokmod.files import read_json
from autokmod.jsonvalue import from_json, to_json
from autokmod.model import Build, KernelStatus, PlacedFile, Placement, Reason
from autokmod.observe.kernels import read_kernel
from autokmod.observe.machine import find_sources
from autokmod.observe.records import read_record
from autokmod.paths import Paths

MAX_SYMBOLS = 10
LABEL = 10  # columns


def add_parser(sub: Any) -> None:
    parser = sub.add_parser(
        "explain",
        help="say why a package stands in a kernel as it does",
        description="Everything that is known of one package on one kernel: what was decided and why, which symbols "
        "differ, where the modules stand, and what to do.",
    )
    parser.add_argument("package", metavar="PACKAGE", help="NAME or NAME/VERSION")
    parser.add_argument("krel", metavar="KREL")
    parser.add_argument("--all", action="store_true", help="every symbol and every compiler error that was kept")
    parser.set_defaults(run=run_explain)


def run_explain(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    view = take_view(paths)
    status = view.kernel(args.krel)
    placement = next((p for p in status.placements if is_named(p, args.package)), None)
    if placement is None:
        _check_known(paths, args.package)
    if output.json != "off":
        output.data({**_as_json(args, status, placement), "applied": list(_applied(paths, placement))})
    elif placement is None:
        output.lines(_unexamined_lines(args.package, status))
    else:
        applied = _applied(paths, placement)
        output.lines(list(_lines(placement, status, output.style, applied, everything=args.all)))
    return tell_config_error(view, output) or (OK if placement else FAILED)


def find_placement(paths: Paths, package: str, krel: str) -> Placement | None:
    """None where the package was not examined for that kernel. Raises UnknownKernel, UnknownPackage, FormatError."""
    read_kernel(paths, krel)
    record = read_record(paths, krel)
    found = next((p for p in (record.placements if record else ()) if is_named(p, package)), None)
    if found is None:
        _check_known(paths, package)
    return found


def _check_known(paths: Paths, wish: str) -> None:
    if not any(wish in (s.name, s.id, s.directory) for s in find_sources(paths)):
        raise UnknownPackage(wish)


def _as_json(args: argparse.Namespace, status: KernelStatus, placement: Placement | None) -> dict[str, Any]:
    return {
        "package": args.package,
        "krel": status.krel,
        "readiness": str(status.readiness),
        "decision": to_json(placement),
    }


def _unexamined_lines(package: str, status: KernelStatus) -> list[str]:
    return [
        f"{clean(package)} was never examined for {clean(status.krel)}.",
        *(f"    {clean(reason.text)}" for reason in status.reasons),
        f"Do: autokmodctl reconcile {clean(status.krel)} --wait",
    ]


def _applied(paths: Paths, placement: Placement | None) -> tuple[str, ...]:
    """Patches and flags of the build, and why; none where the store does not have it any more."""
    if placement is None or not placement.key:
        return ()
    try:
        manifest = read_json(paths.builds / placement.key / "manifest.json")
        data = manifest.get("build") if isinstance(manifest, dict) else None
        return from_json(Build, data, "manifest.json").applied
    except (OSError, FormatError):
        return ()


def _lines(
    placement: Placement, status: KernelStatus, style: Style, applied: Sequence[str], *, everything: bool
) -> Iterator[str]:
    word = placement_cell(placement)
    head = f"{placement.package}/{placement.version} on {status.krel}"
    yield from table([(Cell(head, "1"), word)], style)
    yield from _because(placement, style, everything=everything)
    if placement.symbols_compared:
        yield _labelled("compared", f"{placement.symbols_compared} symbols")
    if placement.foreign is not None and placement.files:
        origin = placement.foreign
        yield _labelled("made by", f"{origin.owner}, for {origin.krel}; found there in {origin.place}")
    yield from (_labelled("applied" if i == 0 else "", text) for i, text in enumerate(applied))
    yield from _files(placement, status, style)
    if placement.key and (placement.files or placement.log):  # else it is only what a build would be called
        yield _labelled("build", placement.key)
    if placement.log:
        yield _labelled("log", placement.log)
    yield from _errors(placement, style, everything=everything)
    hints = dict.fromkeys(r.hint for r in placement.reasons if r.hint)
    yield from (_labelled("do" if i == 0 else "", hint) for i, hint in enumerate(hints))


def _labelled(label: str, text: str) -> str:
    return f"  {label:<{LABEL}}{clean(text)}"


def _because(placement: Placement, style: Style, *, everything: bool) -> Iterator[str]:
    """The sentences, then the symbols: a sentence that is about one symbol is a line of the table."""
    sentences = [r for r in placement.reasons if not _is_symbol_line(r, placement.reasons)]
    symbols = [r for r in placement.reasons if _is_symbol_line(r, placement.reasons)]
    yield _labelled("decision", str(placement.kind))
    yield from (_labelled("because" if i == 0 else "", r.text) for i, r in enumerate(sentences))
    shown = symbols if everything else symbols[:MAX_SYMBOLS]
    header = ("SYMBOL", "WANTED", "OFFERED", "EXPORTER", "WHAT")
    if shown:
        yield from table([_symbol_row(r) for r in shown], style, header=header, indent=" " * (LABEL + 2))
    if len(shown) < len(symbols):
        yield _labelled("", f"and {len(symbols) - len(shown)} more: --all shows those that were kept")


def _is_symbol_line(reason: Reason, reasons: Sequence[Reason]) -> bool:
    return reason.symbol is not None and reason is not reasons[0]


def _symbol_row(reason: Reason) -> tuple[Cell | str, ...]:
    return (reason.symbol or "", _crc(reason.wanted_crc), _crc(reason.offered_crc), reason.exporter or "-", reason.kind)


def _crc(value: int | None) -> str:
    return f"0x{value:08x}" if value is not None else "-"


def _files(placement: Placement, status: KernelStatus, style: Style) -> Iterator[str]:
    arrow = "→" if style.symbols else "->"
    for i, file in enumerate(placement.files):
        yield _labelled("files" if i == 0 else "", _file_text(file, status, arrow))
    if placement.files:
        yield _labelled("verified", _proof(placement))
    if placement.files and placement.signed_by is not None:
        yield _labelled("signed", f'with "{placement.signed_by.name}" ({placement.signed_by.digest})')


def _proof(placement: Placement) -> str:
    if placement.standing:
        return "no: these files stood there before, and stay until better ones can be placed"
    return "yes: depmod picks these files, with the recorded content" if placement.verified else "no"


def _file_text(file: PlacedFile, status: KernelStatus, arrow: str) -> str:
    path = f"/lib/modules/{status.krel}/{file.path}"
    return f"{path} {arrow} {file.target}" if file.target is not None else path


def _errors(placement: Placement, style: Style, *, everything: bool) -> Iterator[str]:
    if placement.errors:
        limit = len(placement.errors) if everything else 5
        yield _labelled("errors", "the compiler says")
        yield from error_lines(placement, style, indent=" " * (LABEL + 2), limit=limit)
