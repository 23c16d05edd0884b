"""What the daemon can do, without loop and bus: the queue, the worker, the engine, and looks at the disk.

Everything here may take a while and may be called by any thread but the loop's, which never waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autokmod.config import Config
from autokmod.config_load import load_config
from autokmod.daemon.settle import wait_s
from autokmod.errors import FormatError, UnknownKernel, UnknownPackage
from autokmod.jobs.booted import compare_boot
from autokmod.jobs.byhand import restore_image
from autokmod.jobs.engine import Engine
from autokmod.jobs.gc import Collection, collect_store, preview_collection
from autokmod.jobs.keyring import keyring_to_json, read_keyring
from autokmod.jobs.logs import read_log
from autokmod.jobs.machine import read_machine, read_machine_and_next
from autokmod.jobs.publishing import Publishing
from autokmod.jobs.queue import Change, Queue
from autokmod.jobs.verify import verify_kernel
from autokmod.jobs.worker import Worker
from autokmod.model import (
    GuardState,
    Job,
    JobResult,
    KernelRecord,
    KernelStatus,
    NextBoot,
    Package,
    Placement,
    Reason,
    Verb,
)
from autokmod.observe.bootguard import read_guard
from autokmod.observe.kernels import find_kernels, is_krel, read_kernel
from autokmod.observe.keys import find_keys
from autokmod.observe.machine import find_sources
from autokmod.observe.neighbours import Neighbour, find_neighbours
from autokmod.observe.sources import find_packages, list_sources
from autokmod.observe.tree import read_tree
from autokmod.paths import Paths

ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the boot guard holds a kernel back."""

    time_limit_s: float
    boot_limit: int
    hold_limit_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """The machine as one look finds it."""

    kernels: tuple[KernelStatus, ...]
    next_boot: NextBoot
    guard: GuardState
    limits: Limits


