"""The last step of a kernel: its initrd carries what stands on disk, seen by looking into it.

The image is only made anew where it is concerned and wrong: at most one run of its generator for all packages, and
without the lock, since it takes long. What it made is then held against what stands on disk at that moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from autokmod.act.generators import Generator
from autokmod.act.generators.choose import choose
from autokmod.act.initrd import Draft, InitrdFailed, drafted, tell
from autokmod.act.overlay import Overlay, append, overlaid
from autokmod.act.records import write_record
from autokmod.config import Config
from autokmod.decide.image import Claims, Standing, belonging, judge_image
from autokmod.errors import AutokmodError, FormatError
from autokmod.files import locked
from autokmod.jobs.overlay import overlay_for
from autokmod.model import KernelRecord, PlacedFile, Placement, Reason
from autokmod.observe.blob import read_blob
from autokmod.observe.image.base import Base
from autokmod.observe.image.carried import Carried, read_carried
from autokmod.observe.image.named import read_named
from autokmod.observe.initrd import Found, find_image, identify, is_boot_away
from autokmod.observe.modtree import read_needs
from autokmod.observe.pkglock import find_busy_lock
from autokmod.observe.records import read_record
from autokmod.paths import Paths
from autokmod.run import Cancel

Publishing = Callable[[str], AbstractContextManager[None]]
Making = Callable[[KernelRecord, Found, "Examined"], KernelRecord]
RESTORED, UNTOLD = "initrd-restored", "initrd-untold"
MOST_NAMED = 5  # of the reasons in one sentence


class Overtaken(InitrdFailed):
    """What was made is of no use any more: somebody else is at the image, or was."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One look into an image."""

    expected: Mapping[str, str]  # module → why it belongs there
    problems: tuple[Reason, ...]
    made_by: str | None
    wrong: frozenset[str] | None  # the modules that problems are about; None: the image as a whole
    laid_over: frozenset[str]  # what an overlay carries


