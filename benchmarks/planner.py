"""Planning a whole machine: 100 packages on 10 kernels, from a real tree, with warm caches, in one process.

    python -m benchmarks.planner [--packages 100] [--kernels 10]

As root. The kernels are one real kernel and its namesakes: the same files under other releases. The packages are
real ones' sources and modules (tests/vm/matrix.py), those that export nothing several times over under other names.
The engine itself placed everything before: on the first kernel as own files, on the others as links. What is timed is
the look at the disk (jobs/look.py) and the decisions (decide/plan.py) of a machine on which all is right.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autokmod import journal
from autokmod.act.store import new_entry, publish, write_entry_file
from autokmod.config import BuildConfig, Config
from autokmod.decide.buildkey import build_key, source_key
from autokmod.decide.fingerprint import fingerprint
from autokmod.decide.plan import decide_kernel
from autokmod.jobs.engine import Engine
from autokmod.jobs.look import Looker
from autokmod.model import Build, BuiltModule
from autokmod.observe.abi import read_abi
from autokmod.observe.kernels import read_kernel
from autokmod.observe.ko import parse_module
from autokmod.observe.recipe import read_recipe
from autokmod.observe.sources import find_packages
from autokmod.observe.toolchain import read_toolchain
from autokmod.paths import Paths
from benchmarks.checker import MORE
from tests import realroot
from tests.corpus import CHECKOUT, Corpus
from tests.vm.matrix import PACKAGES, build_all

CONFIG = Config(build=BuildConfig(eval_limit_s=60))
GOAL_S, GOAL_MIB = 1.0, 150
ROUNDS = 5
UNLOADABLE = {"dahdi_echocan_oslec"}  # it needs a module of the kernel that Debian does not build


@dataclass(frozen=True, slots=True)
class Made:
    """One package of the benchmark."""

    name: str
    source: Path
    modules: Mapping[str, bytes]  # name → content


def main() -> int:
    args = parse_args()
    if args.measure:
        print(json.dumps(plan_all(Paths(Path(args.measure)))))
        return 0
    corpus = Corpus()
    krel = corpus.archive.kernels(corpus.archive.flavours()[1])[0]
    names = (*PACKAGES, *MORE)
    with tempfile.TemporaryDirectory() as scratch, realroot.made(Path(scratch), corpus, kernels=(krel,)) as root:
        made = list(make_packages(corpus, krel, names, args.packages))
        for one in made:
            add_source(root, one)
        krels = [krel, *(add_namesake(root, krel, i) for i in range(1, args.kernels))]
        fill_store(root.paths, krel, made)
        place_all(root.paths, krels)
        found = measured(root.path)
    tell(found, len(made), sum(len(m.modules) for m in made), len(krels))
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=int, default=100)
    parser.add_argument("--kernels", type=int, default=10)
    parser.add_argument("--measure", metavar="ROOT", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- what is timed


def measured(root: Path) -> dict[str, list[float]]:
    """In a process of its own: what made the machine has memory of its own."""
    command = [sys.executable, "-m", "benchmarks.planner", "--measure", str(root)]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def plan_all(paths: Paths) -> dict[str, list[float]]:
    """Every kernel, ROUNDS times; the first round has warm files and an empty process."""
    looker = Looker(paths, CONFIG)
    krels = sorted(os.listdir(paths.kernels))
    times = defaultdict(list)
    for _ in range(ROUNDS):
        look = plan = 0.0
        start, cpu = time.perf_counter(), time.process_time()
        for name in krels:
            began = time.perf_counter()
            facts = looker.look(name.removesuffix(".json"))
            between = time.perf_counter()
            decisions = decide_kernel(facts)
            look, plan = look + between - began, plan + time.perf_counter() - between
            others = [f"{d.package}: {d.kind}, {d.reasons[0].text}" for d in decisions if d.kind != "keep"]
            if others:
                raise SystemExit(f"{name}: not all is as it was placed: {others}")
        times["wall"].append(time.perf_counter() - start)
        times["cpu"].append(time.process_time() - cpu)
        times["look"].append(look)
        times["plan"].append(plan)
    times["peak_mib"].append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return times


def tell(found: Mapping[str, Sequence[float]], packages: int, modules: int, kernels: int) -> None:
    print(f"{packages} packages ({modules} modules) on {kernels} kernels, {ROUNDS} rounds in one process")
    print(f"{'':<28} {'first':>9} {'best':>9}")
    for key, what in (("wall", "look and decide, wall"), ("cpu", "look and decide, CPU"),
                      ("look", "  of it the look"), ("plan", "  of it the decisions")):  # fmt: skip
        print(f"{what:<28} {found[key][0] * 1000:>6.0f} ms {min(found[key]) * 1000:>6.0f} ms")
    wall, peak = min(found["wall"]), found["peak_mib"][0]
    print(f"goal {GOAL_S * 1000:.0f} ms: {'met' if wall <= GOAL_S else 'MISSED'}; "
          f"peak memory {peak:.0f} MiB, goal {GOAL_MIB}: {'met' if peak <= GOAL_MIB else 'MISSED'}")  # fmt: skip


# ---- the machine


def make_packages(corpus: Corpus, krel: str, names: Sequence[str], count: int) -> Iterator[Made]:
    files: dict[str, dict[str, bytes]] = defaultdict(dict)
    for built in build_all(corpus, {krel: names}):
        if built.path.stem not in UNLOADABLE:
            files[built.package][built.path.stem.replace("-", "_")] = built.path.read_bytes()
    sources = {name: next((corpus.layer(name).tree / "usr/src").iterdir()) for name in files}
    for name, modules in files.items():
        yield Made(name, sources[name], modules)
    lonely = [name for name, modules in files.items() if not any(parse_module("", m).exports for m in modules.values())]
    for i in range(count - len(files)):
        name = lonely[i % len(lonely)]
        copies = dict(renamed(m, data, i // len(lonely)) for m, data in files[name].items())
        yield Made(f"{name}{i}", sources[name], copies)


def renamed(module: str, data: bytes, times: int) -> tuple[str, bytes]:
    """The same module under another name of the same length."""
    new = module[:-1] + "ZYXWVUTSRQ"[times]
    return new, data.replace(b"\0name=%s\0" % module.encode(), b"\0name=%s\0" % new.encode())


def add_source(root: realroot.RealRoot, made: Made) -> None:
    """The real package's tree, with a recipe that promises these modules."""
    target = root.paths.usr_src / f"{made.name}-1.0"
    shutil.copytree(made.source, target, symlinks=True, ignore=shutil.ignore_patterns("dkms.conf*"))
    for link in (p for p in target.rglob("*") if p.is_symlink()):
        link.unlink()
    lines = [f"PACKAGE_NAME={made.name}", "PACKAGE_VERSION=1.0", "AUTOINSTALL=yes"]
    for i, module in enumerate(made.modules):
        lines += [f"BUILT_MODULE_NAME[{i}]={module}", f"DEST_MODULE_LOCATION[{i}]=/updates"]
    (target / "dkms.conf").write_text("\n".join(lines) + "\n")


