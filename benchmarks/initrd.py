"""Looking into an initrd, and laying an overlay over it, beside what its generator takes to make it: one table.

    python -m benchmarks.initrd [--runs 5]

As root, on a machine that does nothing else: kernel and headers come from the distribution's archive (see
tests/corpus.py) and stand in a system of overlays. The image is initramfs-tools' own, compressed with zstd, with as
many of the kernel's drivers named in its configuration as make it 60 MiB. Whole processes of Python, start-up
included; the generator runs once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from autokmod.config import Config, InitrdConfig
from autokmod.jobs.engine import Engine
from autokmod.observe.image.contents import read_image
from autokmod.observe.modtree import module_name
from tests import realroot
from tests.corpus import CHECKOUT, Corpus
from tests.system.test_initrd import add_module

SIZE = 60 << 20
GROUPS = ("drivers/net", "drivers/gpu", "drivers/scsi", "drivers/media", "drivers/infiniband", "fs", "net", "sound")
NAME = "rootdrv"
READ = """
import sys
from autokmod.observe.image.carried import read_carried
carried = read_carried(sys.argv[1], sys.argv[2], ["{name}", "ext4", "virtio_blk"])
assert carried.digests, "it has none of these modules"
"""
GOALS = {"read back": (1.5, 200), "overlay": (1.0, None)}  # s, MiB


@dataclass(frozen=True, slots=True)
class Cost:
    wall_s: float
    cpu_s: float
    peak_mib: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs: int = parser.parse_args().runs
    corpus = Corpus()
    krel = corpus.archive.kernels(corpus.archive.flavours()[1])[0]
    with (
        tempfile.TemporaryDirectory() as scratch,
        realroot.made(Path(scratch), corpus, kernels=(krel,)) as root,
    ):
        compare(root, krel, runs)
    return 0


def compare(root: realroot.RealRoot, krel: str, runs: int) -> None:
    add_module(root, NAME)
    place(root, krel)
    image = root.paths.boot / f"initrd.img-{krel}"
    generator = make_image(root, krel, image)
    overlay = Path(root.path) / "tmp/overlay"
    ctl = [sys.executable, "-m", "autokmod.ctl.main", "initrd", "overlay", krel, "--root", str(root.path)]
    costs = {
        "initramfs-tools": [generator],
        "read back": measure([sys.executable, "-c", READ.format(name=NAME), str(image), krel], runs),
        "overlay": measure([*ctl, "-o", str(overlay)], runs),
        "python3 -c pass": measure([sys.executable, "-c", "pass"], runs),
    }
    files = read_image(str(image), lambda _: False).files.values()
    modules, unpacked = sum(".ko" in f.path for f in files), sum(f.size for f in files)
    print(
        f"{krel}: {image.stat().st_size / (1 << 20):.1f} MiB of zstd, {unpacked >> 20} MiB unpacked, {modules} modules"
    )
    print(f"the overlay: {overlay.stat().st_size / (1 << 20):.1f} MiB; {os.cpu_count()} processors, {runs} runs each")
    print(f"{'':<18} {'wall: best':>11} {'median':>10} {'CPU: best':>10} {'peak':>9}  goal")
    for what, found in costs.items():
        print(row(what, found))


def place(root: realroot.RealRoot, krel: str) -> None:
    """Build and place the module; the image comes later."""
    assert root.chroot("depmod", krel).returncode == 0
    config = Config(initrd=InitrdConfig(regenerate=False))
    with closing(Engine(root.paths, config, time.time)) as engine:
        record = engine.reconcile(krel)
    assert all(p.is_good for p in record.placements), record


def make_image(root: realroot.RealRoot, krel: str, image: Path) -> Cost:
    """One full run of the generator, for an image that is large enough."""
    conf = root.path / "etc/initramfs-tools/modules"
    top = root.paths.modulesd(krel) / "kernel"
    for count in range(1, len(GROUPS) + 1):
        names = {module_name(file.name) for group in GROUPS[:count] for file in (top / group).rglob("*.ko*")}
        conf.write_text("".join(f"{name}\n" for name in sorted({*names, NAME})))
        if estimate(top, GROUPS[:count]) >= SIZE:
            break
    start, before = time.perf_counter(), os.times()
    done = root.chroot("mkinitramfs", "-c", "zstd", "-o", f"/boot/{image.name}", krel)
    wall, after = time.perf_counter() - start, os.times()
    assert done.returncode == 0, done.stdout
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall, cpu, 0)


def estimate(top: Path, groups: Iterable[str]) -> int:
    """What these modules come to when zstd has packed them, beside the 30 MiB of a plain image."""
    sizes = (file.stat().st_size for group in groups for file in (top / group).rglob("*.ko*"))
    return (30 << 20) + sum(sizes) * 14 // 100


def measure(command: Sequence[str], runs: int) -> list[Cost]:
    run(command)  # once for the page cache
    return [run(command) for _ in range(runs)]


def run(command: Sequence[str]) -> Cost:
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10)


def row(what: str, costs: Sequence[Cost]) -> str:
    wall, cpu = sorted(c.wall_s for c in costs), min(c.cpu_s for c in costs)
    peak = max(c.peak_mib for c in costs)
    times = (f"{t:.2f} s" for t in (wall[0], statistics.median(wall), cpu))
    return "{:<18} {:>11} {:>10} {:>10} {:>9}  {}".format(
        what, *times, f"{peak} MiB" if peak else "", goal(what, wall[0], peak)
    )


def goal(what: str, wall_s: float, peak_mib: int) -> str:
    if what not in GOALS:
        return ""
    seconds, mib = GOALS[what]
    met = wall_s <= seconds and (mib is None or peak_mib <= mib)
    return f"{seconds} s{f', {mib} MiB' if mib else ''}: {'met' if met else 'MISSED'}"


if __name__ == "__main__":
    raise SystemExit(main())
