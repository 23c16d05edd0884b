"""All *-dkms packages of the archive that DKMS can build, for one kernel, on two ways and the shortest imaginable one.

    python -m benchmarks.autoinstall [--packages NAME,… | --quick] [--flavour FLAVOUR] [--phases abc] [--lock FILE]

(a) the archive's `dkms autoinstall`; (b) `autokmodd --oneshot` from nothing; (c) the packages' own PRE_BUILD and make
commands in copies of the sources made before, all under one `make -jN` for N cores, longest first, and nothing else.
Each in a system of overlays of its own, after every file that will be read was read once. Then (b) again: with the
builds known, and for a second kernel whose symbols are equal. As root, on a machine that does nothing else; what it
does besides shows as CPU time of others, and makes every wall clock wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autokmod.act.buildscript import make_command
from autokmod.act.store import list_builds
from autokmod.config import Config
from autokmod.observe.abi import read_abi
from autokmod.observe.dkmsconf import kernel_arch
from autokmod.observe.dkmseval import dkms_variables
from autokmod.observe.kernels import read_kernel
from autokmod.observe.recipe import read_recipe
from autokmod.observe.records import read_record
from autokmod.observe.sources import find_packages
from autokmod.observe.toolchain import exported, read_toolchain
from tests import dkms, realroot
from tests.corpus import Corpus
from tests.cost import Cost, measured

QUICK = (
    "acpi-call-dkms",
    "dm-writeboost-dkms",
    "gost-crypto-dkms",
    "nat-rtsp-dkms",
    "vpoll-dkms",
    "xtables-addons-dkms",
)
EXPORTED = ("kernelver", "arch", "module", "module_version")  # of DKMS's variables, to programs
DAEMON = (sys.executable, "-m", "autokmod.daemon.main")
GOAL_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Job:
    corpus: Corpus
    krel: str
    equal: str | None  # a kernel with the same symbols
    names: tuple[str, ...]  # Debian packages
    lock: Path | None  # held while something is measured

    @property
    def sources(self) -> dict[str, str]:
        return {name: dkms.source_of(self.corpus.layer(name)) for name in self.names}


@dataclass(slots=True)
class Found:
    costs: dict[str, Cost] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # NAME-VERSION → how long (b) built it


def main() -> int:
    args = parse_args()
    corpus = Corpus()
    job, left_out = choose(corpus, args)
    print(f"{job.krel}: {len(job.names)} packages, {cores()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    for line in left_out:
        print(f"left out: {line}")
    found = Found()
    phases = {"a": run_dkms, "b": run_autokmod, "c": run_make}
    for phase in args.phases:
        with locked(job.lock):
            phases[phase](job, found)
    tell(found)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", help="these alone, Debian's names, with commas")
    parser.add_argument("--quick", action="store_true", help="a few that compile quickly")
    parser.add_argument("--flavour", help="of the kernel; by default the one with the smallest images")
    parser.add_argument("--phases", default="abc", help="by default abc")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="a lock to hold during each phase (flock)")
    return parser.parse_args()


def choose(corpus: Corpus, args: argparse.Namespace) -> tuple[Job, list[str]]:
    """What DKMS does not install on this kernel is not measured; why is told."""
    kernels = corpus.archive.kernels(args.flavour or corpus.archive.flavours()[0])
    krel = kernels[0]
    equal = next((k for k in kernels[1:2] if corpus.symvers(k) == corpus.symvers(krel)), None)
    asked = tuple(args.packages.split(",")) if args.packages else QUICK if args.quick else dkms.packages(corpus)
    with locked(args.lock):
        reference = dkms.reference(corpus, krel, asked)
    names = tuple(name for name in asked if reference[name].state == "installed")
    left_out = [f"{name}: by DKMS {reference[name].state}{first_error(reference[name].log)}" for name in asked]
    return Job(corpus, krel, equal, names, args.lock), [
        o for n, o in zip(asked, left_out, strict=True) if n not in names
    ]


def first_error(log: str) -> str:
    error = dkms.ERROR.search(log)
    return f", {error[0]}" if error else ""


def cores() -> int:
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def locked(lock: Path | None) -> Iterator[None]:
    if lock is None:
        yield
        return
    with open(lock, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def system(job: Job, *more: str, kernels: Sequence[str] = ()) -> Iterator[realroot.RealRoot]:
    """A fresh one, whose files are in the page cache."""
    with (
        tempfile.TemporaryDirectory(prefix="autokmod-bench-") as scratch,
        realroot.made(Path(scratch), job.corpus, kernels=(job.krel, *kernels), packages=(*more, *job.names)) as root,
    ):
        root.chroot("true")  # /proc and /dev
        for place in (root.paths.usr_src, root.paths.modules):
            warm(place)
        yield root


def warm(place: Path) -> None:
    for directory, _, files in os.walk(place):
        for name in files:
            path = Path(directory, name)
            if path.is_file():
                path.read_bytes()


# ---- (a)


def run_dkms(job: Job, found: Found) -> None:
    with system(job, dkms.DKMS) as root:
        dkms.add_all(root, tuple(job.sources.values()))
        log = root.path / "var/log/autoinstall"
        cost = found.costs["a"] = dkms.autoinstall(root, job.krel, log)
        states = [o.state for o in dkms.outcomes(root, job.krel, job.sources)]
        modules = len(list(root.paths.modulesd(job.krel).glob("updates/dkms/*.ko*")))
        found.notes.append(f"(a) {states.count('installed')} packages, {modules} modules installed")
        check(cost.returncode == 0, log)


# ---- (b)


def run_autokmod(job: Job, found: Found) -> None:
    with system(job, kernels=[job.equal] if job.equal else []) as root:
        log = root.path / "var/log/autokmod"
        found.costs["b"] = reconcile(root, job.krel, log)
        check(found.costs["b"].returncode == 0, log)
        builds = list_builds(root.paths)
        found.seconds = {f"{b.package}-{b.version}": b.duration_s for b in builds}
        note_placed(root, job.krel, "(b)", found)
        forget(root, job.krel)
        found.costs["known"] = reconcile(root, job.krel, log)
        note_placed(root, job.krel, "known", found)
        found.costs["nothing"] = reconcile(root, job.krel, log)
        if job.equal:
            found.costs["equal"] = reconcile(root, job.equal, log)
            note_placed(root, job.equal, "equal", found)
        check(len(list_builds(root.paths)) == len(builds), log)


def reconcile(root: realroot.RealRoot, krel: str, log: Path) -> Cost:
    return measured([*DAEMON, "--root", str(root.path), "--oneshot", "--kernel", krel], log)


def forget(root: realroot.RealRoot, krel: str) -> None:
    """The kernel as it comes with an update: nothing of autokmod's is in it, but the builds are in the store."""
    shutil.rmtree(root.paths.modulesd(krel) / "updates/autokmod")
    root.paths.record(krel).unlink()


