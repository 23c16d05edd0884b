"""What autokmodd costs: until it is ready, while it has nothing to do, and in memory.

    python -m benchmarks.daemon [SECONDS]

The real daemon on a private bus, on a whole system with three real kernels, their headers and a small package (as
root). SECONDS: how long it is watched while it has nothing to do, 60 unless given. The targets are printed beside the
figures; the exit status is 1 when one is missed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autokmod.jobs.worker import REST_S
from tests.corpus import Corpus
from tests.dbus.busmachine import Daemon, Machine, running_bus
from tests.mainjob import make_source
from tests.realroot import made

STARTS = 5
READY_S, RESIDENT_MIB = 0.5, 60.0


@contextmanager
def real_machine() -> Iterator[tuple[Machine, tuple[str, ...]]]:
    corpus = Corpus()
    krels = tuple(corpus.trio)
    with (
        tempfile.TemporaryDirectory(prefix="autokmod-bench-") as scratch,
        tempfile.TemporaryDirectory() as place,
        made(Path(scratch), corpus, kernels=krels) as root,
        running_bus(Path(place)) as bus,
    ):
        make_source(root, "plain")  # without any package there would be no reason to read a kernel's symbols
        yield Machine(Path(place) / "machine", bus.address, root.path), krels


def status(pid: int, task: str = "") -> dict[str, str]:
    text = Path(f"/proc/{pid}/{task}status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def switches(pid: int) -> int:
    """How often its threads were woken, all together."""
    tasks = [t.name for t in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(status(pid, f"task/{task}/")["voluntary_ctxt_switches"]) for task in tasks)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def until_idle(machine: Machine, daemon: Daemon, krels: tuple[str, ...]) -> None:
    """At rest: what was kept to be quick is given up a while after the last job."""
    machine.settled(*krels)
    before = -1
    while before != (now := switches(daemon.process.pid)):
        before = now
        time.sleep(REST_S + 2)


def start_s(machine: Machine) -> tuple[float, float]:
    """Until READY=1: by the clock, and of the processor, which tells on a machine that has other work as well."""
    began = time.monotonic()
    with machine.daemon() as daemon:
        return time.monotonic() - began, cpu_s(daemon.process.pid)


def told(what: str, figure: float, unit: str, limit: float) -> bool:
    is_met = figure <= limit
    print(f"{what:<40} {figure:8.2f} {unit:<6} (at most {limit:g}{'' if is_met else ': MISSED'})")
    return is_met


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with real_machine() as (machine, krels):
        with machine.daemon() as daemon:
            until_idle(machine, daemon, krels)
        starts = [start_s(machine) for _ in range(STARTS)]
        with machine.daemon() as daemon:
            until_idle(machine, daemon, krels)
            pid = daemon.process.pid
            resident = int(status(pid)["VmRSS"].split()[0]) / 1024
            wakes, idle = switches(pid), cpu_s(pid)
            time.sleep(seconds)
            wakes, idle = switches(pid) - wakes, cpu_s(pid) - idle
    met = [
        told(f"ready after (median of {STARTS})", statistics.median(wall for wall, _ in starts), "s", READY_S),
        told("processor time until then", statistics.median(used for _, used in starts), "s", READY_S),
        told(f"resident, {len(krels)} kernels known", resident, "MiB", RESIDENT_MIB),
        told(f"wake-ups in {seconds:g} idle seconds", wakes, "", 0),
        told("processor time in these", idle, "s", 0),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
