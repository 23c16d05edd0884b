"""The store kept small. What is decided upon is what the disk says while nobody builds and nobody places."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from autokmod import journal
from autokmod.act.place import placed_packages
from autokmod.act.scratch import sweep
from autokmod.act.store import read_store, remove_build
from autokmod.config import Config
from autokmod.decide.collect import Removal, Use, decide_collection, decide_damaged
from autokmod.errors import AutokmodError, FormatError
from autokmod.events import Event
from autokmod.files import locked, locked_at_once
from autokmod.model import KernelRecord
from autokmod.observe.kernels import is_krel, list_krels
from autokmod.observe.records import read_record
from autokmod.paths import Paths

MIB = 1 << 20

log = journal.get()


class StoreBusy(AutokmodError):
    dbus_name = "Busy"

    def __str__(self) -> str:
        return "something is being built: what it needs is not known, so nothing is collected; try it again afterwards"


@dataclass(frozen=True, slots=True)
class Collection:
    removed: tuple[Removal, ...]
    builds: int  # that are left
    size: int  # bytes of all that is left
    swept: int = 0  # directories that killed processes left behind

    @property
    def freed(self) -> int:
        return sum(r.size for r in self.removed)


def preview_collection(paths: Paths, config: Config, now: float, bound: int | None = None) -> Collection:
    """What would go; nothing is changed, and anybody may ask. Raises OSError."""
    entries, damaged = read_store(paths)
    removed = decide_collection(entries, _find_use(paths), config.store, now, bound)
    removed += decide_damaged(damaged, config.store, now)
    names = {r.name for r in removed}
    left = [e for e in entries if e.build.key not in names]
    size = sum(e.size for e in left) + sum(d.size for d in damaged if d.name not in names)
    return Collection(removed, len(left), size)


def collect_store(paths: Paths, config: Config, now: float, bound: int | None = None) -> Collection:
    """`bound` in bytes: only what is too much; None: all that is spare. Raises StoreBusy, OSError."""
    with locked_at_once(paths.build_lock) as is_ours:
        if not is_ours:
            raise StoreBusy
        with locked(paths.lock):
            swept = sum(sweep(d) for d in (paths.builds, paths.work) if d.is_dir())
            found = preview_collection(paths, config, now, bound)
            for removal in found.removed:
                remove_build(paths, removal.name)
    _tell(found)
    return Collection(found.removed, found.builds, found.size, swept)


def _find_use(paths: Paths) -> Use:
    krels = list_krels(paths)
    records = {krel: _record(paths, krel) for krel in (*krels, *_recorded(paths))}
    placements = [p for record in records.values() if record for p in record.placements]
    logs = {Path(p.log).parent.name for p in placements if p.log}
    unknown = {name for krel in krels for name in placed_packages(paths, krel) - _keyed(records[krel])}
    return Use(frozenset(logs | {p.key for p in placements if p.key}), frozenset(unknown), frozenset(krels))


def _keyed(record: KernelRecord | None) -> frozenset[str]:
    return frozenset(p.package for p in record.placements if p.files and p.key) if record else frozenset()


def _record(paths: Paths, krel: str) -> KernelRecord | None:
    """A damaged one says nothing; the next look sets it aside."""
    with contextlib.suppress(FormatError):
        return read_record(paths, krel)
    return None


def _recorded(paths: Paths) -> Iterator[str]:
    """Kernels that are here no more may have left their record."""
    return (file.stem for file in paths.kernels.glob("*.json") if is_krel(file.stem))


def _tell(found: Collection) -> None:
    for removal in found.removed:
        if removal.reason.kind == "damaged":
            log.warning(f"{removal.reason.text}; removed from the store", kind=Event.STATE_DAMAGED)
    count = len(found.removed)
    if count:
        what = f"{count} build{'' if count == 1 else 's'} that nothing uses, {found.freed / MIB:.1f} MiB"
        left = f"{found.builds} builds, {found.size / MIB:.1f} MiB"
        log.notice(f"removed {what}; {left} are left", kind=Event.STORE_COLLECTED, result="removed", freed=found.freed)


@dataclass(slots=True)
class Keeper:
    """Collects above the configured bound, when something was stored since the last look."""

    paths: Paths
    config: Config
    seen: int = field(default=0)  # mtime of the store then

    def keep_small(self, now: float) -> None:
        bound = self.config.store.max_size_mb * MIB
        changed = self._changed_at()
        if not bound or changed == self.seen:
            return
        try:
            collect_store(self.paths, self.config, now, bound)
        except StoreBusy:
            return  # after the next job, then
        except OSError as exc:
            log.warning(f"the store cannot be kept small: {exc}", result="failed")
        self.seen = self._changed_at()

    def _changed_at(self) -> int:
        try:
            return os.stat(self.paths.builds).st_mtime_ns
        except OSError:
            return self.seen
