"""What is recorded of a kernel's image, and in which words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from autokmod.act.records import write_record
from autokmod.files import locked
from autokmod.model import KernelRecord, Reason
from autokmod.observe.records import read_record
from autokmod.paths import Paths

DUE, FAILED, RESTORED, UNTOLD = "initrd-due", "initrd-failed", "initrd-restored", "initrd-untold"
WAIT_LIMIT_S = 600.0  # for others: a lock may be held for hours by a program that somebody left open
MOST_NAMED = 5  # of the reasons in one sentence


@dataclass(frozen=True, slots=True)
class Finding:
    """The last word on an image."""

    word: Reason
    ok: bool
    seen: tuple[int, ...] | None = None  # of the image that this is about; None: it is looked into again
    modules: tuple[str, ...] = ()  # that it carries as they are on disk
    waits_since: float | None = None  # s since epoch: for others, who are at work


def note(paths: Paths, record: KernelRecord, finding: Finding) -> KernelRecord:
    """Under the lock."""
    done = replace(
        record,
        initrd=finding.word,
        initrd_ok=finding.ok,
        initrd_seen=finding.seen,
        initrd_modules=finding.modules,
        initrd_waits_since=finding.waits_since,
    )
    if done != record:
        write_record(paths, done)
    return done


def settle(paths: Paths, record: KernelRecord, finding: Finding) -> KernelRecord:
    """Without the lock until now: what was recorded meanwhile is about other modules, and stays."""
    with locked(paths.lock):
        current = read_record(paths, record.krel) or record
        if current.going or current.placements != record.placements:
            return current
        return note(paths, current, finding)


# ---- words ---------------------------------------------------------------------------------------


def due(who: str, since: float) -> Finding:
    text = f"its initrd is looked into as soon as {who} has finished"
    hint = f"nothing: that is tried again by itself, and done all the same after {WAIT_LIMIT_S / 60:.0f} minutes"
    return Finding(Reason(DUE, text, hint=hint), ok=False, waits_since=since)


def good(inside: str, seen: tuple[int, ...], modules: tuple[str, ...]) -> Finding:
    """`inside`: the image, as the administrator knows it."""
    if not modules:
        word = Reason("initrd-not-concerned", f"{inside} carries none of these modules, and need not")
    else:
        word = Reason("initrd-right", f"{inside} carries {', '.join(modules)} as on disk")
    return Finding(word, ok=True, seen=seen, modules=modules)


def stale(inside: str, problems: Iterable[Reason], hint: str) -> Reason:
    return Reason("initrd-stale", f"{inside} is not right: {sentence(problems)}", hint=hint)


def untold(told: Finding, why: str) -> Finding:
    """A good image that the boot loader does not know of."""
    return replace(told, word=Reason(UNTOLD, f"{told.word.text}; but {why}"), ok=False)


def sentence(problems: Iterable[Reason]) -> str:
    texts = [p.text for p in problems]
    more = f", and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return "; ".join(texts[:MOST_NAMED]) + more
