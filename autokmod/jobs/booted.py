"""The kernel that runs is compared with what was promised for it, until all of that was loaded in this boot.

When all is well, too, the image that was kept in case it would not boot is removed; but not one that was made since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from autokmod import journal
from autokmod.act.initrd import forget_previous
from autokmod.act.records import write_record
from autokmod.config import Config
from autokmod.decide.boot import Promise, boot_sentence, decide_booted
from autokmod.errors import FormatError
from autokmod.events import Event
from autokmod.files import locked
from autokmod.model import BootCheck, KernelRecord, LoadState
from autokmod.observe.boot import Boot, read_boot, read_id, read_loaded
from autokmod.observe.initrd import find_image
from autokmod.observe.records import read_record
from autokmod.paths import Paths

log = journal.get()


def check_boot(paths: Paths, config: Config, now: float, *, here: bool | None = None) -> KernelRecord | None:
    """The running kernel's record, if there is one. `here`: the system below the root is the one that runs (default:
    only if that is /). Raises OSError."""
    boot = read_boot(paths) if (paths.root == Path("/") if here is None else here) else None
    if boot is None or not paths.record(boot.krel).exists():
        return None
    with locked(paths.lock):
        record = _record(paths, boot.krel)
        if record is None or record.going or _is_done(record, boot):
            return record
        promises = tuple(_promises(paths, config, record))
        loaded = read_loaded(paths, [p.module for p in promises])
        modules = decide_booted(promises, loaded, _kept(record, boot))
        return _keep(paths, record, BootCheck(boot.id, now, modules), boot)


def _record(paths: Paths, krel: str) -> KernelRecord | None:
    """A damaged one is for the job that makes it anew."""
    try:
        return read_record(paths, krel)
    except FormatError:
        return None


def _is_done(record: KernelRecord, boot: Boot) -> bool:
    """Hardware may come late, and its module with it."""
    return record.booted is not None and {m.module for m in record.booted.modules} == _kept(record, boot) != set()


def _kept(record: KernelRecord, boot: Boot) -> set[str]:
    booted = record.booted if record.booted is not None and record.booted.boot_id == boot.id else None
    return {m.module for m in booted.modules if m.state is LoadState.LOADED} if booted is not None else set()


def _promises(paths: Paths, config: Config, record: KernelRecord) -> Iterator[Promise]:
    modulesd = paths.modulesd(record.krel)
    for placement in (p for p in record.placements if p.is_good):
        required = config.package(placement.package).required
        for file in placement.files:
            try:
                yield Promise(file.module, placement.package, read_id(modulesd / file.path), required)
            except (OSError, FormatError) as exc:
                log.warning(f"{record.krel}: what is loaded cannot be compared with {file.path}: {exc}")


def _keep(paths: Paths, record: KernelRecord, check: BootCheck, boot: Boot) -> KernelRecord:
    before = record.booted
    if before is not None and (before.boot_id, before.modules) == (check.boot_id, check.modules):
        return record
    done = replace(record, booted=check)
    write_record(paths, done)
    if check.modules:
        say, kind = (log.info, Event.BOOT_AS_PROMISED) if check.is_good else (log.warning, Event.BOOT_DIFFERS)
        say(f"{record.krel}: {boot_sentence(check)}", kind=kind, krel=record.krel)
    if check.is_good:
        _forget_previous(paths, boot)
    return done


def _forget_previous(paths: Paths, boot: Boot) -> None:
    found = find_image(paths, boot.krel)
    if found is None or found.path.stat().st_ctime >= boot.at:
        return
    if forget_previous(found.path):
        log.info(f"{boot.krel} booted with {paths.inside(found.path)}: the one before it is not needed any more")
