"""A machine with a disk, a power switch and somebody who types commands into it.

QEMU without hardware virtualization. It boots as a boot loader would have it: with a kernel and an initrd that are read
from its own disk, each time anew, so that it comes up with what the system itself installed. A reboot ends QEMU; the
next one is started on the same disk.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.corpus import run
from tests.vmsys.protocol import Answer, MachineError, Words

QEMU = (
    *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"),
    *("-machine", "pc", "-accel", "tcg", "-cpu", "qemu64", "-smp", "2", "-m", "2048M", "-display", "none"),
)
OPTIONS = "root=/dev/vda rw console=ttyS0 quiet mitigations=off panic=-1 systemd.show_status=yes net.ifnames=0"
BOOT_S = 600.0
COMMAND_S = 900.0
LEAVE_S = 1200.0


@dataclass
class Machine:
    scratch: Path
    disk: Path
    others: tuple[Path, ...]  # read-only: vdb, vdc …
    boots: int = 0
    krel: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _words: Words | None = None

    # ---- power

    def power_on(self, krel: str) -> None:
        """Boot this kernel, until somebody answers. Raises MachineError."""
        loaded = self._loaded(krel)
        self.boots += 1
        talk = self.scratch / "talk"
        talk.unlink(missing_ok=True)
        argv = [*QEMU, *self._drives(), *_serial(self.console, talk), *loaded]
        with open(self.scratch / "qemu.log", "ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._words = Words(self._connect(talk))
        greeting = self._words.line(BOOT_S)
        if greeting is None or not greeting.startswith("up "):
            raise MachineError(f"{krel} does not come up: {greeting!r}\n{self.last_words()}")
        self.krel = greeting.removeprefix("up ")
        if self.krel != krel:
            raise MachineError(f"booted {krel}, and it says that it is {self.krel}")

    def reboot(self, into: str, command: str = "systemctl reboot") -> None:
        """Raises MachineError."""
        self.leave(command)
        self.power_on(into)

    def leave(self, command: str = "systemctl poweroff") -> None:
        """Type it, and wait until the machine is off. Raises MachineError."""
        assert self._words is not None
        self._words.say(command)
        try:
            self._wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            raise MachineError(f"it does not go down after {command!r}:\n{self.last_words()}") from None

    def cut_power(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._wait(LEAVE_S)

    def _wait(self, limit_s: float) -> None:
        if self._process is not None:
            self._process.wait(limit_s)
            self._process = None
        if self._words is not None:
            self._words.close()
            self._words = None

    # ---- commands

    def run(self, command: str, *, limit_s: float = COMMAND_S) -> Answer:
        """A line for bash, as root. Raises MachineError if there is no answer."""
        assert self._words is not None, "the machine is off"
        started = time.monotonic()
        answer = self._words.ask(command, limit_s)
        if answer is None:
            raise MachineError(f"no answer to {command!r}:\n{self.last_words()}")
        self._note(command, answer, time.monotonic() - started)
        return answer

    def _note(self, command: str, answer: Answer, took_s: float) -> None:
        with open(self.scratch / "commands.log", "a") as log:
            log.write(f"$ {command}    # {took_s:.1f} s, status {answer.status}\n{answer.output}\n")

    # ---- what it is made of

    @property
    def is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def console(self) -> Path:
        return self.scratch / f"console-{self.boots}.log"

    def last_words(self) -> str:
        return self.console.read_text(errors="replace")[-6000:] if self.console.exists() else "(no console)"

    def _drives(self) -> Iterator[str]:
        yield from ("-drive", f"file={self.disk},format=raw,if=virtio,cache=unsafe")
        for other in self.others:
            yield from ("-drive", f"file={other},format=raw,if=virtio,readonly=on")

    def _loaded(self, krel: str) -> tuple[str, ...]:
        """QEMU's options. Raises MachineError."""
        kernel, initrd = self._read_boot(krel)
        return "-kernel", str(kernel), "-initrd", str(initrd), "-append", OPTIONS

    def _read_boot(self, krel: str) -> tuple[Path, Path]:
        """Raises MachineError."""
        kernel, initrd = self.scratch / "vmlinuz", self.scratch / "initrd"
        # After a power cut the newest of it is in the journal, where the kernel would look first and debugfs does not.
        run(["e2fsck", "-p", "-E", "journal_only", str(self.disk)])
        for target, name in ((kernel, f"vmlinuz-{krel}"), (initrd, f"initrd.img-{krel}")):
            target.unlink(missing_ok=True)
            run(["debugfs", "-R", f"dump /boot/{name} {target}", str(self.disk)])
            if not target.exists() or target.stat().st_size == 0:
                raise MachineError(f"there is no /boot/{name} on the disk")
        return kernel, initrd

    def _connect(self, talk: Path) -> socket.socket:
        """QEMU makes the socket early in its start."""
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(str(talk))
            except OSError:
                sock.close()
                time.sleep(0.05)
            else:
                return sock
        raise MachineError(f"QEMU does not start: {(self.scratch / 'qemu.log').read_text(errors='replace')[-2000:]}")


def _serial(console: Path, talk: Path) -> Iterator[str]:
    yield from ("-serial", f"file:{console}", "-device", "virtio-serial-pci", "-device", "virtio-rng-pci")
    yield from ("-chardev", f"socket,id=talk,path={talk},server=on,wait=on")
    yield from ("-device", "virtserialport,chardev=talk,name=autokmod.test")


Kind = Callable[[Path, Path, tuple[Path, ...]], Machine]


@contextmanager
def machine(scratch: Path, disk: Path, others: tuple[Path, ...], kind: Kind = Machine) -> Iterator[Machine]:
    """On a copy of the disk, and off when it is left."""
    copy = scratch / "disk.img"
    run(["cp", "--sparse=always", "--reflink=auto", str(disk), str(copy)], timeout_s=600)
    found = kind(scratch, copy, others)
    try:
        yield found
    finally:
        found.cut_power()
        copy.unlink()
