"""When a kernel's image is looked into, and whether it is made anew.

Only where it is concerned and wrong: at most one run of its generator for all packages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autokmod.act.initrd import InitrdFailed
from autokmod.config import Config
from autokmod.decide.image import OPAQUE
from autokmod.jobs.initrd.look import Examined, Looking, placed
from autokmod.jobs.initrd.make import Making, Overtaken, making
from autokmod.jobs.initrd.say import (
    FAILED,
    RESTORED,
    UNTOLD,
    WAIT_LIMIT_S,
    Finding,
    due,
    good,
    note,
    sentence,
    settle,
    stale,
)
from autokmod.jobs.publishing import Publishing
from autokmod.model import KernelRecord, Reason
from autokmod.observe.atwork import find_at_work
from autokmod.observe.bootplaces import find_away
from autokmod.observe.initrd import Found, find_image, identify
from autokmod.paths import Paths
from autokmod.run import Cancel

Make = Callable[[KernelRecord, Examined], KernelRecord]


@dataclass(frozen=True, slots=True)
class InitrdStep:
    paths: Paths
    config: Config
    krel: str
    records: Callable[[], Mapping[str, KernelRecord]]
    cancel: Cancel
    publishing: Publishing
    force: bool = False  # also where a person put the former image back
    clock: Callable[[], float] = time.time
    asked: bool = True  # False: something may have changed; a failure of before need not be tried once more

    def run(self, record: KernelRecord) -> KernelRecord:
        """The record with the last word on the image, which is left alone while a package manager is at work: it may be
        making one itself. Raises OSError, FormatError."""
        found = find_image(self.paths, self.krel)
        if record.index is not None or record.going:
            return record
        has_files = any(placed(p) for p in record.placements)
        away = find_away(self.paths, self.krel) if found is None and has_files else None
        if away is not None:
            why = f"{away} is not mounted: whether its initrd is right cannot be seen"
            return self._settle(record, Finding(Reason("initrd-away", why, hint=f"mount {away}"), ok=False))
        if self._is_known(record, found):
            return record
        who = find_at_work(self.paths)
        if who is not None and not self._has_waited(record):
            return self._wait(record, who) if has_files or record.initrd_modules else record
        return self._examine(record, found) if found is not None else self._without_image(record)

    def _wait(self, record: KernelRecord, who: str) -> KernelRecord:
        since = self.clock() if record.initrd_waits_since is None else record.initrd_waits_since
        return self._settle(record, due(who, since))

    def _has_waited(self, record: KernelRecord) -> bool:
        """Long enough; or the clock was put back, and nobody can tell."""
        since = record.initrd_waits_since
        return since is not None and not 0 <= self.clock() - since < WAIT_LIMIT_S

    def say_restored(self, record: KernelRecord, found: Found) -> KernelRecord:
        """Under the lock. What a person put back stays, right or not, until modules change or somebody forces it."""
        looked = self.looking.look(record, found.path, record.initrd_modules)
        text = f"{self.paths.inside(found.path)} is the former one, put back by hand"
        seen = identify(found.path)
        if not looked.problems:
            modules = tuple(looked.expected)
            return note(self.paths, record, Finding(Reason(RESTORED, text), ok=True, seen=seen, modules=modules))
        hint = f"to have it made anew: autokmodctl reconcile --force {self.krel}"
        word = Reason(RESTORED, f"{text}: {sentence(looked.problems)}", hint=hint)
        return note(self.paths, record, Finding(word, ok=False, seen=seen))

    @property
    def looking(self) -> Looking:
        return Looking(self.paths, self.config, self.krel, self.records)

    def _without_image(self, record: KernelRecord) -> KernelRecord:
        """A kernel may do without one; not, until a person says so, one whose image carried what it needs."""
        if not record.initrd_modules or self.force:
            return self._settle(record, Finding(Reason("initrd-none", "there is no initrd for this kernel"), ok=True))
        text = f"its initrd is gone, which carried {', '.join(record.initrd_modules)}"
        hint = f"make it anew; if it needs none: autokmodctl reconcile --force {self.krel}"
        gone = Finding(Reason("initrd-gone", text, hint=hint), ok=False, modules=record.initrd_modules)
        return self._settle(record, gone)

    def _is_known(self, record: KernelRecord, found: Found | None) -> bool:
        """Nothing changed since the last word on it, neither modules nor image; and that word was a good one, or a
        person's own, or it is a failure of which our own writing would tell us again and again."""
        kind = record.initrd.kind if record.initrd is not None else None
        is_last = kind == RESTORED and not self.force
        is_echo = kind == FAILED and record.initrd_seen is not None and not self.asked and not self.force
        if not (record.initrd_ok or is_last or is_echo):
            return False
        return record.initrd_seen == (identify(found.path) if found is not None else None)

    def _examine(self, record: KernelRecord, found: Found) -> KernelRecord:
        seen, inside = identify(found.path), self.paths.inside(found.path)
        looked = self.looking.look(record, found.path)
        is_late = self._has_waited(record)
        maker = making(self.looking, found, looked.made_by, self.cancel, self.publishing, regardless=is_late)
        if not looked.problems:
            right = good(inside, seen, tuple(looked.expected))
            is_untold = record.initrd is not None and record.initrd.kind == UNTOLD
            is_untold = is_untold or maker.wrong_copy(record, right.modules) is not None
            return maker.tell(record, right) if is_untold else self._settle(record, right)
        if looked.is_hidden:  # what a generator makes would be hidden as well
            word = Reason(OPAQUE, f"of {inside} nobody knows: {sentence(looked.problems)}")
            return self._settle(record, Finding(word, ok=False, seen=seen))
        if looked.is_for_overlay(self.looking.overlaid(record)):
            return self._try(maker, maker.lay_over, record, looked)
        if not self.config.initrd.regenerate:
            word = stale(inside, looked.problems, hint="set initrd.regenerate, or make it anew")
            return self._settle(record, Finding(word, ok=False, seen=seen))
        return self._try(maker, maker.anew, record, looked)

    def _try(self, maker: Making, make: Make, record: KernelRecord, looked: Examined) -> KernelRecord:
        try:
            return make(record, looked)
        except Overtaken:
            return self._wait(record, find_at_work(self.paths) or "whoever was at it meanwhile")
        except InitrdFailed as exc:
            failed = exc
        except OSError as exc:  # a /boot that is read-only, or full
            failed = InitrdFailed(maker.inside, str(exc))
        if self.cancel.requested:
            return record
        text = f"{failed}; it stays as it was: {sentence(looked.problems)}"
        # What was written into the image itself, and put back, is news to whoever watches: see _is_known.
        echoes = maker.generator.in_place and maker.found.path.exists()
        seen = identify(maker.found.path) if echoes else None
        return self._settle(record, Finding(Reason(FAILED, text, hint=failed.hint or None), ok=False, seen=seen))

    def _settle(self, record: KernelRecord, finding: Finding) -> KernelRecord:
        return settle(self.paths, record, finding)
