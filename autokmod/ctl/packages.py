"""list-packages, logs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from autokmod.ctl.explain import find_placement
from autokmod.ctl.render import clean, table
from autokmod.ctl.status import NO_PACKAGES
from autokmod.ctl.view import FAILED, OK, output_of, paths_of
from autokmod.jobs.logs import NoLog, read_log
from autokmod.observe.machine import find_sources


def add_parser(sub: Any) -> None:
    packages = sub.add_parser(
        "list-packages", help="list the packages below /usr/src", description="List the packages below /usr/src."
    )
    packages.set_defaults(run=run_list_packages)
    logs = sub.add_parser(
        "logs", help="show the log of a package's build", description="Show the log of the build that a kernel uses."
    )
    logs.add_argument("package", metavar="PACKAGE")
    logs.add_argument("krel", metavar="KREL")
    logs.set_defaults(run=run_logs)


def run_list_packages(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    sources = find_sources(paths)
    where = {s: paths.inside(paths.usr_src / s.directory) for s in sources}
    if output.json != "off":
        found = [{"name": s.name, "version": s.version, "source": where[s]} for s in sources]
        output.data({"packages": found})
        return OK
    header = ("PACKAGE", "VERSION", "SOURCE") if output.legend and sources else ()
    output.lines(table([(s.name, s.version, where[s]) for s in sources], output.style, header=header))
    if not sources:
        output.note(NO_PACKAGES)
    return OK


def run_logs(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    placement = find_placement(paths, args.package, args.krel)
    try:
        path, text = read_log(paths, args.package, args.krel, placement)
    except NoLog as exc:
        output.note(str(exc))
        return FAILED
    if output.json != "off":
        output.data({"path": str(path), "lines": text.splitlines()})
    else:
        lines = text.splitlines()
        output.lines([clean(line.expandtabs()) for line in lines] if sys.stdout.isatty() else lines)
    return OK
