"""The same engine in the foreground, without bus, inotify or systemd: for image builders, chroots, containers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from autokmod import journal
from autokmod.config import Config
from autokmod.daemon.sayings import say
from autokmod.errors import AutokmodError
from autokmod.events import Event
from autokmod.jobs.engine import SPEAKS_FOR_KERNEL, Engine
from autokmod.jobs.machine import read_machine
from autokmod.jobs.spool import Entry, Spool
from autokmod.model import Job, Readiness, Verb
from autokmod.observe.kernels import read_kernel
from autokmod.paths import Paths
from autokmod.run import Cancel, cancelled_by_signals

WHY = "oneshot"
INTERRUPTED = 130  # as a shell says it of Ctrl-C

log = journal.get()


def run_oneshot(paths: Paths, config: Config, krels: Sequence[str]) -> int:
    """0 when every kernel (or every one that is named) is ready then, else 1; 130: Ctrl-C. Raises UnknownKernel.

    What hooks left in the spool for these kernels is fulfilled by this as well.
    """
    named = [read_kernel(paths, krel).krel for krel in krels]
    with closing(Engine(paths, config, time.time)) as engine, cancelled_by_signals() as cancel:
        shot = _Shot(engine, Spool(paths), cancel, asked=bool(named))
        rescans = () if named else shot.entries(Verb.RESCAN)
        removed = [] if named else [shot.remove(entry) for entry in shot.entries(Verb.REMOVE)]
        wanted = named or list(engine.kernels_to_check())
        served = [shot.reconcile(krel) for krel in wanted]
        if all(served):
            shot.fulfil(rescans)
        engine.keep_small()
        engine.guard_boot()
    statuses = [s for s in read_machine(paths, config, (), time.time()) if s.krel in wanted]
    for status in statuses:
        say(status)
    if not wanted:
        log.warning(f"no kernel below {paths.modules}: nothing to do")
    if cancel.requested:
        log.warning("it was interrupted: what is left to do is done the next time")
        return INTERRUPTED
    return 0 if all([*removed, *served]) and all(s.readiness is Readiness.READY for s in statuses) else 1


@dataclass(frozen=True, slots=True)
class _Shot:
    engine: Engine
    spool: Spool
    cancel: Cancel
    asked: bool  # for these very kernels

    def entries(self, verb: Verb, krel: str | None = None) -> tuple[Entry, ...]:
        return tuple(e for e in self.spool.read()[0] if e.job.verb is verb and krel in (None, e.job.krel))

    def remove(self, entry: Entry) -> bool:
        return self._do(entry.job, lambda: self.engine.remove(entry.job.krel), (entry,))

    def reconcile(self, krel: str) -> bool:
        entries = self.entries(Verb.RECONCILE, krel)
        asked = self.asked or any(e.job.why in SPEAKS_FOR_KERNEL for e in entries)
        force = any(e.job.force for e in entries)
        work = partial(self.engine.reconcile, krel, asked=asked, force=force, cancel=self.cancel, progress=log.info)
        return self._do(Job(Verb.RECONCILE, krel, WHY, time.time()), work, entries)

    def fulfil(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.spool.remove(entry)

    def _do(self, job: Job, work: Callable[[], object], entries: Sequence[Entry]) -> bool:
        """An intent that was there before the work is fulfilled by it; one that came meanwhile is not."""
        with journal.context(job=job.handle, krel=job.krel):
            try:
                work()
                if self.cancel.requested:
                    return False
                self.fulfil(entries)
            except (AutokmodError, OSError) as exc:
                log.error(f"{job.krel}: {exc}", kind=Event.JOB_FAILED)
                return False
        return True
