"""gc: remove the stored builds that no kernel uses."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from autokmod import journal
from autokmod.config_load import load_config
from autokmod.ctl.jobs import may_write_spool
from autokmod.ctl.render import Cell, table
from autokmod.ctl.terminal import Style
from autokmod.ctl.view import OK, output_of, paths_of
from autokmod.decide.collect import Removal
from autokmod.errors import NotAuthorized
from autokmod.jobs.gc import MIB, Collection, collect_store, preview_collection
from autokmod.jsonvalue import from_json, to_json
from autokmod.observe.machine import is_daemon_running
from autokmod.paths import Paths


def add_parser(sub: Any) -> None:
    parser = sub.add_parser(
        "gc",
        help="remove stored builds that nothing uses",
        description="Remove the stored builds that no kernel of this machine uses, and what killed builds left behind. "
        "Builds younger than min_age_s of the section [store] stay.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    parser.set_defaults(run=run_gc)


def run_gc(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    found = _preview(paths) if args.dry_run else _collect(paths)
    if output.json != "off":
        output.data({**to_json(found), "freed": found.freed, "dry_run": args.dry_run})
        return OK
    output.lines(list(_lines(found, output.style, legend=output.legend)))
    what = f"{len(found.removed)} of {found.builds + sum(1 for r in found.removed if r.package)} builds"
    word = "Would remove" if args.dry_run else "Removed"
    output.note(f"{word} {what}, {_mib(found.freed)}; {_mib(found.size)} stay.")
    return OK


def _preview(paths: Paths) -> Collection:
    return preview_collection(paths, load_config(paths), time.time())


def _collect(paths: Paths) -> Collection:
    if may_write_spool(paths):
        journal.setup("warning", identifier="autokmodctl")
        return collect_store(paths, load_config(paths), time.time())
    if not is_daemon_running(paths):
        raise NotAuthorized("remove stored builds")
    from autokmod.ctl import client  # gi is slow to import, and missing in small systems

    return from_json(Collection, client.collect_garbage(), "the daemon's answer")


def _lines(found: Collection, style: Style, *, legend: bool) -> Iterator[str]:
    header = ("PACKAGE", "VERSION", "KERNEL", "SIZE", "WHY") if legend and found.removed else ()
    yield from table([_row(r) for r in found.removed], style, header=header)


def _row(removal: Removal) -> tuple[Cell | str, ...]:
    name = removal.package or removal.name
    return (name, removal.version or "-", removal.krel or "-", _mib(removal.size), removal.reason.text)


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"
