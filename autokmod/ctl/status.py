"""status, ready, list-kernels: what may be booted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from autokmod.ctl.render import Cell, clean, machine_lines, placement_cell, readiness_cell, reason_lines, remarks, table
from autokmod.ctl.terminal import Output
from autokmod.ctl.view import (
    NOT_READY,
    OK,
    UNKNOWN,
    View,
    output_of,
    paths_of,
    take_view,
    tell_config_error,
    tell_idle_queue,
)
from autokmod.decide.readiness import is_bootable
from autokmod.errors import UnknownKernel, UnknownPackage
from autokmod.jsonvalue import to_json
from autokmod.model import KernelStatus, Placement, Readiness
from autokmod.observe.kernels import is_krel
from autokmod.observe.machine import find_sources
from autokmod.observe.neighbours import find_neighbours
from autokmod.paths import Paths

NO_KERNELS = "No kernels below /lib/modules: nothing to do."
NO_PACKAGES = "No packages below /usr/src: nothing to do."


def add_parser(sub: Any) -> None:
    status = sub.add_parser(
        "status",
        help="show every kernel and what stands in it",
        description="Show every kernel and its packages, or one of them. "
        "Exit status: 0 if all is ready, 3 if something is not, 4 if there is no such kernel or package.",
    )
    status.add_argument("what", nargs="?", metavar="KREL|PACKAGE", help="only this kernel, or this package on each")
    status.set_defaults(run=run_status)
    ready = sub.add_parser(
        "ready",
        help="may I reboot?",
        description="Say whether a kernel may be booted: the one that the next boot takes, or the one that is named. "
        "Where it is not known which that is, whether all may be. Exit status: 0 if so, 3 if not, 4 if there is no "
        "such kernel, or it depends on which of them the next boot takes.",
    )
    which = ready.add_mutually_exclusive_group()
    which.add_argument("krel", nargs="?", metavar="KREL", help="the kernel (default: that of the next boot)")
    which.add_argument("--all", action="store_true", help="every kernel")
    ready.set_defaults(run=run_ready)
    kernels = sub.add_parser("list-kernels", help="list the kernels of this machine", description="List the kernels.")
    kernels.set_defaults(run=run_list_kernels)


# ---- status --------------------------------------------------------------------------------------


def run_status(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    view = take_view(paths)
    if args.what is None:
        code = _tell_machine(paths, view, view.statuses, output, full=False)
    elif any(s.krel == args.what for s in view.statuses):
        code = _tell_machine(paths, view, [view.kernel(args.what)], output, full=True)
    else:
        code = _tell_package(paths, view, args.what, output)
    tell_idle_queue(view, output)
    return tell_config_error(view, output) or code


def _tell_machine(paths: Paths, view: View, statuses: Sequence[KernelStatus], output: Output, *, full: bool) -> int:
    if output.json != "off":
        neighbours = {} if full else {"neighbours": [to_json(n) for n in find_neighbours(paths)]}
        output.data({**_machine_json(view, statuses), **neighbours})
    else:
        guard = [clean(line) for line in view.guard_lines]
        next_boot_lines = () if full else _next_boot_lines(view, output)
        neighbour_lines = () if full else _neighbour_lines(paths, output)
        kernel_lines = machine_lines(statuses, output.style, full=full)
        output.lines([*kernel_lines, *next_boot_lines, *guard, *neighbour_lines])
        _tell_empty(paths, view, output)
    return OK if all_ready(statuses) else NOT_READY


def _machine_json(view: View, statuses: Sequence[KernelStatus]) -> dict[str, Any]:
    return {
        "kernels": [to_json(s) for s in statuses],
        "jobs": [to_json(j) for j in view.jobs],
        "daemon_running": view.daemon_running,
        "next_boot": to_json(view.next_boot),
        "boot_guard": to_json(view.guard) if view.guard else None,
    }


def _next_boot_lines(view: View, output: Output) -> Iterator[str]:
    """Where no kernel is marked as the one, although there is a choice."""
    taken, reason = view.next_boot, view.next_boot.reason
    if taken.krel is None and len([s for s in view.statuses if is_bootable(s)]) > 1:
        word = "" if taken.is_known else "unknown: "
        yield from reason_lines(replace(reason, text=f"next boot: {word}{reason.text}"), output.style, indent="")


def _neighbour_lines(paths: Paths, output: Output) -> Iterator[str]:
    for neighbour in find_neighbours(paths):
        yield from reason_lines(neighbour.reason, output.style, indent="")


def _tell_empty(paths: Paths, view: View, output: Output) -> None:
    if not view.statuses:
        output.note(NO_KERNELS)
    elif not any(s.placements for s in view.statuses) and not find_sources(paths):
        output.note(NO_PACKAGES)


def all_ready(statuses: Sequence[KernelStatus]) -> bool:
    return all(s.readiness is Readiness.READY for s in statuses if is_bootable(s))


# ---- status PACKAGE ------------------------------------------------------------------------------


def is_named(placement: Placement, wish: str) -> bool:
    """NAME, NAME/VERSION, or the source directory's name."""
    name, version = placement.package, placement.version
    return wish in (name, f"{name}/{version}", f"{name}-{version}")


