"""The image that stood before is put back, by a person's order; what is in it then is looked at, and recorded."""

from __future__ import annotations

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
    step = InitrdStep(paths, config, krel, looker.records, Cancel(), unattended)
    found = find_image(paths, krel)
    if found is None:
        raise NoPrevious(krel, "no initrd of it is found")
    with locked(paths.lock):
        try:
            restore(found.path)
        except FileNotFoundError as exc:
            raise NoPrevious(krel, f"nothing is kept beside {paths.inside(found.path)}") from exc
        return step.say_restored(looker.record(krel) or KernelRecord(krel, now, ()), found)
