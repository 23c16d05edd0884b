"""A kernel's own files go, or others take their names: kernels that link to them get them first, and are indexed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from autokmod.act.promote import linked_packages, promote
from autokmod.act.records import write_record
from autokmod.jobs.announce import announce_lost, announce_promotion
from autokmod.jobs.index import index_again
from autokmod.model import Build, Decision, DecisionKind, KernelRecord
from autokmod.paths import Paths


def hand_over(
    paths: Paths, records: Mapping[str, KernelRecord], owner: str, now: float, packages: Container[str] | None = None
) -> frozenset[str]:
    """Of these packages, or all. The names of those whose files could not be taken over. Raises OSError."""
    done = promote(paths, records, owner, packages)
    for record in done.changed.values():
        write_record(paths, replace(index_again(paths, record), updated_at=now))
        announce_promotion(records[record.krel], record, owner)
    for package, why in done.failed.items():
        announce_lost(package, owner, why)
    return frozenset(done.failed)


def packages_to_hand_over(
    records: Mapping[str, KernelRecord], krel: str, decisions: Iterable[Decision], builds: Iterable[Build]
) -> frozenset[str]:
    """Those whose files in `krel`, which others link to, will not be there any more, or be another build's."""
    decided = {d.package: d for d in decisions}
    built = {b.key for b in builds if b.ok}
    linkers = linked_packages(records.values(), krel, to_ours=True)
    keys = {name: {_key(records[k], name) for k in krels} for name, krels in linkers.items()}
    return frozenset(name for name in linkers if _goes(decided.get(name), keys[name], built))


def _key(record: KernelRecord, package: str) -> str | None:
    return next(p.key for p in record.placements if p.package == package)


def _goes(decision: Decision | None, keys: set[str | None], built: set[str]) -> bool:
    if decision is None or decision.kind in (DecisionKind.SKIP, DecisionKind.LINK):
        return True
    return decision.kind is DecisionKind.BUILD and decision.key in built and keys != {decision.key}
