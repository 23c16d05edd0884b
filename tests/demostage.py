"""The demo's stage: a machine of its own on top of this one, its bus and its daemon, and commands that are shown."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.corpus import CHECKOUT
from tests.realroot import HIDDEN_ETC, HIDDEN_USR, mount, overlay

COVERED = {
    "boot": (),
    "etc": HIDDEN_ETC,
    "tmp": (),
    "usr": HIDDEN_USR,
    "var": ("cache/autokmod", "lib/autokmod", "lib/dkms"),
}
# Without initramfs-tools and the compiler's metapackage, which the demo needs no more than fsync.
DPKG = ("dpkg", "--force-depends", "--force-unsafe-io", "--skip-same-version")
LIMIT_S = 600  # for a busy machine: builds give way to everything else
ENV = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_PAGER": "cat",
    **{k: os.environ[k] for k in ("TERM", "NO_COLOR", "AUTOKMOD_CACHE") if k in os.environ},
}


class DemoFailed(Exception):
    """Something did not come out as this project claims."""


def cover() -> Path:
    """From here on what is written to this machine's own directories goes to a tmpfs, and nothing else can be written.

    The mounts need no taking down: they are this process's own, and go with it.
    """
    mount("-t", "tmpfs", "-o", "mode=755", "autokmod-demo", "/run")
    scratch = Path("/run/autokmod-demo")
    for top, hidden in COVERED.items():
        host = None if top == "boot" else Path("/", top)
        overlay(scratch / top, Path("/", top), hidden=hidden, host=host)
    Path("/tmp").chmod(0o1777)
    mount("-o", "remount,bind,ro", "/")
    if not (CHECKOUT / "Makefile").exists():
        raise DemoFailed(f"{CHECKOUT} is below one of the directories that the demo hides: move it elsewhere")
    # linux-base keeps links to the newest kernels in /, which is this machine's.
    Path("/etc/kernel-img.conf").write_text("do_symlinks = no\n")
    return scratch


@contextlib.contextmanager
def bus(scratch: Path) -> Iterator[None]:
    """This machine's own bus, if it has one, does not see the demo: /run is another here."""
    Path("/run/dbus").mkdir()
    command = ["dbus-daemon", "--system", "--nofork", "--nopidfile", "--print-address"]
    with open(scratch / "bus.log", "wb") as log:
        process = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise DemoFailed(f"dbus-daemon did not start: {(scratch / 'bus.log').read_text()}")
        yield
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def daemon(scratch: Path) -> Iterator[None]:
    """Its log is kept, and shown if the demo fails."""
    print("$ autokmodd &")
    with open(scratch / "daemon.log", "wb") as log:
        process = subprocess.Popen(["autokmodd"], env=ENV, stdout=log, stderr=log)
    try:
        until(lambda: read("status")["daemon_running"] or process.poll() is not None, "the daemon is running")
        if process.poll() is not None:
            raise DemoFailed("autokmodd ended at once")
        yield
    finally:
        process.terminate()
        code = process.wait(timeout=60)
    if code != 0:
        raise DemoFailed(f"autokmodd ended with status {code} on SIGTERM")


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        if time.monotonic() > deadline:
            raise DemoFailed(f"not so: {what}")
        time.sleep(0.1)


# ---- commands -------------------------------------------------------------------------------------


def read(*words: str) -> Any:
    return json.loads(run("autokmodctl", *words, "--json=short"))


def run(*command: str) -> str:
    return subprocess.run(command, env=ENV, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S).stdout


def show(*command: str, expect: int | None = 0) -> None:
    """For people: the command, and what it prints, straight to where they read."""
    print(f"$ {shlex.join(command)}", flush=True)
    code = subprocess.run(command, env=ENV, timeout=LIMIT_S).returncode
    if expect is not None and code != expect:
        raise DemoFailed(f"{shlex.join(command)} ended with status {code}")


def quietly(scratch: Path, *command: str, shown: str | None = None) -> None:
    """What it prints is shown only if it fails."""
    print(f"$ {shown or shlex.join([os.path.basename(c) for c in command])}", end="", flush=True)
    started = time.monotonic()
    with open(scratch / "command.log", "wb") as log:
        code = subprocess.run(command, env=ENV, stdout=log, stderr=log, stdin=subprocess.DEVNULL).returncode
    print(f"    ({time.monotonic() - started:.1f} s)")
    if code != 0:
        show_log(scratch / "command.log")
        raise DemoFailed(f"{command[0]} ended with status {code}")


def tell_time(what: str, took: float, wish: float, when: str) -> None:
    """A busy machine is slow, which is no claim that failed."""
    print(f"{what} {took:.2f} s {when} ({'within' if took <= wish else 'NOT WITHIN'} {wish} s)")


def show_log(path: Path) -> None:
    if path.exists():
        print(f"--- {path.name}\n{path.read_text(errors='replace')[-8000:]}---")


def headline(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)
