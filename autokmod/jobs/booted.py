"""The kernel that runs is compared with what was promised for it, until all of that was loaded in this boot.

When all is well, too, the image that was kept in case it would not boot is removed; but not one that was made since.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from autokmod import journal
from autokmod.act.former import forget_previous
from autokmod.act.records import write_record
from autokmod.config import Config
from autokmod.decide.boot import Promise, boot_sentence, decide_booted, decide_lacking
from autokmod.errors import FormatError
from autokmod.events import Event
from autokmod.files import locked
from autokmod.model import BootCheck, KernelRecord, LoadState
from autokmod.observe.boot import Boot, read_boot, read_id, read_loaded
from autokmod.observe.initrd import find_image
from autokmod.observe.records import read_record
from autokmod.paths import Paths

log = journal.get()


def compare_boot(paths: Paths, config: Config, now: float, *, here: bool | None = None) -> bool:
    """Whether anything may still become right in this boot. What fails is told, and holds up nobody."""
    try:
        record = check_boot(paths, config, now, here=here)
    except OSError as exc:
        krel = os.uname().release
        text = f"{krel}: what this boot loaded was not compared with what was promised, or that was not recorded: {exc}"
        hint = "it is tried again with the next look, and after 'systemctl restart autokmodd'"
        log.warning(f"{text}; {hint}", kind=Event.BOOT_CHECK_FAILED, krel=krel)
        return True
    return record is not None and not record.going and record.booted is not None and not record.booted.is_over


def check_boot(paths: Paths, config: Config, now: float, *, here: bool | None = None) -> KernelRecord | None:
    """The running kernel's record, if there is one. `here`: the system below the root is the one that runs (default:
    only if that is /). Raises OSError."""
    boot = read_boot(paths) if (paths.root == Path("/") if here is None else here) else None
    if boot is None or not paths.record(boot.krel).exists():
        return None
    with locked(paths.lock):
        record = _record(paths, boot.krel)
        if record is None or record.going:
            return record
        before = record.booted if record.booted is not None and record.booted.boot_id == boot.id else None
        if before is not None and before.modules and before.is_over:
            return record
        check = _settle(paths, boot, before, _compare(paths, config, record, before, boot, now))
        if before is not None and replace(check, checked_at=before.checked_at) == before:
            return record
        done = replace(record, booted=check)
        write_record(paths, done)
        _tell(boot.krel, before, check)
        return done


def _record(paths: Paths, krel: str) -> KernelRecord | None:
    """A damaged one is for the job that makes it anew."""
    try:
        return read_record(paths, krel)
    except FormatError:
        return None


def _compare(
    paths: Paths, config: Config, record: KernelRecord, before: BootCheck | None, boot: Boot, now: float
) -> BootCheck:
    """`before`: what was found earlier in this boot. What was loaded then counts: hardware may come late."""
    kept = {m.module for m in before.modules if m.state is LoadState.LOADED} if before is not None else set()
    required = config.required(record.krel)
    promises = tuple(_promises(paths, record, required, boot, is_first=before is None))
    loaded = read_loaded(paths, [p.module for p in promises])
    lacking = decide_lacking(promises, required, kept)
    return BootCheck(boot.id, now, decide_booted(promises, loaded, kept), lacking)


def _promises(
    paths: Paths, record: KernelRecord, required: Collection[str], boot: Boot, *, is_first: bool
) -> Iterator[Promise]:
    """Another owner's files as well, where they make ours needless."""
    for placement in (p for p in record.placements if p.is_good):
        name = placement.package
        for file in placement.files or placement.beside:
            path = paths.modulesd(record.krel) / file.path
            try:
                yield Promise(file.module, name, read_id(path), name in required, path.lstat().st_ctime >= boot.at)
            except (OSError, FormatError) as exc:
                yield Promise(file.module, name, None, name in required)
                if is_first:
                    text = f"{record.krel}: what is loaded cannot be compared with {file.path}: {exc}"
                    log.warning(text, kind=Event.BOOT_CHECK_FAILED, krel=record.krel)


def _settle(paths: Paths, boot: Boot, before: BootCheck | None, check: BootCheck) -> BootCheck:
    """Once in a boot, unless it failed: what a person puts back after that is not in the way."""
    was_good = before is not None and before.is_good
    was_stuck = before is not None and before.previous_stays
    if not check.is_good or (was_good and not was_stuck):
        return check
    try:
        _forget_previous(paths, boot)
    except OSError as exc:
        if not was_stuck:
            text = f"{boot.krel} booted well, and the initrd before the present one could not be removed: {exc}"
            log.warning(f"{text}; it is tried again with the next look", kind=Event.BOOT_CHECK_FAILED, krel=boot.krel)
        return replace(check, previous_stays=True)
    return check


def _tell(krel: str, before: BootCheck | None, check: BootCheck) -> None:
    is_said = before is not None and (before.modules, before.lacking) == (check.modules, check.lacking)
    if not (is_said or check.is_about_nothing):
        say, kind = (log.info, Event.BOOT_AS_PROMISED) if check.is_good else (log.warning, Event.BOOT_DIFFERS)
        say(f"{krel}: {boot_sentence(check)}", kind=kind, krel=krel)


def _forget_previous(paths: Paths, boot: Boot) -> None:
    """Raises OSError."""
    found = find_image(paths, boot.krel)
    if found is None or found.path.stat().st_ctime >= boot.at:
        return
    if forget_previous(found.path):
        log.info(f"{boot.krel} booted with {paths.inside(found.path)}: the one before it is not needed any more")
