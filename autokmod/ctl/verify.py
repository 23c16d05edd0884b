"""verify: read every module of ours again, and compare with the record and with what depmod picks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from autokmod.ctl.render import clean, reason_lines
from autokmod.ctl.terminal import Style
from autokmod.ctl.view import FAILED, OK, output_of, paths_of
from autokmod.jobs.verify import verify_kernel
from autokmod.jsonvalue import to_json
from autokmod.model import Reason
from autokmod.observe.kernels import find_kernels, read_kernel


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
