"""The same engine in the foreground, without bus, inotify or systemd: for image builders, chroots, containers."""

from __future__ import annotations

import time
from collections.abc import Sequence

from autokmod import journal
from autokmod.config import Config
from autokmod.errors import AutokmodError
from autokmod.events import Event
from autokmod.jobs.engine import Engine
from autokmod.jobs.machine import read_machine
from autokmod.model import KernelStatus, Readiness
from autokmod.observe.kernels import read_kernel
from autokmod.paths import Paths

log = journal.get()


def run_oneshot(paths: Paths, config: Config, krels: Sequence[str]) -> int:
    """0 when every kernel (or every one that is named) is ready then, else 1. Raises UnknownKernel."""
    engine = Engine(paths, config, time.time)
    named = [read_kernel(paths, krel).krel for krel in krels]
    wanted = named or list(engine.kernels_to_check())
    served = [_serve(engine, krel) for krel in wanted]
    statuses = [s for s in read_machine(paths, config, (), time.time()) if s.krel in wanted]
    for status in statuses:
        _tell(status)
    if not wanted:
        log.warning(f"no kernel below {paths.modules}: nothing to do")
    return 0 if all(served) and all(s.readiness is Readiness.READY for s in statuses) else 1


def _serve(engine: Engine, krel: str) -> bool:
    try:
        engine.reconcile(krel, progress=log.info)
    except (AutokmodError, OSError) as exc:
        log.error(f"{krel}: {exc}", kind=Event.JOB_FAILED, krel=krel)
        return False
    return True


def _tell(status: KernelStatus) -> None:
    why = f": {status.reasons[0].text}" if status.reasons else ""
    say = log.info if status.readiness is Readiness.READY else log.warning
    say(f"{status.krel} is {status.readiness}{why}", krel=status.krel, result=status.readiness)
