"""autokmodd, the entry point."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from autokmod import __version__, journal
from autokmod.config import LogLevel
from autokmod.config_load import load_config
from autokmod.daemon.alone import alone
from autokmod.errors import AutokmodError, ConfigError, UsageError
from autokmod.events import Event
from autokmod.paths import Paths

log = journal.get()


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    journal.setup(args.log_level or "info")
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130
    except AutokmodError as exc:
        kind = Event.CONFIG_WRONG if isinstance(exc, ConfigError) else None
        log.error(str(exc), kind=kind)
        return exc.exit_code
    except OSError as exc:
        log.error(str(exc))
        return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="autokmodd",
        description="Keeps out-of-tree kernel modules in place for every kernel of this machine.",
        epilog="With --oneshot: exit status 0 when every kernel is ready, 1 when one is not, 130 after Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"autokmod {__version__}")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--oneshot", action="store_true", help="do what is to be done now, in the foreground, and leave")
    modes.add_argument(
        "--flush", action="store_true", help="while the machine is going down: finish what the next boot needs"
    )
    modes.add_argument(
        "--boot-check", action="store_true", help="build what the running kernel lacks, if it lacks anything"
    )
    modes.add_argument(
        "--leave", action="store_true", help="before autokmod is uninstalled: the boot loader's default is given back"
    )
    parser.add_argument("--root", default="/", metavar="DIR", help="serve the system below DIR")
    parser.add_argument(
        "--kernel", action="append", default=[], metavar="KREL", help="with --oneshot, --boot-check: only this kernel"
    )
    parser.add_argument("--log-level", choices=get_args(LogLevel), help="default: that of the configuration")
    parser.add_argument("--no-bus", action="store_true", help=argparse.SUPPRESS)  # a second daemon, for tests
    args = parser.parse_args(argv)
    if args.kernel and not (args.oneshot or args.boot_check):
        parser.error("--kernel is for --oneshot and --boot-check")
    if args.boot_check and len(args.kernel) > 1:
        parser.error("--boot-check looks at one kernel")
    return args


def _run(args: argparse.Namespace) -> int:
    paths = Paths(_root(args.root))
    if args.leave:  # whatever the configuration says
        from autokmod.daemon.leave import run_leave

        return run_leave(paths)
    config = load_config(paths)
    journal.set_level(args.log_level or config.daemon.log_level)
    _make_directories(paths)
    # Each brings what the other does without: gi and the bus here, nothing but the engine there.
    if args.oneshot:
        from autokmod.daemon.oneshot import run_oneshot

        return run_oneshot(paths, config, args.kernel)
    if args.flush:
        from autokmod.daemon.flush import run_flush

        return run_flush(paths, config)
    if args.boot_check:
        from autokmod.daemon.bootcheck import run_boot_check

        return run_boot_check(paths, config, *args.kernel)
    for number in (signal.SIGTERM, signal.SIGINT):  # until the loop takes them over
        signal.signal(number, lambda *_: sys.exit(0))
    with alone(paths):
        from autokmod.daemon.app import App

        return App(paths, config, log_level=args.log_level, use_bus=not args.no_bus).run()


def _root(text: str) -> Path:
    root = Path(os.path.abspath(text))
    if not root.is_dir():
        raise UsageError(f"--root {text}: no such directory")
    return root


def _make_directories(paths: Paths) -> None:
    for directory in (paths.state, paths.spool, paths.builds, paths.work, paths.kernels, paths.cache):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
