"""A machine that does nothing but insert modules into a real kernel and say what its loader answered.

QEMU without hardware virtualization, a distribution's own kernel image, an initrd of init.c and the modules: one boot
tries hundreds of them. A case that takes the kernel down, or after which nothing more is heard of it, is recorded as
crashed with the console's last words, and the cases after it get a fresh boot.
"""

from __future__ import annotations

import functools
import os
import secrets
import selectors
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autokmod.act.archive import PROGRAM, archive
from tests.vm.protocol import Answer, MachineError, Transcript

HERE = Path(__file__).resolve().parent
# A test run that is killed leaves no machine behind: hence setpriv.
QEMU = (
    *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"),
    *("-machine", "pc", "-accel", "tcg", "-cpu", "qemu64", "-smp", "1", "-display", "none", "-serial", "stdio"),
)
# An oops ends the machine at once; only a dying kernel writes to the console, which belongs to the answers. (Level 0
# would silence even that.)
OPTIONS = "console=ttyS0 quiet loglevel=1 oops=panic panic=-1 log_buf_len=8M nokaslr mitigations=off"
SILENCE_S = 120.0  # nothing is heard for so long: it hangs
BOOT_S = 1200.0  # one boot with all its cases
IDLE_BOOTS = 3  # so many boots in a row may answer nothing
TAIL = 6000
COMPRESSED_FILE = 4  # finit_module's MODULE_INIT_COMPRESSED_FILE: the kernel itself unpacks


@dataclass(frozen=True, slots=True)
class Insertion:
    """One module to insert, by the name that the kernel will know it by."""

    name: str
    data: bytes = field(repr=False)
    keep: bool = False  # leave it for later cases, as in-tree prerequisites are
    flags: int = 0  # of finit_module(2)
    tool: str | None = None  # have this program of the machine's files do it
    suffix: str = ".ko"

    @property
    def path(self) -> str:
        return f"/modules/{zlib.crc32(self.data):08x}{len(self.data):x}/{self.name}{self.suffix}"


@dataclass(frozen=True, slots=True)
class Case:
    id: str  # no blanks
    module: Insertion
    needs: tuple[Insertion, ...] = ()  # inserted before, in this order


@dataclass(frozen=True, slots=True)
class Machine:
    image: Path  # vmlinuz
    krel: str
    options: str = ""  # more for the kernel's command line
    memory_mib: int = 1024
    firmware: tuple[str, ...] = ()  # QEMU's options for another one than its own
    programs: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # absolute path → content


@dataclass(frozen=True, slots=True)
class Session:
    answers: Mapping[str, Answer]  # of every case
    boots: int
    troubles: tuple[str, ...]  # modules that could not be removed, for the most part


def ask(machine: Machine, cases: Sequence[Case]) -> Session:
    """The loader's answer to each case. Raises MachineError."""
    answers: dict[str, Answer] = {}
    boots, idle, troubles = 0, 0, []
    with tempfile.NamedTemporaryFile(prefix="initrd-") as initrd:
        initrd.write(_base(machine, cases))
        size = initrd.tell()
        while todo := [c for c in cases if c.id not in answers]:
            initrd.seek(size)
            initrd.truncate()
            initrd.write(archive({"jobs": _jobs(todo).encode()}))
            initrd.flush()
            transcript = boot(machine, Path(initrd.name))
            answers |= transcript.answers
            troubles += transcript.troubles
            boots, idle = boots + 1, 0 if transcript.answers else idle + 1
            if idle == IDLE_BOOTS:
                raise MachineError(f"{machine.krel} answers nothing: {' '.join(transcript.troubles)}")
    return Session(answers, boots, tuple(troubles))


def boot(machine: Machine, initrd: Path) -> Transcript:
    """Once, as far as it goes."""
    transcript = Transcript(secrets.token_hex(8))
    argv = [*QEMU, *machine.firmware, "-m", f"{machine.memory_mib}M"]
    argv += ["-kernel", str(machine.image), "-initrd", str(initrd)]
    argv += ["-append", f"{OPTIONS} {machine.options} nonce={transcript.nonce}"]
    tail = b""
    for line in output(argv):
        tail = (tail + line + b"\n")[-TAIL:]
        transcript.take(line.decode("utf-8", "surrogateescape").rstrip("\r\n"))
    if transcript.release not in ("", machine.krel):
        raise MachineError(f"{machine.image} is {transcript.release}, not {machine.krel}")
    transcript.end(tail.decode("utf-8", "replace").replace("\r", ""))
    return transcript


def output(argv: Sequence[str]) -> Iterator[bytes]:
    """The program's lines, until it ends, is silent too long or takes too long; then it is gone."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as proc:
        try:
            yield from _lines(proc)
        finally:
            proc.kill()


def _lines(proc: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert proc.stdout is not None
    end, rest = time.monotonic() + BOOT_S, b""
    with selectors.DefaultSelector() as selector:
        selector.register(proc.stdout, selectors.EVENT_READ)
        while selector.select(min(SILENCE_S, max(end - time.monotonic(), 0))):
            data = os.read(proc.stdout.fileno(), 1 << 16)
            if not data:
                break
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
    yield rest


# ---- what is in it ----


def _base(machine: Machine, cases: Iterable[Case]) -> bytes:
    modules = {i.path.lstrip("/"): i.data for c in cases for i in (*c.needs, c.module)}
    programs = {"init": init_program(), **{p.lstrip("/"): data for p, data in machine.programs.items()}}
    return archive(programs, PROGRAM) + archive(modules)


def _jobs(cases: Iterable[Case]) -> str:
    return "".join("\t".join(row) + "\n" for case in cases for row in _rows(case))


def _rows(case: Case) -> Iterator[tuple[str, ...]]:
    for n in case.needs:
        yield "need", case.id, "keep" if n.keep else "free", str(n.flags), n.name, n.path
    m = case.module
    yield ("tool", case.id, m.tool, m.name, m.path) if m.tool else ("test", case.id, str(m.flags), m.name, m.path)


@functools.cache
def init_program() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "init"
        argv = ["gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(HERE / "init.c")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise MachineError(f"init.c does not compile: {done.stderr}")
        return target.read_bytes()