def add_namesake(root: realroot.RealRoot, krel: str, number: int) -> str:
    """The kernel again, by overlays, as 6.1.0-9N-…: only what says its release is another file."""
    head, _, tail = krel.partition("-")
    other = f"{head}-{90 + number}-{tail.partition('-')[2]}"
    assert len(other) == len(krel), f"{krel} has no namesakes of its length"
    modulesd, headers = root.paths.modulesd(other), root.paths.usr_src / f"linux-headers-{other}"
    side = root.path.parent / "namesakes" / other
    for name, directory, source in (
        ("modules", modulesd, root.paths.modulesd(krel)),
        ("headers", headers, root.paths.usr_src / f"linux-headers-{krel}"),
    ):
        realroot.overlay(side / name, directory, trees=[source])
    old, new = krel.encode(), other.encode()
    references = list((modulesd / "kernel/arch").rglob("*.ko*"))
    for file in (*references, headers / "include/generated/utsrelease.h"):
        data = file.read_bytes()
        file.write_bytes(data.replace(old, new))
    (modulesd / "build").unlink()
    (modulesd / "build").symlink_to(f"/usr/src/linux-headers-{other}")
    (root.path / f"boot/vmlinuz-{other}").write_bytes(b"kernel")
    return other


def fill_store(paths: Paths, krel: str, made: Sequence[Made]) -> None:
    """As if each package had just been built for the first kernel."""
    kernel = read_kernel(paths, krel)
    abi = read_abi(paths, kernel)
    toolchain, problem = read_toolchain(paths, kernel, abi, CONFIG)
    assert problem is None, problem
    contents = {m.name: m.modules for m in made}
    paths.builds.mkdir(parents=True)
    for package in find_packages(paths, CONFIG):
        recipe = read_recipe(paths, CONFIG, package, kernel, abi)
        key = build_key(package, recipe, abi, toolchain)
        source, files = source_key(package, recipe), contents[package.name]
        modules = tuple(_built(name, data) for name, data in files.items())
        with new_entry(paths) as entry:
            for module in modules:
                write_entry_file(entry, module.file, files[module.name])
            build = Build(
                key=key,
                source_key=source,
                package=package.name,
                version="1.0",
                krel=krel,
                ok=True,
                transient=False,
                errors=(),
                modules=modules,
                built_at=1.0,
                duration_s=1.0,
                directory="",
                features=fingerprint(abi.config),
            )
            publish(paths, entry, build)


def _built(name: str, data: bytes) -> BuiltModule:
    facts = parse_module(name, data)
    digest = hashlib.sha256(data).hexdigest()
    return BuiltModule(name, name, f"{name}.ko", digest, len(data), facts.srcversion, facts.vermagic)


def place_all(paths: Paths, krels: Sequence[str]) -> None:
    journal.set_level("error")
    engine = Engine(paths, CONFIG, time.time)
    try:
        for krel in krels:
            record = engine.reconcile(krel)
            unfit = [f"{p.package}: {p.reasons[0].text}" for p in record.placements if not p.verified]
            assert not unfit, (krel, unfit)
    finally:
        engine.close()


if __name__ == "__main__":
    raise SystemExit(main())
