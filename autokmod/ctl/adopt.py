"""adopt, release: who builds the packages of DKMS."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

from autokmod.act.adopt import Handover, adopt, preview_adopt, preview_release, release
from autokmod.ctl.bootguard import BOOT_GUARD, release_boot_guard
from autokmod.ctl.jobs import WHY, may_write_spool
from autokmod.ctl.render import clean, reason_lines
from autokmod.ctl.terminal import Output
from autokmod.ctl.view import OK, START_IT, output_of, paths_of
from autokmod.errors import NotAuthorized
from autokmod.jobs.spool import Spool
from autokmod.jsonvalue import to_json
from autokmod.model import Verb
from autokmod.observe.adopted import Mask, find_adopted
from autokmod.observe.machine import is_daemon_running
from autokmod.observe.neighbours import DKMS
from autokmod.paths import Paths


def add_parser(sub: Any) -> None:
    adopting = sub.add_parser(
        "adopt",
        help="take DKMS's packages over",
        description="Mask what makes DKMS build for new kernels and packages, so that autokmod alone does. Upgrades of "
        "DKMS do not bring it back. What DKMS has built stays, and is linked to. "
        "Exit status: 0 also where that was done before; 4 if DKMS is not installed.",
    )
    releasing = sub.add_parser(
        "release",
        help="give back what autokmod has taken",
        description="dkms: undo what 'autokmodctl adopt' did, and tell DKMS of the packages that came since. "
        "boot-guard: put the default boot entry back, and give kernels that are kept out of the boot menu their "
        "entries, though they are not ready. "
        "Exit status: 0 also where there is nothing to give back.",
    )
    for parser, run, names in ((adopting, run_adopt, (DKMS,)), (releasing, run_release, (DKMS, BOOT_GUARD))):
        parser.add_argument("name", metavar="|".join(names), choices=names, help="what it is about")
        parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
        parser.set_defaults(run=run)


def run_adopt(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    was_adopted = find_adopted(paths, args.name) is not None
    if args.dry_run:
        found = preview_adopt(paths, args.name)
    else:
        _must_be_permitted(paths, "adopt DKMS")
        found = adopt(paths, args.name, time.time())
    is_new = bool(found.masks) or not was_adopted
    if is_new and not args.dry_run:
        Spool(paths).add(Verb.RESCAN, "all", WHY)
    if output.json != "off":
        output.data(_json(found, adopted=was_adopted or not args.dry_run, changed=is_new, dry_run=args.dry_run))
        return OK
    output.lines(list(_mask_lines("would mask" if args.dry_run else "masked", found.masks)))
    output.note(_about_adopting(found, was_adopted=was_adopted, dry_run=args.dry_run))
    if is_new and not args.dry_run:
        _tell_queue(paths, output)
    return OK


def _about_adopting(found: Handover, *, was_adopted: bool, dry_run: bool) -> str:
    if was_adopted and not found.masks:
        return "DKMS is adopted already: nothing to do."
    if dry_run:
        return "Nothing was changed."
    again = "DKMS is adopted already; what had come back is masked again."
    return again if was_adopted else "DKMS is adopted: autokmod alone builds and links its packages from now on."


def _tell_queue(paths: Paths, output: Output) -> None:
    running = is_daemon_running(paths)
    output.note("Queued: a look at every kernel" + ("" if running else f". autokmodd is not running: {START_IT}"))


def run_release(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    if args.name == BOOT_GUARD:
        return release_boot_guard(paths, output, dry_run=args.dry_run)
    if args.dry_run:
        found = preview_release(paths, args.name)
    else:
        _must_be_permitted(paths, "release DKMS")
        found = release(paths, args.name)
    if output.json != "off":
        is_adopted = found is not None and args.dry_run
        handover = found or Handover(args.name, ())
        output.data(_json(handover, adopted=is_adopted, changed=found is not None, dry_run=args.dry_run))
        return OK
    if found is None:
        output.note("DKMS is not adopted: nothing to do.")
        return OK
    output.lines([*_release_lines(found, dry_run=args.dry_run)])
    for reason in found.left:
        output.note("\n".join(reason_lines(reason, output.style, indent="")))
    done = "DKMS is released: it builds for new kernels and packages again."
    output.note("Nothing was changed." if args.dry_run else done)
    return OK


def _release_lines(found: Handover, *, dry_run: bool) -> Iterator[str]:
    yield from _mask_lines("would give back" if dry_run else "gave back", found.masks)
    yield from (f"{'would tell' if dry_run else 'told'} DKMS of {clean(id_)}" for id_ in found.added)


def _mask_lines(word: str, masks: Sequence[Mask]) -> Iterator[str]:
    for mask in masks:
        by = f" (by {mask.made})" if mask.made != mask.path else ""
        yield clean(f"{word} {mask.path}{by}")


def _must_be_permitted(paths: Paths, what: str) -> None:
    """Not over the bus: the service may not write to /etc, and is not to be given that for something so rare."""
    if not may_write_spool(paths):
        raise NotAuthorized(what)


def _json(found: Handover, *, adopted: bool, changed: bool, dry_run: bool) -> dict[str, Any]:
    return {**to_json(found), "adopted": adopted, "changed": changed, "dry_run": dry_run}
