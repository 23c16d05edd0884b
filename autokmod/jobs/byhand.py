"""What a person asks of one kernel's image: to have the former one put back, or an overlay for it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from autokmod.act.former import NoPrevious, restore
from autokmod.act.overlay import Overlay, make_overlay
from autokmod.config import Config
from autokmod.errors import FormatError
from autokmod.files import locked
from autokmod.jobs.initrd.look import Looking
from autokmod.jobs.initrd.step import InitrdStep
from autokmod.jobs.publishing import Publishing, unattended
from autokmod.model import KernelRecord
from autokmod.observe.image.base import read_base
from autokmod.observe.initrd import find_image
from autokmod.observe.kernels import list_krels
from autokmod.observe.modtree import module_name
from autokmod.observe.records import read_record
from autokmod.paths import Paths
from autokmod.run import Cancel


def restore_image(
    paths: Paths, config: Config, krel: str, now: float, publishing: Publishing = unattended
) -> KernelRecord:
    """Raises NoPrevious, FormatError, OSError."""
    found = find_image(paths, krel)
    if found is None:
        raise NoPrevious(krel, "no initrd of it is found")
    with locked(paths.lock), publishing(krel):
        record = read_record(paths, krel) or KernelRecord(krel, now, ())
        try:
            restore(found.path)
        except FileNotFoundError as exc:
            raise NoPrevious(krel, f"nothing is kept beside {paths.inside(found.path)}") from exc
        return InitrdStep(paths, config, krel, lambda: _records(paths), Cancel(), publishing).say_restored(
            record, found
        )


def overlay_by_hand(paths: Paths, config: Config, krel: str, image: Path, conf: Mapping[str, bytes]) -> Overlay | None:
    """With all that belongs in the image; None where nothing does. Raises FormatError, CommandFailed, ToolMissing,
    OSError."""
    record = read_record(paths, krel)
    base = read_base(str(image), krel, paths.modulesd(krel))
    carried = [module_name(path) for path in base.modules]
    looking = Looking(paths, config, krel, lambda: _records(paths))
    wanted = looking.expected(record, carried) if record is not None else {}
    return make_overlay(paths, krel, base, wanted, conf) if wanted else None


def _records(paths: Paths) -> dict[str, KernelRecord]:
    """Those that can be read: what other kernels' images carry is only a hint."""
    found: dict[str, KernelRecord] = {}
    for krel in list_krels(paths):
        with suppress(FormatError):
            record = read_record(paths, krel)
            found |= {krel: record} if record is not None else {}
    return found
