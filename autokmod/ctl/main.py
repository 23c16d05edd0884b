"""autokmodctl: what an administrator types. Verbs, options, colours and exit codes follow systemctl."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from autokmod import __version__
from autokmod.errors import AutokmodError

EPILOG = """\
Exit status: 0 success; 1 failure; 2 wrong usage; 3 something is not ready (status, ready); 4 no such kernel, package or
job, or it depends on the next boot's kernel, which is not known (ready); 69 autokmodd does not answer; 78 the
configuration is wrong; 130 Ctrl-C.
"""
# Each verb's module, in the order in which help lists them. Only what is asked for is loaded: it is most of start-up.
VERBS = dict.fromkeys(("status", "ready", "list-kernels"), "status") | {"explain": "explain"}
VERBS |= dict.fromkeys(("list-packages", "logs"), "packages")
VERBS |= dict.fromkeys(("list-jobs", "reconcile", "retry", "cancel", "wait"), "jobs")
VERBS |= {name: name for name in ("watch", "check", "verify", "build", "gc", "key", "initrd")}
VERBS |= {"adopt": "adopt", "release": "adopt", "new": "recipes", "lint": "recipes"}
DEFAULT = "status"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    _harden_streams()
    try:
        args = make_parser(arguments).parse_args(_with_json_default(arguments))
        code: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    except AutokmodError as exc:
        print(f"autokmodctl: {exc}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:  # of --help: whoever asked for it has read enough
        _discard()
        return 0
    except SystemExit:  # argparse's own
        _flush()
        raise
    except OSError as exc:
        print(f"autokmodctl: {exc.filename or 'error'}: {exc.strerror}", file=sys.stderr)
        return 1
    return code


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autokmodctl",
        description="Show and steer what autokmod does with out-of-tree kernel modules. Without a verb: status.",
        epilog=EPILOG,
        parents=[_common_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"autokmod {__version__}")
    parser.set_defaults(json="off", legend=True, pager=True, quiet=False, root="/", what=None, run=_run_default)
    sub = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=_verb_class())
    for module in _modules(arguments):
        _load(module).add_parser(sub)
    return parser


def _modules(arguments: Sequence[str]) -> Sequence[str]:
    """Where no verb is named, all, to list them; but none that may be meant is missing."""
    named = [VERBS[a] for a in arguments if a in VERBS]
    is_plain = all(a.startswith("-") and a not in ("-h", "--help") for a in arguments)
    return tuple(dict.fromkeys(named or ([VERBS[DEFAULT]] if is_plain else VERBS.values())))


def _load(module: str) -> Any:
    return importlib.import_module(f"autokmod.ctl.{module}")


def _run_default(args: argparse.Namespace) -> int:
    code: int = _load(VERBS[DEFAULT]).run_status(args)
    return code


def _common_options() -> argparse.ArgumentParser:
    """Accepted before and after the verb: a verb's default must not undo what stood before it."""
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = options.add_argument_group("common options")
    group.add_argument(
        "--json",
        choices=("short", "pretty", "off", "auto"),
        metavar="short|pretty|off",
        help="print JSON (--json alone: pretty on a terminal, else short)",
    )
    group.add_argument("--no-legend", dest="legend", action="store_false", help="print no headings")
    group.add_argument("--no-pager", dest="pager", action="store_false", help="do not start a pager")
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors: the exit status tells")
    group.add_argument("--root", metavar="DIR", help="look at the system below DIR")
    return options


def _verb_class() -> type[argparse.ArgumentParser]:
    common = _common_options()  # not the main parser's: setting its defaults changes the options themselves

    class Verb(argparse.ArgumentParser):
        def __init__(self, **kwargs: object) -> None:
            super().__init__(parents=[common], conflict_handler="resolve", **kwargs)  # type: ignore[arg-type]

    return Verb


def _with_json_default(arguments: Sequence[str]) -> list[str]:
    """`--json` alone must not swallow the word after it."""
    return ["--json=auto" if a == "--json" else a for a in arguments]


def _harden_streams() -> None:
    """Names from the disk need not be valid text, and streams need not be there: `autokmodctl ready >&-`."""
    if sys.stdout is None or sys.stderr is None:
        _open_missing()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard()


def _discard() -> None:
    """What is still to be written, at the end."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_missing() -> None:
    """Else the next file that is opened would be what is printed to."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
