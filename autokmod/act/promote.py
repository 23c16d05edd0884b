"""A kernel goes, or what it has for itself: what other kernels link to moves into one of them first, and the others
are pointed there.

It asks neither recipes nor the store: a package whose source is broken today keeps its modules all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autokmod.act.place import place_links, placed_file, remove_others
from autokmod.errors import PlacementFailed
from autokmod.files import write_file
from autokmod.model import DecisionKind, KernelRecord, PlacedFile, Placement, Reason
from autokmod.paths import OWN, Paths
from autokmod.versions import sort_key


def linked_packages(records: Iterable[KernelRecord], owner: str, *, to_ours: bool = False) -> dict[str, list[str]]:
    """Package → krels whose links lead into `owner`, newest first. `to_ours`: only to files that autokmod put there."""
    found: dict[str, list[str]] = {}
    for record in records:
        for placement in record.placements:
            linked = placement.link_from == owner and placement.files
            if linked and (not to_ours or _leads_to_ours(placement)):
                found.setdefault(placement.package, []).append(record.krel)
    return {package: sorted(krels, key=sort_key, reverse=True) for package, krels in found.items()}


def _leads_to_ours(placement: Placement) -> bool:
    return all(f"/{OWN}/" in (file.target or "") for file in placement.files)


@dataclass(frozen=True, slots=True)
class Promotion:
    changed: Mapping[str, KernelRecord]  # krel → its record as it is now, not yet verified nor written
    failed: Mapping[str, str]  # package → why its files could not be taken over


def promote(
    paths: Paths, records: Mapping[str, KernelRecord], owner: str, packages: Container[str] | None = None
) -> Promotion:
    """Of these packages, or all. One's bad luck (its file is gone already, the disk is full) stops no other."""
    changed: dict[str, KernelRecord] = {}
    failed: dict[str, str] = {}
    for package, krels in linked_packages(records.values(), owner).items():
        if packages is not None and package not in packages:
            continue
        current = {krel: changed.get(krel, records[krel]) for krel in krels}
        try:
            changed.update(_promote_package(paths, current, package, krels, owner))
        except (PlacementFailed, OSError) as exc:
            failed[package] = str(exc)
            changed.update(_let_go(paths, current, package, str(exc)))
    return Promotion(changed, failed)


def _promote_package(
    paths: Paths, records: Mapping[str, KernelRecord], package: str, krels: Sequence[str], owner: str
) -> dict[str, KernelRecord]:
    heir, *others = krels
    inherited = _inherit(paths, _placement(records[heir], package), heir, owner)
    changed = {heir: _with_placement(records[heir], inherited)}
    for krel in others:
        moved = _point_to(paths, _placement(records[krel], package), krel, heir, inherited.files)
        changed[krel] = _with_placement(records[krel], moved)
    return changed


def _let_go(paths: Paths, records: Mapping[str, KernelRecord], package: str, why: str) -> dict[str, KernelRecord]:
    """Another owner's files go, whatever we could not do: no link may be left to lead nowhere."""
    changed = {}
    for krel, record in records.items():
        placement = _placement(record, package)
        if not _leads_to_ours(placement):
            with contextlib.suppress(OSError):
                remove_others(paths, krel, package, ())
            text = f"what it was linked to in {placement.link_from} goes, and could not be taken over: {why}"
            reason = Reason("placement-failed", text, hint=f"autokmodctl reconcile {krel}")
            gone = replace(placement, reasons=(reason,), link_from=None, files=(), verified=False, failed=True)
            changed[krel] = _with_placement(record, gone)
    return changed


def _inherit(paths: Paths, placement: Placement, heir: str, owner: str) -> Placement:
    directory = paths.own_dir(heir, placement.package)
    directory.mkdir(parents=True, exist_ok=True)
    files = tuple(_take_over(paths, heir, file, directory) for file in placement.files)
    remove_others(paths, heir, placement.package, files)
    why = Reason("promoted", f"taken over from {owner}, where it was linked to, before it went there")
    return replace(placement, kind=DecisionKind.KEEP, reasons=(why,), link_from=None, files=files, verified=False)


def _take_over(paths: Paths, heir: str, file: PlacedFile, directory: Path) -> PlacedFile:
    """The owner's file; or the heir's own, where an earlier try came that far before it was killed."""
    path = directory / os.path.basename(file.path)
    owners = (paths.modulesd(heir) / file.path).parent / (file.target or file.path)
    for source in (owners, path):
        with contextlib.suppress(FileNotFoundError):
            data = source.read_bytes()
            if hashlib.sha256(data).hexdigest() == file.sha256:
                write_file(path, data)
                return placed_file(paths, heir, file.module, path)
    raise PlacementFailed(heir, f"{file.path} cannot be taken over: what it links to is gone or was changed")


def _point_to(paths: Paths, placement: Placement, krel: str, heir: str, files: tuple[PlacedFile, ...]) -> Placement:
    links = place_links(paths, krel, placement.package, heir, files)
    why = Reason("compatible-build", f"linked to {heir}, which took the files over")
    return replace(placement, kind=DecisionKind.LINK, reasons=(why,), link_from=heir, files=links, verified=False)


def _placement(record: KernelRecord, package: str) -> Placement:
    return next(p for p in record.placements if p.package == package)


def _with_placement(record: KernelRecord, placement: Placement) -> KernelRecord:
    rest = [p for p in record.placements if p.package != placement.package]
    return replace(record, placements=tuple(sorted([*rest, placement], key=lambda p: p.package)))
