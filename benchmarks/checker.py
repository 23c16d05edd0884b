"""The checker beside depmod -E: one symvers, and many modules against one kernel, whole processes.

    python -m benchmarks.checker [--root DIR] [--kernel KREL] [--modules DIR]

--modules is a directory of modules built for external packages; without it, copies of MODULES of the kernel's own
stand in, which import more symbols than most. The kernel must be whole below --root: image and headers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from autokmod.observe.kernels import find_kernels, read_kernel
from autokmod.observe.modtree import SUFFIXES
from autokmod.observe.symvers import read_symvers
from autokmod.paths import Paths

MODULES = 100
RUNS = 7


def main() -> int:
    args = parse_args()
    paths = Paths(Path(os.path.abspath(args.root)))
    krel = args.kernel or next(k.krel for k in find_kernels(paths) if k.kdir and k.image)
    symvers = Path(read_kernel(paths, krel).kdir or "") / "Module.symvers"
    files = find_files(Path(args.modules)) if args.modules else sample(paths.modulesd(krel))
    print(f"{krel}, {len(files)} modules, {RUNS} runs each: median (fastest)")
    tell(f"read {len(read_symvers(symvers))} symbols", measure(lambda: read_symvers(symvers)))
    check = [sys.executable, "-m", "autokmod.ctl.main", "check", "--json", *files, "--kernel", krel]
    tell("autokmodctl check", measure(lambda: run([*check, "--root", str(paths.root)])))
    compared = sum(r["symbols_compared"] for r in json.loads(run([*check, "--root", str(paths.root)]))["results"])
    with tempfile.TemporaryDirectory() as scratch:
        make_tree(Path(scratch), paths, krel, files)
        depmod = ["depmod", "-n", "-a", "-e", "-E", str(symvers), "-C", "/dev/null", "-b", scratch, krel]
        tell("depmod -naeE", measure(lambda: run(depmod)))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(f"{compared} symbols compared; peak memory of any process {peak} MiB")
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="/")
    parser.add_argument("--kernel")
    parser.add_argument("--modules")
    return parser.parse_args()


def find_files(directory: Path) -> list[str]:
    return sorted(str(p) for p in directory.rglob("*") if p.name.endswith(SUFFIXES) and p.is_file())


def sample(modulesd: Path) -> list[str]:
    files = find_files(modulesd / "kernel")
    return files[:: max(1, len(files) // MODULES)][:MODULES]


def make_tree(scratch: Path, paths: Paths, krel: str, files: Sequence[str]) -> None:
    """The same kernel's modules, and ours in updates/: what `depmod -E` has to look at."""
    modulesd = scratch / "lib/modules" / krel
    modulesd.mkdir(parents=True)
    for name in ("kernel", "modules.order", "modules.builtin"):
        (modulesd / name).symlink_to(paths.modulesd(krel) / name)
    (modulesd / "updates").mkdir()
    for file in files:
        shutil.copy(file, modulesd / "updates")


def run(command: Sequence[str]) -> str:
    """autokmodctl's exit status is a verdict."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1, 2) or re.search("Traceback|FATAL", done.stderr):
        raise SystemExit(f"{command[0]}: {done.stderr}")
    return done.stdout


def measure(what: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        what()
        times.append(time.perf_counter() - start)
    return times


def tell(what: str, times: Sequence[float]) -> None:
    print(f"{what:<24} {statistics.median(times) * 1000:8.1f} ms ({min(times) * 1000:.1f})")


if __name__ == "__main__":
    raise SystemExit(main())
