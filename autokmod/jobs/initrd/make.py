"""An image made anew, or laid over: beside the one that stands, looked into, and only then published.

A generator takes long, and so may those who tell a boot loader: neither runs under the lock. What a generator made is
held against what stands on disk at that moment.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace

from autokmod.act.generators import Generator
from autokmod.act.generators.choose import choose
from autokmod.act.initrd import Draft, InitrdFailed, drafted, tell
from autokmod.act.overlay import Overlay, append, overlaid
from autokmod.errors import AutokmodError, FormatError
from autokmod.files import locked
from autokmod.jobs.initrd.look import Examined, Looking
from autokmod.jobs.initrd.say import Finding, note, sentence, settle, untold
from autokmod.jobs.overlay import overlay_for
from autokmod.jobs.publishing import Publishing
from autokmod.model import KernelRecord, Reason
from autokmod.observe.atwork import find_at_work
from autokmod.observe.image.base import Base
from autokmod.observe.initrd import Found, find_copies, identify
from autokmod.observe.records import read_record
from autokmod.paths import Paths
from autokmod.run import Cancel

REFRESHED, OVERLAID = "initrd-refreshed", "initrd-overlaid"


class Overtaken(InitrdFailed):
    """What was made is of no use any more: somebody else is at the image, or was."""


@dataclass(frozen=True, slots=True)
class Making:
    looking: Looking
    found: Found
    generator: Generator
    cancel: Cancel
    publishing: Publishing
    regardless: bool = False  # of who is at work: they were waited for long enough

    def anew(self, record: KernelRecord, before: Examined) -> KernelRecord:
        """Raises InitrdFailed, OSError: then the image that stood stands."""
        with self.publishing(self.krel):
            record, finding = self._anew(record, before)
            return self.tell(record, finding)

    def lay_over(self, record: KernelRecord, before: Examined) -> KernelRecord:
        """Raises InitrdFailed, OSError: then the image that stood stands."""
        with self.publishing(self.krel):
            record, finding = self._lay_over(record, before)
            return self.tell(record, finding)

    def tell(self, record: KernelRecord, good: Finding) -> KernelRecord:
        """Who must be told of a new image was: only then is all well with it."""
        limit = self.looking.config.initrd.time_limit_s
        failure = tell(self.paths, self.generator, self.krel, self.found.path, timeout_s=limit)
        why = f"what tells the boot loader failed: {failure}" if failure else self.wrong_copy(record, good.modules)
        return settle(self.paths, record, good if why is None else untold(good, why))

    def wrong_copy(self, record: KernelRecord, modules: Collection[str]) -> str | None:
        """Boot loaders that do not read /boot have copies, which nobody may have made anew. `modules`: of the image."""
        for images in find_copies(self.paths, self.krel, self.found):
            looked = [self.looking.look(record, image, modules).problems for image in images]
            if all(looked):
                inside = self.paths.inside(images[0])
                return f"its copy for the boot loader, {inside}, is not right: {sentence(looked[0])}"
        return None

    # ---- under the lock, but for the generator

    def _anew(self, record: KernelRecord, before: Examined) -> tuple[KernelRecord, Finding]:
        image, seen = self.found.path, identify(self.found.path)
        limit = self.looking.config.initrd.time_limit_s
        drafting = drafted(
            self.paths, self.generator, self.krel, image,
            timeout_s=limit, cancel=self.cancel, is_going=self._is_going,
        )  # fmt: skip
        with drafting as draft, locked(self.paths.lock):
            record = self._reread(record)
            looked = self._look_and_lay_over(record, draft, before)
            self._check_alone(record, seen)
            word = Reason(REFRESHED, f"{self.inside} was made anew by {self.generator.name}")
            return self._publish(record, draft, looked, word)

    def _look_and_lay_over(self, record: KernelRecord, draft: Draft, before: Examined) -> Examined:
        """What only an overlay carried the generator may not know of, whatever the configuration says now."""
        looked = self.looking.look(record, draft.path, before.expected)
        overlaid = self.looking.overlaid(record) | before.laid_over
        if not looked.is_for_overlay(overlaid):
            return looked
        base, overlay = self._overlay(draft, looked, overlaid)
        append(self.paths, draft.path, draft.path, base, overlay)
        return self.looking.look(record, draft.path, before.expected)

    def _lay_over(self, record: KernelRecord, before: Examined) -> tuple[KernelRecord, Finding]:
        with locked(self.paths.lock):
            record = self._reread(record)
            stands = Draft(self.found.path, self.found.path)
            base, overlay = self._overlay(stands, before, self.looking.overlaid(record))
            with overlaid(self.paths, self.found.path, base, overlay) as draft:
                looked = self.looking.look(record, draft.path, before.expected)
                word = Reason(OVERLAID, f"to {self.inside} an overlay was appended")
                return self._publish(record, draft, looked, word)

    def _overlay(self, draft: Draft, looked: Examined, overlaid: frozenset[str]) -> tuple[Base, Overlay]:
        """For all that it is to carry, not only for what is wrong: it takes the place of a former one."""
        wanted, conf = frozenset(looked.expected) & overlaid, self.looking.config.initrd.modprobe_conf
        try:
            return overlay_for(self.paths, self.krel, draft.path, wanted, conf)
        except (AutokmodError, OSError) as exc:
            raise InitrdFailed(self.inside, f"no overlay can be made: {exc}") from exc

    def _check_alone(self, record: KernelRecord, seen: tuple[int, ...]) -> None:
        """What another one made meanwhile may hold what ours could not know of. Where the generator writes into the
        image itself, nobody can say what others did: what counts is what is in it.
        """
        image = self.found.path
        is_alone = image.exists() and (self.generator.in_place or identify(image) == seen)
        is_busy = not (self.generator.in_place or self.regardless) and find_at_work(self.paths) is not None
        if record.going or not is_alone or is_busy:
            raise Overtaken(self.inside, "somebody else was at it meanwhile")

    def _is_going(self) -> bool:
        with suppress(FormatError):
            record = read_record(self.paths, self.krel)
            return record is not None and record.going
        return False

    def _publish(
        self, record: KernelRecord, draft: Draft, looked: Examined, word: Reason
    ) -> tuple[KernelRecord, Finding]:
        """The record says that the boot loader is yet to be told, until it was: see tell."""
        if looked.problems:
            made = f"what {self.generator.name} made" if word.kind == REFRESHED else "with an overlay it"
            raise InitrdFailed(self.inside, f"{made} is no better: {sentence(looked.problems)}")
        draft.publish()
        modules = tuple(looked.expected)
        done = replace(word, text=f"{word.text}, with {', '.join(modules)}")
        finding = Finding(done, ok=True, seen=identify(self.found.path), modules=modules)
        needs_telling = self.generator.after is not None
        now = untold(finding, "the boot loader is yet to be told") if needs_telling else finding
        return note(self.paths, record, now), finding

    # ---- shorter names

    def _reread(self, record: KernelRecord) -> KernelRecord:
        return read_record(self.paths, self.krel) or record

    @property
    def paths(self) -> Paths:
        return self.looking.paths

    @property
    def krel(self) -> str:
        return self.looking.krel

    @property
    def inside(self) -> str:
        return self.paths.inside(self.found.path)


def making(
    looking: Looking, found: Found, made_by: str | None, cancel: Cancel, publishing: Publishing, *, regardless: bool
) -> Making:
    generator = choose(looking.paths, found.place, made_by)
    return Making(looking, found, generator, cancel, publishing, regardless)
