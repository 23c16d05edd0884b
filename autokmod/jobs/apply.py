"""Decisions of one kernel → its modules directory, depmod, proof, initrd, record. Under the lock of the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from autokmod.act.compress import compress, compression_of
from autokmod.act.place import (
    is_intact,
    owner_of,
    place_files,
    place_links,
    placed_packages,
    remove_others,
    standing_files,
)
from autokmod.act.records import write_record
from autokmod.act.sign import open_signer
from autokmod.act.store import read_built
from autokmod.decide.facts import Facts
from autokmod.decide.why import OLDER
from autokmod.errors import AutokmodError, FormatError, SigningFailed
from autokmod.jobs.handover import hand_over, packages_to_hand_over
from autokmod.jobs.index import index_again, verify
from autokmod.model import Build, Decision, DecisionKind, KernelRecord, PlacedFile, Placement, Reason, SignedBy
from autokmod.paths import Paths

INITRD_DUE = Reason("initrd-due", "modules changed after the initrd was made; it is looked at next")


def apply_decisions(
    paths: Paths, facts: Facts, decisions: Sequence[Decision], records: dict[str, KernelRecord], now: float
) -> KernelRecord:
    """Place, one depmod if anything changed, verify, record. Raises OSError where nothing can be recorded."""
    krel, before = facts.kernel.krel, facts.record or KernelRecord(facts.kernel.krel, now, ())
    hand_over(paths, records, krel, now, packages_to_hand_over(records, krel, decisions, facts.builds))
    old = {p.package: p for p in before.placements}
    placements = [_carry_out(paths, facts, d, old.get(d.package), records) for d in decisions]
    removed, stuck = _remove_gone(paths, krel, placements)
    placements += stuck
    changed = removed or _files(placements) != _files(before.placements)
    record = replace(before, updated_at=now, going=False, placements=tuple(placements))
    record = _indexed(paths, facts, _seen(record, facts), changed=changed)
    if changed or _beside(placements) != _beside(before.placements):
        record = replace(record, initrd=replace(INITRD_DUE, hint=f"autokmodctl reconcile {krel}"), initrd_ok=False)
    if _says_more(record, facts):
        write_record(paths, record)
    return record


def _indexed(paths: Paths, facts: Facts, record: KernelRecord, *, changed: bool) -> KernelRecord:
    if changed or record.index is not None:
        return index_again(paths, record)
    seen = replace(record, placements=tuple(verify(paths, record.krel, p) for p in record.placements))
    return index_again(paths, record) if _index_was_broken(facts, seen.placements) else seen


def _seen(record: KernelRecord, facts: Facts) -> KernelRecord:
    kernel, enforced = facts.kernel, facts.signing.enforced if facts.signing else None
    stamps = replace(record, kernel_changed_at=kernel.changed_at, kernel_installed_at=kernel.installed_at)
    return replace(stamps, enforced=enforced)


def _says_more(record: KernelRecord, facts: Facts) -> bool:
    """A record of other files of the kernel is not believed, so it is written anew even if it decides the same."""
    return facts.record is None or replace(record, updated_at=facts.record.updated_at) != facts.record


def _index_was_broken(facts: Facts, placements: Iterable[Placement]) -> bool:
    """Once verified and no more, though nothing was placed: somebody else's depmod, a lost modules.dep. Or another
    owner's modules are here of late, and were not indexed.

    Only that step calls for a depmod of ours. One that changed nothing must not be repeated at each look: writing
    modules.dep is itself seen as a change of the kernel.
    """
    known = facts.record.placements if facts.record else ()
    good, seen = {p.package for p in known if p.verified}, _beside(known)
    suspects = [p for p in placements if (p.files or p.beside) and not p.verified]
    return any(p.package in good or facts.force or p.beside != seen.get(p.package, ()) for p in suspects)


def _carry_out(
    paths: Paths, facts: Facts, decision: Decision, old: Placement | None, records: dict[str, KernelRecord]
) -> Placement:
    """Bad luck with one package is that package's state; what stood there before stays."""
    try:
        return _place(paths, facts, decision, old, records)
    except SigningFailed as exc:
        reason = Reason("signing-failed", str(exc), hint=exc.hint)
        return _unchanged(paths, decision, old, failed=reason)
    except FormatError as exc:  # the store's entry was set aside with this: what it held can be built again
        reason = Reason("store-damaged", str(exc))
        return _unchanged(paths, decision, old, failed=reason)
    except (AutokmodError, OSError) as exc:
        reason = Reason("placement-failed", str(exc))
        return _unchanged(paths, decision, old, failed=reason)


def _place(
    paths: Paths, facts: Facts, decision: Decision, old: Placement | None, records: dict[str, KernelRecord]
) -> Placement:
    build = next((b for b in facts.builds if b.key == decision.key), None)
    if decision.kind is DecisionKind.KEEP and old is not None:
        return _kept(decision, old)
    if decision.kind is DecisionKind.LINK and decision.foreign is not None:
        return _link_theirs(paths, facts, decision)
    if decision.kind is DecisionKind.LINK and decision.link_from is not None and build is not None:
        source = next(p for p in records[decision.link_from].placements if p.package == decision.package)
        files = _link(paths, decision, decision.link_from, source.files)
        return _placement(facts, decision, build, files, source.signed_by)
    if decision.kind is DecisionKind.BUILD and decision.stored and build is not None and build.ok:
        files = _own(paths, facts, decision, build)
        return _placement(facts, decision, build, files, facts.signing.signed_by if facts.signing else None)
    return _unchanged(paths, decision, old, build=build)


