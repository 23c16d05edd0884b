"""autokmodd, the entry point."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from autokmod import __version__, journal
from autokmod.config import LogLevel
from autokmod.config_load import load_config
from autokmod.errors import AutokmodError, ConfigError, UsageError
from autokmod.events import Event
from autokmod.paths import Paths

LOCK_TRIES = 40  # in two seconds: the one before us may be on its way out
LOCK_PAUSE_S = 0.05

log = journal.get()


class AlreadyRunning(AutokmodError):
    def __str__(self) -> str:
        return "another autokmodd is running: see 'systemctl status autokmodd'"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    journal.setup(args.log_level or "info")
    try:
        return _run(args)
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
        epilog="With --oneshot: exit status 0 when every kernel is ready, 1 when one is not.",
    )
    parser.add_argument("--version", action="version", version=f"autokmod {__version__}")
    parser.add_argument(
        "--oneshot", action="store_true", help="do what is to be done now, in the foreground, and leave"
    )
    parser.add_argument("--root", default="/", metavar="DIR", help="serve the system below DIR")
    parser.add_argument(
        "--kernel", action="append", default=[], metavar="KREL", help="with --oneshot: only this kernel"
    )
    parser.add_argument("--log-level", choices=get_args(LogLevel), help="default: that of the configuration")
    parser.add_argument("--no-bus", action="store_true", help=argparse.SUPPRESS)  # a second daemon, for tests
    args = parser.parse_args(argv)
    if args.kernel and not args.oneshot:
        parser.error("--kernel is for --oneshot")
    return args


def _run(args: argparse.Namespace) -> int:
    paths = Paths(_root(args.root))
    config = load_config(paths)
    journal.set_level(args.log_level or config.daemon.log_level)
    _make_directories(paths)
    # Each brings what the other does without: gi and the bus here, nothing but the engine there.
    if args.oneshot:
        from autokmod.daemon.oneshot import run_oneshot

        return run_oneshot(paths, config, args.kernel)
    with _alone(paths):
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


@contextmanager
def _alone(paths: Paths) -> Iterator[None]:
    """Hold the daemon's lock. Two daemons on one machine would do each job twice. Raises AlreadyRunning."""
    paths.daemon_lock.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(paths.daemon_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    for _ in range(LOCK_TRIES):
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
    raise AlreadyRunning


if __name__ == "__main__":
    sys.exit(main())