def note_placed(root: realroot.RealRoot, krel: str, what: str, found: Found) -> None:
    record = read_record(root.paths, krel)
    placed = record.placements if record else ()
    good = [p for p in placed if p.verified]
    links = sum(p.link_from is not None for p in good)
    modules = sum(len(p.files) for p in good)
    found.notes.append(f"{what}: {len(good)} packages, {modules} modules installed, {links} packages by links")
    found.notes += [f"{what}: not installed: {p.package}: {p.reasons[0].text}" for p in placed if not p.verified]


def check(good: object, log: Path) -> None:
    if not good:
        raise SystemExit(log.read_text(errors="replace"))


# ---- (c)


def run_make(job: Job, found: Found) -> None:
    with system(job) as root:
        scripts = write_scripts(job, root)
        order = sorted(scripts, key=lambda source: found.seconds.get(source, 0.0), reverse=True)
        makefile = root.path / "var/lib/dkms/Makefile"
        rules = [
            f"{s}:\n\t+-@bash /var/lib/dkms/{s}.sh >/var/lib/dkms/{s}.log 2>&1 && touch /var/lib/dkms/{s}.done\n"
            for s in order
        ]
        makefile.write_text(f"all: {' '.join(order)}\n{''.join(rules)}.PHONY: all {' '.join(order)}\n")
        make = ["chroot", str(root.path), "make", f"-j{cores()}", "-f", "/var/lib/dkms/Makefile", "all"]
        found.costs["c"] = measured(make, root.path / "var/log/make")
        failed = [s for s in order if not (root.path / f"var/lib/dkms/{s}.done").exists()]
        found.notes.append(f"(c) {len(order) - len(failed)} packages made")
        for source in failed:
            said = (root.path / f"var/lib/dkms/{source}.log").read_text(errors="replace").splitlines()
            found.notes.append(f"(c) failed: {source}: {said[-1:]}")


