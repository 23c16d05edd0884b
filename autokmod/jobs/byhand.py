"""What a person asks of one kernel's image: to have the former one put back, or an overlay for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autokmod.act.initrd import NoPrevious, restore
from autokmod.act.overlay import Overlay, make_overlay
from autokmod.config import Config
from autokmod.files import locked
from autokmod.jobs.initrd import InitrdStep
from autokmod.jobs.look import Looker
from autokmod.jobs.reconcile import unattended
from autokmod.model import KernelRecord
from autokmod.observe.image.base import read_base
from autokmod.observe.initrd import find_image
from autokmod.observe.modtree import module_name
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


def overlay_by_hand(paths: Paths, config: Config, krel: str, image: Path, conf: Mapping[str, bytes]) -> Overlay | None:
    """With all that belongs in the image; None where nothing does. Raises FormatError, CommandFailed, ToolMissing,
    OSError."""
    looker, modulesd = Looker(paths, config), paths.modulesd(krel)
    record = looker.record(krel)
    base = read_base(str(image), krel, modulesd)
    carried = [module_name(path) for path in base.modules]
    wanted = _step(looker, krel).expected(record, carried) if record is not None else {}
    return make_overlay(paths, krel, base, wanted, conf) if wanted else None


def _step(looker: Looker, krel: str) -> InitrdStep:
    return InitrdStep(looker.paths, looker.config, krel, looker.records, Cancel(), unattended)
