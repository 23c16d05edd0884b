"""What a person asks of one kernel's image: to have the former one put back, and what belongs in it."""

from __future__ import annotations

from pathlib import Path

from autokmod.act.initrd import NoPrevious, restore
from autokmod.config import Config
from autokmod.files import locked
from autokmod.jobs.initrd import InitrdStep
from autokmod.jobs.look import Looker
from autokmod.jobs.reconcile import unattended
from autokmod.model import KernelRecord
from autokmod.observe.initrd import find_image
from autokmod.paths import Paths
from autokmod.run import Cancel


def restore_image(paths: Paths, config: Config, krel: str, now: float) -> KernelRecord:
    """Raises NoPrevious, OSError."""
    looker = Looker(paths, config)
    found = find_image(paths, krel)
    if found is None:
        raise NoPrevious(krel, "no initrd of it is found")
    with locked(paths.lock):
        try:
            restore(found.path)
        except FileNotFoundError as exc:
            raise NoPrevious(krel, f"nothing is kept beside {paths.inside(found.path)}") from exc
        return _step(looker, krel).say_restored(looker.record(krel) or KernelRecord(krel, now, ()), found)


def modules_for(paths: Paths, config: Config, krel: str, image: Path) -> tuple[str, ...]:
    """Kernel names of autokmod's modules that belong in it. Raises OSError, FormatError."""
    looker = Looker(paths, config)
    record = looker.record(krel)
    return tuple(_step(looker, krel).look(record, image).expected) if record is not None else ()


def _step(looker: Looker, krel: str) -> InitrdStep:
    return InitrdStep(looker.paths, looker.config, krel, looker.records, Cancel(), unattended)
