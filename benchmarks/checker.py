"""The checker beside depmod -E: real packages' modules against one kernel, whole processes, side by side in one run.

    python -m benchmarks.checker [--runs 9]

As root: kernel, headers and packages come from the distribution's archive (see tests/corpus.py), are built once and
kept, and stand in a system of overlays. Both see the same tree and the same symvers; depmod reads all of the kernel's
own modules besides, which the checker need not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autokmod.observe.symvers import read_symvers
from tests import realroot
from tests.corpus import CHECKOUT, Corpus
from tests.vm.matrix import PACKAGES, build_all

# With PACKAGES, all that Debian 12 has and that compiles within a minute or two on its kernel: 95 modules.
MORE = (
    *("apfs-dkms", "ddcci-dkms", "evdi-dkms", "falcosecurity-scap-dkms", "iptables-netflow-dkms", "jool-dkms"),
    "langford-dkms",
)
GOALS = {"autokmodctl check": 0.3, "read symvers": 0.025}  # s


@dataclass(frozen=True, slots=True)
class Cost:
    wall_s: float
    cpu_s: float
    peak_mib: int = 0


def main() -> int:
    args = parse_args()
    corpus = Corpus()
    krel = corpus.archive.kernels(corpus.archive.flavours()[1])[0]
    built = build_all(corpus, {krel: (*PACKAGES, *MORE)})
    with (
        tempfile.TemporaryDirectory() as scratch,
        realroot.made(Path(scratch), corpus, kernels=(krel,)) as root,
    ):
        updates = root.paths.modulesd(krel) / "updates"
        updates.mkdir()
        files = [str(shutil.copy(one.path, updates)) for one in built]
        symvers = root.paths.resolve(root.paths.modulesd(krel) / "build") / "Module.symvers"
        print(f"{krel}: {len(files)} modules of {len({b.package for b in built})} packages, {args.runs} runs each")
        compare(root.path, krel, files, symvers, args.runs)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    return parser.parse_args()


def compare(root: Path, krel: str, files: Sequence[str], symvers: Path, runs: int) -> None:
    ctl = [sys.executable, "-m", "autokmod.ctl.main"]
    check = [*ctl, "check", "--json", "--kernel", krel, "--root", str(root)]
    depmod = ["depmod", "-n", "-a", "-e", "-E", str(symvers), "-C", "/dev/null", "-b", str(root), krel]
    costs = {
        "autokmodctl check": measure(lambda: run([*check, *files]), runs),
        "depmod -naeE": measure(lambda: run(depmod), runs),
        "python3 -c pass": measure(lambda: run([sys.executable, "-c", "pass"]), runs),
        "read symvers": measure(lambda: timed(lambda: read_symvers(symvers)), runs),
    }
    print(f"{'':<24} {'wall: best':>11} {'median':>9}   {'CPU: best':>10} {'median':>9}   {'peak':>9}  goal")
    for what, found in costs.items():
        print(row(what, found))
    ours, theirs = (min(c.wall_s for c in costs[what]) for what in ("autokmodctl check", "depmod -naeE"))
    print(f"depmod takes {theirs / ours:.1f} times as long")
    report(files, json.loads(output([*check, *files]))["results"], output(depmod), len(read_symvers(symvers)))


def report(files: Sequence[str], results: Sequence[dict[str, object]], said: str, symbols: int) -> None:
    verdicts = [str(r["verdict"]) for r in results]
    compared = sum(int(str(r["symbols_compared"])) for r in results)
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in sorted(set(verdicts)))
    print(f"{counts}; {compared} versions compared with {symbols} symbols; depmod warned {said.count('WARNING')} times")
    assert len(results) == len(files)


def measure(what: Callable[[], Cost], runs: int) -> list[Cost]:
    what()  # once for the page cache
    return [what() for _ in range(runs)]


def timed(what: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    what()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def run(command: Sequence[str]) -> Cost:
    """One whole process. autokmodctl's exit status is a verdict."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1, 2):
        raise SystemExit(f"{command[0]} ended with {process.returncode}: {output(command)}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10)


def output(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    if re.search("Traceback|FATAL", done.stderr):
        raise SystemExit(f"{command[0]}: {done.stderr}")
    return done.stdout + done.stderr


def row(what: str, costs: Sequence[Cost]) -> str:
    wall, cpu = sorted(c.wall_s * 1000 for c in costs), sorted(c.cpu_s * 1000 for c in costs)
    peak = max(c.peak_mib for c in costs)
    goal = GOALS.get(what)
    met = "" if goal is None else f"{goal * 1000:.0f} ms: {'met' if wall[0] <= goal * 1000 else 'MISSED'}"
    memory = f"{peak:>5} MiB" if peak else ""
    times = (f"{t:.1f} ms" for t in (wall[0], statistics.median(wall), cpu[0], statistics.median(cpu)))
    return "{:<24} {:>11} {:>9}   {:>10} {:>9}   {:>9}  {}".format(what, *times, memory, met)


if __name__ == "__main__":
    raise SystemExit(main())
