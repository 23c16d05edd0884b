"""Which builds in the store nothing needs any more, and which of them go.

In use is what a kernel's record names (placed, linked to, decided upon, or the failure that is shown there), all of a
package that has files in a kernel of which nothing is recorded, and for each kernel of this machine the newest build of
each package, recorded or not: it was made for it. Failures are remembered likewise, each version's own. All else is
spare: it may still serve a kernel that comes back, so it stays until room is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autokmod.config import StoreConfig
from autokmod.model import Build, Reason

SLACK = 10  # percent below the bound: so that not every build above it sends one away


@dataclass(frozen=True, slots=True)
class Entry:
    """One build in the store."""

    build: Build
    size: int  # bytes on the disk


@dataclass(frozen=True, slots=True)
class Damaged:
    """A directory of the store that holds no build, or none that can be read."""

    name: str
    size: int  # bytes on the disk
    changed_at: float  # s since epoch
    why: str


@dataclass(frozen=True, slots=True)
class Use:
    keys: frozenset[str]  # named by a kernel's record
    packages: frozenset[str]  # have files in a kernel, and no record says of which build
    krels: frozenset[str]  # kernels of this machine


@dataclass(frozen=True, slots=True)
class Removal:
    name: str  # of the directory in the store: a build's key
    size: int
    reason: Reason
    package: str = ""
    version: str = ""
    krel: str = ""


def decide_collection(
    entries: Sequence[Entry], use: Use, config: StoreConfig, now: float, bound: int | None
) -> tuple[Removal, ...]:
    """`bound` in bytes for the whole store: nothing goes as long as it holds. None: all that is spare goes."""
    needed = find_needed(entries, use, config)
    spare = [e for e in entries if e.build.key not in needed and not _is_young(e.build.built_at, now, config)]
    # What is of a kernel that is gone is wanted last.
    spare.sort(key=lambda e: (e.build.krel in use.krels, e.build.built_at, e.build.key))
    chosen = spare if bound is None else _until_small(spare, sum(e.size for e in entries), bound)
    return tuple(_removal(e, use) for e in chosen)


def decide_damaged(damaged: Iterable[Damaged], config: StoreConfig, now: float) -> tuple[Removal, ...]:
    """They are of no use to autokmod; for some time a person may want to look at them."""
    old = (d for d in damaged if not _is_young(d.changed_at, now, config))
    return tuple(Removal(d.name, d.size, Reason("damaged", d.why)) for d in old)


def find_needed(entries: Iterable[Entry], use: Use, config: StoreConfig) -> frozenset[str]:
    """Keys of builds that are never collected."""
    builds = [e.build for e in entries]
    here = [b for b in builds if b.krel in use.krels]
    named = {b.key for b in builds if b.key in use.keys or b.package in use.packages}
    made = _newest((b.package, b.krel, "", b) for b in here if b.ok)
    failed = [b for b in here if not b.ok and not b.transient and config.keep_failed]
    return frozenset({*named, *made, *_newest((b.package, b.krel, b.version, b) for b in failed)})


def _newest(builds: Iterable[tuple[str, str, str, Build]]) -> Iterator[str]:
    newest: dict[tuple[str, ...], Build] = {}
    for *what, build in builds:
        other = newest.get(tuple(what))
        if other is None or (other.built_at, other.key) < (build.built_at, build.key):
            newest[tuple(what)] = build
    return (build.key for build in newest.values())


def _is_young(made_at: float, now: float, config: StoreConfig) -> bool:
    """A time in the future says only that a clock was wrong."""
    return 0 <= now - made_at < config.min_age_s


def _until_small(spare: Sequence[Entry], total: int, bound: int) -> list[Entry]:
    chosen: list[Entry] = []
    if total > bound:
        for entry in spare:
            if total <= bound - bound * SLACK // 100:
                break
            chosen.append(entry)
            total -= entry.size
    return chosen


def _removal(entry: Entry, use: Use) -> Removal:
    build = entry.build
    return Removal(build.key, entry.size, _why(build, use), build.package, build.version, build.krel)


def _why(build: Build, use: Use) -> Reason:
    if build.krel not in use.krels:
        return Reason("kernel-gone", f"{build.krel} is not on this machine, and no other kernel uses it")
    if build.ok:
        return Reason("replaced", f"{build.krel} uses a newer build of {build.package}")
    if build.transient:
        return Reason("interrupted", "it was interrupted: it is built again when it is wanted")
    return Reason("failed", "it failed, and is not to be remembered")