def write_scripts(job: Job, root: realroot.RealRoot) -> tuple[str, ...]:
    """/var/lib/dkms/NAME-VERSION.sh beside the copies, which lie where DKMS has them."""
    wanted = set(job.sources.values())
    packages = [p for p in find_packages(root.paths, Config()) if Path(p.source).name in wanted]
    config, kernel = Config(), read_kernel(root.paths, job.krel)
    abi = read_abi(root.paths, kernel)
    toolchain, _ = read_toolchain(root.paths, kernel, abi, config)
    for package in packages:
        recipe = read_recipe(root.paths, config, package, kernel, abi)
        home = root.path / "var/lib/dkms" / package.id
        shutil.copytree(package.source, home / "build", symlinks=True)
        (home / "source").symlink_to(f"/usr/src/{Path(package.source).name}")
        variables = dkms_variables(package, kernel, kernel_arch(abi), config) | {
            "build": f"/var/lib/dkms/{package.id}/build"
        }
        exports = {k: v for k, v in variables.items() if k in EXPORTED} | exported(toolchain)
        script = script_of(variables, exports, recipe.pre_build, make_command(recipe, job.krel))
        (root.path / f"var/lib/dkms/{Path(package.source).name}.sh").write_text(script)
    return tuple(Path(p.source).name for p in packages)


def script_of(variables: Mapping[str, str], exports: Mapping[str, str], pre_build: str, make: str) -> str:
    lines = [f"{k}={shlex.quote(v)}" for k, v in {**variables, **exports}.items()]
    lines += [f"export {' '.join(exports)}", 'cd "$build" || exit']
    lines += [f"(eval {shlex.quote('./' + pre_build)}) || exit"] if pre_build else []
    return "\n".join([*lines, f"eval {shlex.quote(make)}", ""])


# ---- the table


WHAT = {
    "a": "(a) dkms autoinstall",
    "b": "(b) autokmod, from nothing",
    "c": "(c) the packages' make alone",
    "known": "autokmod, builds known",
    "equal": "autokmod, equal kernel: links",
    "nothing": "autokmod, nothing to do",
}


def tell(found: Found) -> None:
    for note in found.notes:
        print(note)
    print(f"{'':<30} {'wall':>8} {'CPU':>8} {'cores used':>11} {'idle':>8} {'others':>9}")
    for key, what in WHAT.items():
        if key in found.costs:
            c = found.costs[key]
            used = f"{c.cpu_s / c.wall_s:11.2f} {c.idle_s:6.1f} s {c.others_s:7.1f} s"
            print(f"{what:<30} {c.wall_s:6.1f} s {c.cpu_s:6.1f} s {used}")
    for what, value, goal in goals(found.costs):
        print(f"{what:<30} {value:8.2f}   goal {goal:<5} {'met' if value <= goal else 'MISSED'}")


def goals(costs: Mapping[str, Cost]) -> Iterator[tuple[str, float, float]]:
    a, b, c = (costs.get(key) for key in "abc")
    if a and b:
        yield "wall of (b) / (a)", b.wall_s / a.wall_s, 0.58
    if b and c:
        yield "wall of (b) / (c)", b.wall_s / c.wall_s, 1.05
        yield "CPU of (b) / (c)", b.cpu_s / c.cpu_s, 1.03
    if b:
        yield "wall of (b) / (CPU / cores)", b.wall_s * cores() / b.cpu_s, 1.05
    for key in ("known", "equal"):
        if key in costs:
            yield f"seconds, {WHAT[key]}", costs[key].wall_s, GOAL_AGAIN_S


if __name__ == "__main__":
    raise SystemExit(main())