def _tell_package(paths: Paths, view: View, wish: str, output: Output) -> int:
    chosen = [replace(s, placements=tuple(p for p in s.placements if is_named(p, wish))) for s in view.statuses]
    is_source = any(wish in (s.name, s.id, s.directory) for s in find_sources(paths))
    if not is_source and not any(s.placements for s in chosen):
        raise unknown(wish)
    if output.json != "off":
        output.data(_machine_json(view, chosen))
    else:
        output.lines(_package_lines(wish, chosen, output))
    fine = (s.readiness is Readiness.READY or any(p.is_good for p in s.placements) for s in chosen if is_bootable(s))
    return OK if all(fine) else NOT_READY


def unknown(wish: str) -> Exception:
    """What begins like a kernel release was probably meant as one."""
    return UnknownKernel(wish) if is_krel(wish) and wish[0].isdigit() else UnknownPackage(wish)


def _package_lines(wish: str, statuses: Sequence[KernelStatus], output: Output) -> list[str]:
    bootable = [s for s in statuses if is_bootable(s)]
    header = ("KERNEL", "VERSION", "STATE", "WHY") if output.legend else ()
    return table([_package_row(s) for s in bootable], output.style, header=header)


def _package_row(status: KernelStatus) -> tuple[Cell | str, ...]:
    if not status.placements:
        return (status.krel, "-", "not examined", f"see 'autokmodctl status {status.krel}'")
    placement = status.placements[0]
    why = placement.reasons[0].text if placement.reasons else ""
    return (status.krel, placement.version, placement_cell(placement), why)


# ---- ready ---------------------------------------------------------------------------------------


def run_ready(args: argparse.Namespace) -> int:
    output = output_of(args)
    view = take_view(paths_of(args))
    asked = _asked(view, args.krel, every=args.all)
    good = _verdict([_may_boot(s) for s in asked], is_guess=not (args.krel or args.all or view.next_boot.krel))
    if output.json != "off":
        data = {"ready": good, "next_boot": to_json(view.next_boot), "kernels": [to_json(s) for s in asked]}
        output.data(data)
    else:
        output.lines([line for status in asked for line in _ready_lines(status, output)])
        if not asked:
            output.note(NO_KERNELS)
        if good is None:
            output.note(f"which of them the next boot takes is not known: {clean(view.next_boot.reason.text)}")
    tell_idle_queue(view, output)
    return tell_config_error(view, output) or (UNKNOWN if good is None else OK if good else NOT_READY)


def _asked(view: View, krel: str | None, *, every: bool) -> list[KernelStatus]:
    """Raises UnknownKernel."""
    wanted = krel or (None if every else view.next_boot.krel)
    return [view.kernel(wanted)] if wanted else [s for s in view.statuses if is_bootable(s)]


def _may_boot(status: KernelStatus) -> bool:
    return status.readiness is Readiness.READY and is_bootable(status)


def _verdict(answers: Sequence[bool], *, is_guess: bool) -> bool | None:
    """None: they differ, and whose counts is not known."""
    return None if is_guess and any(answers) and not all(answers) else all(answers)


def _ready_lines(status: KernelStatus, output: Output) -> list[str]:
    tail = " (next boot)" if status.next_boot else ""
    head = f"{clean(status.krel)}: {status.readiness}{tail}"
    return [head, *(line for reason in status.reasons for line in reason_lines(reason, output.style, indent="    "))]


# ---- list-kernels --------------------------------------------------------------------------------


def run_list_kernels(args: argparse.Namespace) -> int:
    output = output_of(args)
    view = take_view(paths_of(args))
    if output.json != "off":
        output.data({"kernels": [_kernel_json(s) for s in view.statuses]})
        return tell_config_error(view, output)
    header = ("KERNEL", "READINESS", "PACKAGES", "REMARKS") if output.legend and view.statuses else ()
    output.lines(table([_kernel_row(s) for s in view.statuses], output.style, header=header))
    if not view.statuses:
        output.note(NO_KERNELS)
    return tell_config_error(view, output)


def _kernel_json(status: KernelStatus) -> dict[str, Any]:
    return {k: v for k, v in to_json(status).items() if k not in ("placements", "reasons", "booted")}


def _kernel_row(status: KernelStatus) -> tuple[Cell | str, ...]:
    return (status.krel, readiness_cell(status), str(len(status.placements)), remarks(status))