@dataclass(frozen=True, slots=True)
class InitrdStep:
    paths: Paths
    config: Config
    krel: str
    records: Callable[[], Mapping[str, KernelRecord]]
    cancel: Cancel
    publishing: Publishing
    force: bool = False  # also where a person put the former image back

    def run(self, record: KernelRecord) -> KernelRecord:
        """The record with the last word on the image, which is left alone while a package manager is at work: it may be
        making one itself. Raises OSError, FormatError."""
        found = find_image(self.paths, self.krel)
        if record.index is not None or record.going:
            return record
        has_files = any(_files(p) for p in record.placements)
        if found is None and has_files and is_boot_away(self.paths, self.krel):
            why = "/boot is not mounted: whether its initrd is right cannot be seen"
            return self._settle(record, Reason("initrd-away", why, hint="mount /boot"), ok=False)
        if self._is_known(record, found):
            return record
        if find_busy_lock(self.paths) is not None:
            return self._settle(record, self._due(), ok=False) if record.initrd_ok and has_files else record
        return self._examine(record, found) if found is not None else self._without_image(record)

    def _without_image(self, record: KernelRecord) -> KernelRecord:
        """A kernel may do without one; not, until a person says so, one whose image carried what it needs."""
        if not record.initrd_modules or self.force:
            return self._settle(record, Reason("initrd-none", "there is no initrd for this kernel"), ok=True)
        text = f"its initrd is gone, which carried {', '.join(record.initrd_modules)}"
        hint = f"make it anew; if it needs none: autokmodctl reconcile --force {self.krel}"
        return self._settle(record, Reason("initrd-gone", text, hint=hint), ok=False, modules=record.initrd_modules)

    def _is_known(self, record: KernelRecord, found: Found | None) -> bool:
        """Nothing changed since it was found good, or put back by hand: neither modules nor image."""
        is_restored = record.initrd is not None and record.initrd.kind == RESTORED and not self.force
        if not record.initrd_ok and not is_restored:
            return False
        return record.initrd_seen == (identify(found.path) if found is not None else None)

    def _examine(self, record: KernelRecord, found: Found) -> KernelRecord:
        seen = identify(found.path)
        looked = self.look(record, found.path)
        if not looked.problems:
            word, modules = self._good(found.path, looked), tuple(looked.expected)
            untold = self._tell_again(record, found, looked)
            return self._settle(record, untold or word, ok=untold is None, seen=seen, modules=modules)
        if self._is_for_overlay(looked, self._overlaid(record)):
            return self._try(self._lay_over, record, found, looked)
        if not self.config.initrd.regenerate:
            why = self._stale(found.path, looked.problems)
            why = replace(why, hint="set initrd.regenerate, or make it anew")
            return self._settle(record, why, ok=False, seen=seen)
        return self._try(self._make_anew, record, found, looked)

    def _try(self, make: Making, record: KernelRecord, found: Found, looked: Examined) -> KernelRecord:
        try:
            return make(record, found, looked)
        except Overtaken:
            return self._settle(record, self._due(), ok=False)
        except InitrdFailed as exc:
            failed = exc
        except OSError as exc:  # a /boot that is read-only, or full
            failed = InitrdFailed(self.paths.inside(found.path), str(exc))
        if self.cancel.requested:
            return record
        text = f"{failed}; it stays as it was: {_sentence(looked.problems)}"
        return self._settle(record, Reason("initrd-failed", text, hint=failed.hint or None), ok=False)

    def _tell_again(self, record: KernelRecord, found: Found, looked: Examined) -> Reason | None:
        """Where the boot loader was not told the last time, a good image proves nothing."""
        if record.initrd is None or record.initrd.kind != UNTOLD:
            return None
        generator = choose(self.paths, found.place, looked.made_by)
        told = tell(self.paths, generator, self.krel, found.path, timeout_s=self.config.initrd.time_limit_s)
        return _untold(self._good(found.path, looked).text, told) if told is not None else None

    def _is_for_overlay(self, looked: Examined, overlaid: frozenset[str]) -> bool:
        """Nothing else is wrong than what is to be laid over."""
        return looked.wrong is not None and bool(looked.wrong) and looked.wrong <= overlaid

    def _overlaid(self, record: KernelRecord) -> frozenset[str]:
        """Kernel names of what reaches the image by an overlay alone."""
        config = self.config
        chosen = [
            p for p in record.placements if config.initrd.overlay or config.package(p.package).initrd == "overlay"
        ]
        return frozenset(f.module for p in chosen for f in p.files)

    # ---- looking

    def look(self, record: KernelRecord, image: Path, before: Iterable[str] = ()) -> Examined:
        """`before`: what belonged into the image that it is to replace."""
        standing = read_standing(self.paths, record)
        damage: tuple[Reason, ...] = ()
        try:
            carried = read_carried(str(image), self.krel, standing)
        except (FormatError, OSError) as exc:
            carried = Carried({}, {}, b"", (), None)
            damage = (Reason("initrd-damaged", f"no kernel would unpack it: {exc}"),)
        expected = self.expected(record, (*carried.modules, *before))
        here = {name: standing[name] for name in expected}
        wrong = judge_image(here, carried.modules, carried.digests, carried.index, carried.opaque)
        problems = damage or tuple(wrong.values())
        return Examined(expected, problems, carried.made_by, None if damage else frozenset(wrong), carried.laid_over)

    def expected(self, record: KernelRecord, carried: Iterable[str]) -> dict[str, str]:
        """Of the modules that stand those that belong in the image, and why. `carried`: kernel names."""
        declared = {p.package for p in record.placements if self.config.package(p.package).initrd}
        claims = Claims(
            carried=frozenset([*carried, *self._carried_elsewhere()]),
            declared=frozenset(f.module for p in record.placements if p.package in declared for f in _files(p)),
            named=read_named(self.paths),
            needs=read_needs(self.paths.modulesd(self.krel)),
        )
        return belonging((f.module for p in record.placements for f in _files(p)), claims)

    def _carried_elsewhere(self) -> frozenset[str]:
        """What good images of other kernels carry: this one's may have been made before the module was there."""
        others = (r for krel, r in self.records().items() if krel != self.krel and r.initrd_ok)
        return frozenset(m for r in others for m in r.initrd_modules)

    # ---- making

    def _check_alone(self, record: KernelRecord, found: Found, seen: tuple[int, ...]) -> None:
        """A generator takes long. What another one made meanwhile may hold what ours could not know of."""
        is_same = found.path.exists() and identify(found.path) == seen
        if record.going or not is_same or find_busy_lock(self.paths) is not None:
            raise Overtaken(self.paths.inside(found.path), "somebody else was at it meanwhile")

    def _make_anew(self, record: KernelRecord, found: Found, before: Examined) -> KernelRecord:
        generator, seen = choose(self.paths, found.place, before.made_by), identify(found.path)
        limit = self.config.initrd.time_limit_s
        with (
            self.publishing(self.krel),
            drafted(self.paths, generator, self.krel, found.path, timeout_s=limit, cancel=self.cancel) as draft,
            locked(self.paths.lock),
        ):
            record = read_record(self.paths, self.krel) or record
            looked = self.look(record, draft.path, before.expected)
            # What only an overlay carried the generator may not know of, whatever the configuration says now.
            overlaid = self._overlaid(record) | before.laid_over
            if self._is_for_overlay(looked, overlaid):
                base, overlay = self._overlay(draft.path, looked, overlaid)
                append(self.paths, draft.path, draft.path, base, overlay)
                looked = self.look(record, draft.path, before.expected)
            if not generator.in_place:
                self._check_alone(record, found, seen)
            text = f"{self.paths.inside(found.path)} was made anew by {generator.name}"
            return self._publish(record, found, draft, looked, generator, Reason("initrd-refreshed", text))

    def _lay_over(self, record: KernelRecord, found: Found, before: Examined) -> KernelRecord:
        generator = choose(self.paths, found.place, before.made_by)
        with self.publishing(self.krel), locked(self.paths.lock):
            record = read_record(self.paths, self.krel) or record
            base, overlay = self._overlay(found.path, before, self._overlaid(record))
            with overlaid(self.paths, found.path, base, overlay) as draft:
                looked = self.look(record, draft.path, before.expected)
                text = f"to {self.paths.inside(found.path)} an overlay was appended"
                return self._publish(record, found, draft, looked, generator, Reason("initrd-overlaid", text))

    def _overlay(self, image: Path, looked: Examined, overlaid: frozenset[str]) -> tuple[Base, Overlay]:
        """For all that it is to carry, not only for what is wrong: it takes the place of a former one."""
        wanted = frozenset(looked.expected) & overlaid
        try:
            return overlay_for(self.paths, self.krel, image, wanted, self.config.initrd.modprobe_conf)
        except (AutokmodError, OSError) as exc:
            raise InitrdFailed(self.paths.inside(image), f"no overlay can be made: {exc}") from exc

    def _publish(
        self, record: KernelRecord, found: Found, draft: Draft, looked: Examined, generator: Generator, word: Reason
    ) -> KernelRecord:
        if looked.problems:
            inside = self.paths.inside(found.path)
            made = f"what {generator.name} made" if word.kind == "initrd-refreshed" else "with an overlay it"
            raise InitrdFailed(inside, f"{made} is no better: {_sentence(looked.problems)}")
        draft.publish()
        seen, modules = identify(found.path), tuple(looked.expected)
        told = tell(self.paths, generator, self.krel, found.path, timeout_s=self.config.initrd.time_limit_s)
        text = f"{word.text}, with {', '.join(modules)}"
        if told is not None:
            return self._say(record, _untold(text, told), ok=False, seen=seen, modules=modules)
        return self._say(record, replace(word, text=text), ok=True, seen=seen, modules=modules)

    # ---- saying

    def _due(self) -> Reason:
        text = "its initrd is looked into as soon as the package manager has finished"
        return Reason("initrd-due", text, hint=f"autokmodctl reconcile {self.krel}")

    def _settle(
        self,
        record: KernelRecord,
        word: Reason,
        *,
        ok: bool,
        seen: tuple[int, ...] | None = None,
        modules: tuple[str, ...] = (),
    ) -> KernelRecord:
        """Without the lock until now: what was recorded meanwhile is about other modules, and stays."""
        with locked(self.paths.lock):
            current = read_record(self.paths, self.krel) or record
            if current.going or current.placements != record.placements:
                return current
            return self._say(current, word, ok=ok, seen=seen, modules=modules)

    def say_restored(self, record: KernelRecord, found: Found) -> KernelRecord:
        """What a person put back stays, right or not, until modules change or somebody forces it."""
        looked = self.look(record, found.path, record.initrd_modules)
        text = f"{self.paths.inside(found.path)} is the former one, put back by hand"
        ok = not looked.problems
        hint = None if ok else f"to have it made anew: autokmodctl reconcile --force {self.krel}"
        text += "" if ok else f": {_sentence(looked.problems)}"
        modules = tuple(looked.expected) if ok else ()
        return self._say(record, Reason(RESTORED, text, hint=hint), ok=ok, seen=identify(found.path), modules=modules)

    def _good(self, image: Path, looked: Examined) -> Reason:
        inside = self.paths.inside(image)
        if not looked.expected:
            return Reason("initrd-not-concerned", f"{inside} carries none of these modules, and need not")
        return Reason("initrd-right", f"{inside} carries {', '.join(looked.expected)} as on disk")

    def _stale(self, image: Path, problems: Iterable[Reason]) -> Reason:
        return Reason("initrd-stale", f"{self.paths.inside(image)} is not right: {_sentence(problems)}")

    def _say(
        self,
        record: KernelRecord,
        word: Reason,
        *,
        ok: bool,
        seen: tuple[int, ...] | None = None,
        modules: tuple[str, ...] = (),
    ) -> KernelRecord:
        done = replace(record, initrd=word, initrd_ok=ok, initrd_seen=seen, initrd_modules=modules)
        if done != record:
            write_record(self.paths, done)
        return done


def read_standing(paths: Paths, record: KernelRecord) -> dict[str, Standing]:
    """What is placed and verified on this kernel. Raises OSError, FormatError: it was verified a moment ago."""
    modulesd = paths.modulesd(record.krel)
    files = [f for p in record.placements for f in _files(p)]
    return {f.module: Standing(f.path, hashlib.sha256(read_blob(modulesd / f.path)).hexdigest()) for f in files}


def _files(placement: Placement) -> tuple[PlacedFile, ...]:
    """Also another owner's that are relied upon: for an image it is all the same who made them."""
    return placement.files or (placement.beside if placement.verified else ())


def _untold(text: str, told: str) -> Reason:
    return Reason(UNTOLD, f"{text}; but what tells the boot loader failed: {told}")


def _sentence(problems: Iterable[Reason]) -> str:
    texts = [p.text for p in problems]
    more = f", and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return "; ".join(texts[:MOST_NAMED]) + more