def _kept(decision: Decision, old: Placement) -> Placement:
    """Why it came to stand there is worth more than that it still does; unless that is about something that failed."""
    same = old.version == decision.version and _older_used(old) == _older_used(decision)
    if not old.standing and not old.failed and same:
        return old
    return replace(
        old,
        version=decision.version,
        kind=decision.kind,
        reasons=decision.reasons,
        symbols_compared=decision.symbols_compared,
        instead_of=decision.instead_of,
        errors=(),
        failed=False,
        standing=False,
    )


def _older_used(value: Decision | Placement) -> Reason | None:
    return next((r for r in value.reasons if r.kind == OLDER and value.instead_of), None)


def _link(paths: Paths, decision: Decision, owner: str, files: tuple[PlacedFile, ...]) -> tuple[PlacedFile, ...]:
    links = place_links(paths, decision.krel, decision.package, owner, files)
    remove_others(paths, decision.krel, decision.package, links)
    return links


def _link_theirs(paths: Paths, facts: Facts, decision: Decision) -> Placement:
    """To another owner's modules, where they lie."""
    source = next(b for b in facts.foreign_builds if (b.key, b.krel) == (decision.key, decision.link_from))
    links = place_links(paths, decision.krel, decision.package, source.krel, source.files)
    remove_others(paths, decision.krel, decision.package, links)
    return Placement(
        decision.package,
        decision.version,
        decision.kind,
        decision.reasons,
        decision.key,
        None,
        decision.link_from,
        decision.symbols_compared,
        links,
        verified=False,
        foreign=decision.foreign,
        instead_of=decision.instead_of,
    )


def _own(paths: Paths, facts: Facts, decision: Decision, build: Build) -> tuple[PlacedFile, ...]:
    """In this order: the signature is behind the module, and what is compressed is both."""
    kind = compression_of(facts.abi.config)
    with open_signer(paths, facts.signing) as seal:
        files = place_files(
            paths,
            decision.krel,
            decision.package,
            build.modules,
            lambda module: compress(seal(read_built(build, module)), kind),
            kind.value,
        )
    remove_others(paths, decision.krel, decision.package, files)
    return files


def _placement(
    facts: Facts, decision: Decision, build: Build, files: tuple[PlacedFile, ...], signed_by: SignedBy | None
) -> Placement:
    return Placement(
        decision.package,
        build.version,
        decision.kind,
        decision.reasons,
        build.key,
        build.source_key,
        decision.link_from,
        decision.symbols_compared,
        files,
        verified=False,
        log=f"{build.directory}/build.log",
        instead_of=decision.instead_of,
        signed_by=signed_by,
    )


def _unchanged(
    paths: Paths,
    decision: Decision,
    old: Placement | None,
    *,
    failed: Reason | None = None,
    build: Build | None = None,
) -> Placement:
    """Nothing new can be placed. What the package has here, recorded or not, is not taken away."""
    known = old if old is not None and is_intact(paths, decision.krel, old) else None
    is_skipped = decision.kind is DecisionKind.SKIP
    files = () if is_skipped else known.files if known else _standing(paths, decision)
    return Placement(
        decision.package,
        decision.version,
        decision.kind,
        (failed, *decision.reasons) if failed else decision.reasons,
        known.key if known and files else decision.key,
        known.source_key if known and files else None,
        next((owner_of(paths, decision.krel, f) for f in files), None),
        0,
        files,
        verified=False,
        errors=build.errors if build is not None and not build.ok else (),
        failed=failed is not None or (decision.kind is DecisionKind.BUILD and decision.stored),
        log=f"{build.directory}/build.log" if build is not None else None,
        standing=not is_skipped,
        foreign=known.foreign if known and files else decision.foreign,
        instead_of=decision.instead_of,
        signed_by=known.signed_by if known and files else None,
        beside=decision.beside,
    )


def _standing(paths: Paths, decision: Decision) -> tuple[PlacedFile, ...]:
    """A link that leads nowhere is of no use to anybody."""
    files = standing_files(paths, decision.krel, decision.package)
    with contextlib.suppress(OSError):  # a read-only or full disk is what may have led here
        remove_others(paths, decision.krel, decision.package, files)
    return files


def _files(placements: Iterable[Placement]) -> dict[str, tuple[PlacedFile, ...]]:
    """A package without any file changes nothing by coming or going."""
    return {p.package: p.files for p in placements if p.files}


def _beside(placements: Iterable[Placement]) -> dict[str, tuple[PlacedFile, ...]]:
    return {p.package: p.beside for p in placements if p.beside}


def _remove_gone(paths: Paths, krel: str, placements: Sequence[Placement]) -> tuple[bool, list[Placement]]:
    """Files of packages that are to have none here: removed from the machine, disabled, excluded.

    Whether any were removed, and what stands in for the packages where that cannot be done.
    """
    kept = {p.package for p in placements if p.files or p.standing}
    removed, stuck = False, []
    for package in sorted(placed_packages(paths, krel) - kept):
        try:
            removed |= remove_others(paths, krel, package, ())
        except OSError as exc:
            stuck.append(_stuck(package, exc))
    return removed, stuck


def _stuck(package: str, exc: OSError) -> Placement:
    why = Reason("placement-failed", f"its modules are to go from here, and cannot be removed: {exc}")
    return Placement(package, "", DecisionKind.BLOCKED, (why,), None, None, None, 0, (), verified=False, failed=True)