class Core:
    def __init__(
        self,
        paths: Paths,
        config: Config,
        *,
        changed: Callable[[Change], None],
        progress: Callable[[Job, str], None],
        ended: Callable[[], None],
        publishing: Publishing,
        working: Callable[[Job], AbstractContextManager[None]],
        idle: Callable[[], None],
    ) -> None:
        self.paths, self.config, self._publishing = paths, config, publishing
        self.engine = Engine(paths, config, time.time, publishing)
        self.queue = Queue(paths, config.retry, time.time, changed)
        self.worker = Worker(self.queue, self.engine, progress=progress, ended=ended, working=working, idle=idle)

    # ---- looking ---------------------------------------------------------------------------------

    def kernels(self) -> tuple[KernelStatus, ...]:
        return read_machine(self.paths, self.config, self.queue.jobs(), time.time())

    def standing(self) -> Standing:
        kernels, next_boot = read_machine_and_next(self.paths, self.config, self.queue.jobs(), time.time())
        guard = self.config.boot_guard
        limits = Limits(guard.time_limit_s, guard.boot_limit, guard.hold_limit_s)
        return Standing(kernels, next_boot, self._guard_state(), limits)

    def packages(self) -> tuple[Package, ...]:
        return find_packages(self.paths, self.config)

    def neighbours(self) -> tuple[Neighbour, ...]:
        return find_neighbours(self.paths)

    def jobs(self) -> tuple[Job, ...]:
        return self.queue.jobs()

    def find_job(self, job_id: int) -> tuple[Job, JobResult | None]:
        """Raises UnknownJob."""
        return self.queue.find(job_id)

    def explain(self, package: str, krel: str) -> Placement | None:
        """`package` is NAME or NAME/VERSION; None: it was not examined yet. Raises UnknownKernel, UnknownPackage."""
        for status in self.kernels():
            if status.krel == krel:
                found = _find_placement(status.placements, package)
                if found is None and not any(package in (s.name, s.id) for s in find_sources(self.paths)):
                    raise UnknownPackage(package)
                return found
        raise UnknownKernel(krel)

    def log(self, package: str, krel: str) -> tuple[Path, str]:
        """Raises UnknownKernel, UnknownPackage, NoLog."""
        return read_log(self.paths, package, krel, self.explain(package, krel))

    def signing(self) -> dict[str, Any]:
        """As keyring_to_json gives it. No key is opened: that is done where something is signed."""
        keys = find_keys(self.paths, self.config.sign)
        return keyring_to_json(self.paths, read_keyring(self.paths, self.config, keys))

    def verify(self, krels: Sequence[str]) -> dict[str, tuple[int, tuple[Reason, ...]]]:
        """How many files each kernel has, and what is wrong with them; none named: all. Raises UnknownKernel."""
        known = [read_kernel(self.paths, k).krel for k in krels] or [k.krel for k in find_kernels(self.paths)]
        return {krel: verify_kernel(self.paths, krel) for krel in known}

    # ---- changing --------------------------------------------------------------------------------

    def reconcile(self, krels: Sequence[str], *, force: bool) -> list[int]:
        """The jobs' numbers, in the order of `krels`; none named: all. With an UnknownKernel nothing is queued."""
        known = [read_kernel(self.paths, krel).krel for krel in krels] or self.engine.kernels_to_check()
        ids = [self.queue.add(Verb.RECONCILE, krel, ADMIN, force=force).id for krel in known]
        self.worker.wake()
        return ids

    def cancel(self, job_id: int) -> None:
        """Raises UnknownJob."""
        self.worker.cancel(job_id)

    def collect(self, *, dry_run: bool) -> Collection:
        """Raises StoreBusy, OSError."""
        collect = preview_collection if dry_run else collect_store
        return collect(self.paths, self.config, time.time())

    def restore_initrd(self, krel: str) -> KernelRecord:
        """Raises UnknownKernel, NoPrevious, FormatError, OSError."""
        known = read_kernel(self.paths, krel).krel
        return restore_image(self.paths, self.config, known, time.time(), self._publishing)

    def reload(self) -> Config:
        """Raises ConfigError, and everything stays as it was."""
        config = load_config(self.paths)
        if config != self.config:
            self.config = config
            self.engine = Engine(self.paths, config, time.time, self._publishing)
            self.worker.use(self.engine, config.retry)
        return config

    def guard(self) -> None:
        """Which kernel may be booted by default: see config.BootGuardConfig."""
        self.engine.guard_boot()

    def compare_boot(self) -> bool:
        """What this boot has loaded, with what was promised. Whether anything may still come."""
        return compare_boot(self.paths, self.config, time.time())

    def take_up(self) -> None:
        """Something changed in the spool."""
        self.queue.refresh()
        self.worker.wake()

    def look(self, why: str, hinted_at: float) -> float | None:
        """Queue a look at every kernel that has come to rest. How long to wait for the others, if there are any."""
        now = time.time()
        sources = self._sources_changed_at()
        settling = wait_s(sources, hinted_at, now, self.config.daemon.settle_s)
        if settling:
            return settling
        waits = [self._look_at(krel, why, sources, hinted_at, now) for krel in self._krels()]
        self.worker.wake()
        return min(filter(None, waits), default=None)

    def _guard_state(self) -> GuardState:
        try:
            return read_guard(self.paths)
        except (FormatError, OSError) as exc:
            return GuardState(problem=Reason("guard-damaged", f"what was written down of it cannot be read: {exc}"))

    def _look_at(self, krel: str, why: str, sources: float, hinted_at: float, now: float) -> float:
        try:
            changed_at = read_kernel(self.paths, krel).changed_at
        except UnknownKernel:  # gone, which is for its job to find out
            changed_at = 0.0
        settling = wait_s(changed_at, hinted_at, now, self.config.daemon.settle_s)
        if not settling:
            self.queue.hint(krel, why, changed_at=max(changed_at, sources))
        return settling

    def _krels(self) -> Iterator[str]:
        """Those that could be booted, and those of which something is recorded that are here no more."""
        yield from self.engine.kernels_to_check()
        present = {kernel.krel for kernel in find_kernels(self.paths)}
        recorded = (f.stem for f in sorted(self.paths.kernels.glob("*.json")))
        yield from (krel for krel in recorded if krel not in present and is_krel(krel))

    def _sources_changed_at(self) -> float:
        trees = (read_tree(self.paths.resolve(self.paths.usr_src / name)) for name in list_sources(self.paths))
        return max((entry.stat.st_ctime for tree in trees for entry in tree.entries), default=0.0)


def _find_placement(placements: Sequence[Placement], package: str) -> Placement | None:
    return next((p for p in placements if package in (p.package, f"{p.package}/{p.version}")), None)
