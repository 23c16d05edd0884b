"""The other services of a system bus, the real ones, on a private bus: with a /run and an /etc of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.dbus.busmachine import CHECKOUT, LIMIT_S, Machine, until

LOGIND = "/lib/systemd/systemd-logind"
# What it writes goes into a /run/systemd that only it sees; of the seats and terminals of this machine it has none.
LOGIND_STAGE = "mount --make-rprivate / && mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && exec "
LOGIN1 = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")


def has_owner(machine: Machine, name: str) -> bool:
    bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    return "true" in machine.busctl("call", *bus, "NameHasOwner", "s", name).stdout


@contextmanager
def running(machine: Machine, name: str, stage: str, program: str) -> Iterator[subprocess.Popen[bytes]]:
    """Until it has its name on the bus. `stage`: shell words that run before it, in a mount namespace of its own."""
    log = machine.directory / f"{name}.log"
    argv = ["unshare", "--mount", "sh", "-c", f"{stage} {program}"]
    with open(log, "wb") as out, subprocess.Popen(argv, env=machine.env(), stdout=out, stderr=out) as process:
        try:
            until(lambda: process.poll() is not None or has_owner(machine, name))
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.terminate()
            process.wait(LIMIT_S)


@contextmanager
def running_logind(machine: Machine) -> Iterator[None]:
    os.makedirs("/run/systemd", exist_ok=True)  # what is mounted over
    with running(machine, LOGIN1[0], LOGIND_STAGE, LOGIND):
        yield


def inhibitors(machine: Machine) -> list[tuple[Any, ...]]:
    """What, who, why, mode."""
    done = machine.busctl("call", *LOGIN1, "ListInhibitors")
    assert done.returncode == 0, done.stderr
    return [tuple(row[:4]) for row in json.loads(done.stdout)["data"][0]]


@contextmanager
def delaying_others(machine: Machine) -> Iterator[None]:
    """Somebody else who wants logind to wait, for as long as logind is willing to."""
    argv = ["systemd-inhibit", "--mode=delay", "--what=shutdown", "--who=test", "cat"]
    with subprocess.Popen(argv, env=machine.env(), stdin=subprocess.PIPE) as process:
        try:
            until(lambda: any(who == "test" for _, who, _, _ in inhibitors(machine)))
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(LIMIT_S)


POLKITD = "/usr/lib/polkit-1/polkitd"
POLKIT = "org.freedesktop.PolicyKit1"
# Our actions and these rules are all that it knows.
POLKIT_STAGE = (
    "mount --make-rprivate / && mount -t tmpfs -o mode=755 none /etc/polkit-1 && mkdir /etc/polkit-1/rules.d && "
    "cp {rules} /etc/polkit-1/rules.d/ && mount -t tmpfs -o mode=755 none /usr/share/polkit-1/actions && "
    "cp {policy} /usr/share/polkit-1/actions/ && exec "
)


@contextmanager
def running_polkitd(machine: Machine, rules: str = "") -> Iterator[None]:
    """`rules`: JavaScript, as in /etc/polkit-1/rules.d."""
    file = machine.directory / "50-test.rules"
    file.write_text(rules)
    policy = CHECKOUT / "systemd/io.github.autokmod.AutoKmod.policy"
    with running(machine, POLKIT, POLKIT_STAGE.format(rules=file, policy=policy), POLKITD):
        yield


@contextmanager
def password_prompt(machine: Machine, pid: int) -> Iterator[int]:
    """polkit's own agent for the process `pid`, at a terminal that nobody sits at: its file descriptor."""
    terminal, inner = os.openpty()
    known, tell = os.pipe()
    argv = ["setsid", "--ctty", "pkttyagent", "--process", str(pid), "--notify-fd", str(tell)]
    with subprocess.Popen(
        argv, env=machine.env(), pass_fds=(tell,), stdin=inner, stdout=inner, stderr=inner
    ) as process:
        os.close(inner)
        os.close(tell)
        try:
            assert os.read(known, 1) == b"", "closed when polkit knows it"
            os.close(known)
            yield terminal
        finally:
            process.terminate()
            process.wait(LIMIT_S)
            os.close(terminal)


@contextmanager
def hearing_inhibit(machine: Machine) -> Iterator[Path]:
    """The file into which every call of logind's Inhibit is written."""
    seen = machine.directory / "seen"
    argv = ["busctl", "--system", "monitor", f"--match=member='Inhibit',interface='{LOGIN1[2]}'"]
    with open(seen, "w") as out, subprocess.Popen(argv, env=machine.env(), stdout=out, stderr=out) as monitor:
        try:
            until(lambda: "Monitoring bus" in seen.read_text())
            yield seen
        finally:
            monitor.terminate()
