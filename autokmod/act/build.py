"""Building one package for one kernel: copy the source, build it in the sandbox, take the results out, store them.

A failure is stored like a success, with its errors, so that the same key is not tried again for nothing. It is
transient where trying again may help: time limit, disk full, killed from outside, out of processes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autokmod.act.buildroom import Order, closed_way, environment, open_room, prepare
from autokmod.act.buildscript import build_script
from autokmod.act.buildwatch import BuildWatch, Stop
from autokmod.act.debuginfo import without_debug_info
from autokmod.act.results import Result, take_results
from autokmod.act.scratch import scratch
from autokmod.act.store import LOG, SYMVERS, list_builds, new_entry, publish, write_entry_file
from autokmod.act.take import take_file
from autokmod.config import BuildConfig, Config
from autokmod.decide.fingerprint import fingerprint
from autokmod.errors import FormatError
from autokmod.model import Build, BuildError, Kernel, KernelAbi, Package, Recipe
from autokmod.observe.buildlog import find_errors
from autokmod.observe.dkmseval import DKMS_TREE
from autokmod.observe.toolchain import find_program, read_toolchain
from autokmod.paths import Paths
from autokmod.run import Cancel
from autokmod.sandbox import check_sandbox, find_user, run_boxed
from autokmod.sandboxcmd import Sandbox

SCRIPT = ".autokmod-build"  # as it shows in ps
LOG_LIMIT = 16 << 20  # bytes of a log that are kept: its beginning and, three times as much, its end
SYMVERS_LIMIT = 16 << 20
PASSING = ("No space left on device", "Resource temporarily unavailable", "Cannot allocate memory")
LIMIT_SAID_IN = 64 << 10  # bytes at a log's end
TOO_LARGE = (b"File size limit exceeded", b"File too large")
TOO_MANY = (b"Resource temporarily unavailable", b"Cannot fork")
TOO_MUCH = (b"Cannot allocate memory", b"MemoryError", b"virtual memory exhausted", b"out of memory allocating")
KILLED = 128 + 9  # by whom cannot be told: mostly the kernel, out of memory


class JobSlot(Protocol):
    @property
    def read_fd(self) -> int: ...
    @property
    def write_fd(self) -> int: ...
    @property
    def makeflags(self) -> str: ...


class Tokens(Protocol):
    def slot(self, cancel: Cancel | None = None) -> AbstractContextManager[JobSlot]: ...
    def trim(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    errors: tuple[BuildError, ...] = ()
    transient: bool = False
    results: tuple[Result, ...] = ()
    symvers: bytes = b""


def build_package(
    paths: Paths,
    config: Config,
    package: Package,
    recipe: Recipe,
    kernel: Kernel,
    abi: KernelAbi,
    key: str,
    source_key: str,
    tokens: Tokens,
    cancel: Cancel,
    depends: Sequence[Build] | None = None,
) -> Build:
    """Waits for a job token, builds, stores. A cancelled build is a failure that is not stored.

    `depends`: the builds to build upon; by default those that the store has of recipe.build_depends for this kernel.
    Raises SandboxUnavailable, and OSError where the store cannot be written.
    """
    toolchain, problem = read_toolchain(paths, kernel, abi, config)
    missing = [tool for tool in recipe.tools if find_program(paths, tool) is None]
    found = find_depends(paths, recipe, kernel.krel) if depends is None else tuple(depends)
    lean = without_debug_info(toolchain, recipe, kernel, abi)
    order = Order(paths, config, package, recipe, kernel, abi, lean, found)
    with tokens.slot(cancel) as slot, scratch(paths.work) as work:
        started = time.monotonic()
        if cancel.requested:
            outcome = _failure("it was cancelled", transient=True)
        elif missing:
            outcome = _failure(f"the recipe wants {', '.join(missing)}, which is not installed", transient=True)
        elif problem is not None:
            outcome = _failure(f"{problem.text}: {problem.hint}", transient=True)
        else:
            outcome = _build(order, work, slot, tokens, cancel)
        build = Build(
            key=key,
            source_key=source_key,
            package=package.name,
            version=package.version,
            krel=kernel.krel,
            ok=not outcome.errors,
            transient=outcome.transient,
            errors=outcome.errors,
            modules=tuple(r.module for r in outcome.results),
            built_at=time.time(),
            duration_s=time.monotonic() - started,
            directory="",
            features=fingerprint(abi.config),
            applied=recipe.applied,
        )
        return build if cancel.requested else _store(paths, build, outcome, work)


def find_depends(paths: Paths, recipe: Recipe, krel: str) -> tuple[Build, ...]:
    """The latest successful build of each package that this one depends on; those that there are."""
    if not recipe.build_depends:
        return ()
    good = [b for b in list_builds(paths) if b.ok and b.krel == krel]
    latest = {b.package: b for b in sorted(good, key=lambda b: b.built_at)}
    return tuple(latest[name] for name in recipe.build_depends if name in latest)


def _failure(text: str, *, transient: bool) -> Outcome:
    return Outcome((BuildError("", 0, text),), transient)


# ---- one build -----------------------------------------------------------------------------------


def _build(order: Order, work: Path, slot: JobSlot, tokens: Tokens, cancel: Cancel) -> Outcome:
    try:
        is_as_asked = prepare(order, work, find_user(order.paths, order.config))
    except OSError as exc:
        return _failure(f"the source cannot be copied: {exc}", transient=True)
    if not is_as_asked:
        return _failure("the source changed while it was being copied", transient=True)
    box = open_room(order, work)
    closed = closed_way(box)
    if closed is not None:
        return _failure(f"user {order.config.build.user} may not enter {closed}: chmod o+x {closed}", transient=True)
    return _run(order, work, box, slot, tokens, cancel) or _take(order, work)


def _run(order: Order, work: Path, box: Sandbox, slot: JobSlot, tokens: Tokens, cancel: Cancel) -> Outcome | None:
    """How it failed, if it did. Raises SandboxUnavailable."""
    tree = DKMS_TREE if box.contained else str(work / "dkms")
    script = build_script(order.recipe, order.kernel.krel, order.toolchain.strip).replace(DKMS_TREE, tree)
    (work / "dkms" / SCRIPT).write_text(script, encoding="utf-8")
    (work / "dkms" / SCRIPT).chmod(0o644)
    limits = order.config.build
    watch = BuildWatch(limits, work, work / "log", tokens.trim)
    with open(work / "log", "xb") as log:
        log.write(f"==> {order.package.id} for {order.kernel.krel}: {', '.join(order.toolchain.identity)}\n".encode())
        log.flush()
        result = run_boxed(
            box,
            ["bash", f"{tree}/{SCRIPT}"],
            timeout_s=limits.time_limit_s,
            env=environment(order, tree, slot.makeflags),
            log=log,
            pass_fds=(slot.read_fd, slot.write_fd),
            cancelled=cancel,
            watch=watch,
        )
    if result.returncode == 0:
        return None
    if watch.stop is None and result.returncode is not None:
        return _not_started(order, work) or _failed(order, _read_log(work), result.returncode)
    stop = watch.stop or Stop(
        f"stopped: it took longer than {limits.time_limit_s} s (build.time_limit_s)", may_pass=True
    )
    return Outcome((BuildError("", 0, stop.why), *find_limit(_read_log(work), limits)), stop.may_pass)


def _not_started(order: Order, work: Path) -> Outcome | None:
    """bwrap and the others speak before the script does. Raises SandboxUnavailable.

    A build may print the same, so the sandbox is asked; where it starts, this is the failure of one build.
    """
    with open(work / "log", "rb") as log:
        log.readline()
        first = log.readline(1000).decode("utf-8", "replace").strip()
    if not first.startswith(("bwrap: ", "setpriv: ", "prlimit: ", "ionice: ", "nice: ")):
        return None
    check_sandbox(order.paths, order.config)
    return _failure(f"it did not start: {first}", transient=True)


def _failed(order: Order, log: bytes, returncode: int) -> Outcome:
    if returncode < 0:
        return _failure(f"it was killed by signal {-returncode}", transient=True)
    errors = find_errors(log.decode("utf-8", "replace"), _shorten(order))
    passing = returncode == KILLED or any(p in e.text for e in errors for p in PASSING)
    return Outcome((*find_limit(log, order.config.build), *errors), passing)


def find_limit(log: bytes, limits: BuildConfig) -> tuple[BuildError, ...]:
    """The limit that it met, going by what programs say then: at most one. Pure."""
    said = {
        f"a file grew larger than {limits.file_limit_mb} MiB (build.file_limit_mb)": TOO_LARGE,
        f"it ran more than {limits.process_limit} processes at once (build.process_limit)": TOO_MANY,
        f"a process wanted more than {limits.memory_limit_mb} MiB of memory (build.memory_limit_mb)": TOO_MUCH,
    }
    end = log[-LIMIT_SAID_IN:]
    found = (BuildError("", 0, text) for text, words in said.items() if any(word in end for word in words))
    return tuple(found)[:1]


def _take(order: Order, work: Path) -> Outcome:
    limit = order.config.build.file_limit_mb << 20
    try:
        return Outcome(
            results=take_results(order.recipe, order.abi, work, order.place, limit=limit),
            symvers=take_file(work, (*order.place, SYMVERS), limit=SYMVERS_LIMIT),
        )
    except (FormatError, FileNotFoundError) as exc:
        return _failure(str(exc), transient=False)


def _shorten(order: Order) -> tuple[str, ...]:
    package = order.package
    return (f"{DKMS_TREE}/{package.id}/build", order.paths.inside(package.source))


def _read_log(work: Path) -> bytes:
    """Its beginning and its end, where it is longer than LOG_LIMIT."""
    with contextlib.suppress(FileNotFoundError), open(work / "log", "rb") as log:
        size = os.fstat(log.fileno()).st_size
        if size <= LOG_LIMIT:
            return log.read()
        head = log.read(LOG_LIMIT // 4)
        log.seek(size - LOG_LIMIT // 4 * 3)
        return head + f"\n==> {size - LOG_LIMIT} bytes are left out here\n".encode() + log.read()
    return b""


def _store(paths: Paths, build: Build, outcome: Outcome, work: Path) -> Build:
    with new_entry(paths) as entry:
        write_entry_file(entry, LOG, _read_log(work) or _as_log(build))
        for result in outcome.results:
            write_entry_file(entry, result.module.file, result.data)
        if outcome.symvers:
            write_entry_file(entry, SYMVERS, outcome.symvers)
        return publish(paths, entry, build)


def _as_log(build: Build) -> bytes:
    return "".join(f"autokmod: {error.text}\n" for error in build.errors).encode()
