"""Which existing builds a package could use on a kernel, best first, and which of them policy bars.

Whether they fit is decided in plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from autokmod.decide.facts import Facts
from autokmod.decide.foreign import as_build, is_taken, names_of, sources_of
from autokmod.decide.policy import Origin, check_package_policy, check_policy
from autokmod.decide.signing import fits_signing
from autokmod.model import Build, DecisionKind, ForeignBuild, ModuleFacts, Package, Reason, Recipe
from autokmod.versions import sort_key


@dataclass(frozen=True, slots=True)
class Candidate:
    kind: DecisionKind  # what using it would be: keep, link, or build (from the store, nothing compiled)
    build: Build
    modules: tuple[ModuleFacts, ...]
    link_from: str | None = None
    barred: tuple[Reason, ...] = ()  # by policy
    foreign: ForeignBuild | None = None  # whose build it is, if another owner's


def find_candidates(facts: Facts, package: Package, recipe: Recipe, builds: Iterable[Build]) -> tuple[Candidate, ...]:
    """Of `builds`, which are of this very source, those that are whole, readable and verified: what stands here, the
    exact build, other kernels' builds; at last those of other owners."""
    bar = check_package_policy(facts.config, package.name, recipe)
    own = facts.keys.get(package.id)
    found = _unique(_ordered(facts, package, recipe, builds))
    return tuple(c if c.build.key == own else replace(c, barred=bar or _barred(facts, c)) for c in found)


def _barred(facts: Facts, candidate: Candidate) -> tuple[Reason, ...]:
    origin = Origin(candidate.build.krel, candidate.build.features)
    return check_policy(facts.config.link, origin, facts.abi, candidate.modules, facts.stable)


def _ordered(facts: Facts, package: Package, recipe: Recipe, builds: Iterable[Build]) -> Iterator[Candidate]:
    usable = [b for b in builds if _is_usable(facts, recipe, b)]
    theirs = list(_theirs(facts, package, recipe)) if facts.foreign_builds else []
    yield from _standing(facts, package, usable)
    yield from (c for c in theirs if c.kind is DecisionKind.KEEP)
    for build in usable:
        if build.key == facts.keys.get(package.id):
            yield Candidate(DecisionKind.BUILD, build, facts.contents[build.key])
    others = sorted(usable, key=lambda b: (sort_key(b.krel), b.built_at), reverse=True)
    yield from (c for build in others for c in _of_other_kernel(facts, build))
    yield from sorted(theirs, key=lambda c: (sort_key(c.build.krel), sort_key(c.link_from or "")), reverse=True)


def _theirs(facts: Facts, package: Package, recipe: Recipe) -> Iterator[Candidate]:
    """Nothing is linked in the way of what another owner put here."""
    found = sources_of(facts, package, recipe)
    if is_taken(facts, names_of(found)):
        return
    placed = _placed(facts, package)
    for source in found:
        owner = None if source.taken_over and source.krel == facts.kernel.krel else source.krel
        if (source.key, owner) in placed or owner is None:
            yield Candidate(DecisionKind.KEEP, as_build(source), source.modules, owner, foreign=source)
        elif owner != facts.kernel.krel:
            yield Candidate(DecisionKind.LINK, as_build(source), source.modules, owner, foreign=source)


def _placed(facts: Facts, package: Package) -> set[tuple[str | None, str | None]]:
    """Key and owner of what stands here, verified."""
    if facts.record is None or package.name not in facts.intact:
        return set()
    mine = (p for p in facts.record.placements if p.package == package.name and p.verified)
    return {(p.key, p.link_from) for p in mine}


def _is_usable(facts: Facts, recipe: Recipe, build: Build) -> bool:
    """All modules that the recipe promises for this kernel (BUILD_EXCLUSIVE may differ)."""
    promised = {m.dest_name for m in recipe.modules}
    return build.ok and build.key in facts.contents and {m.dest_name for m in build.modules} == promised


def _standing(facts: Facts, package: Package, usable: list[Build]) -> Iterator[Candidate]:
    if facts.record is None or package.name not in facts.intact:
        return
    for placement in facts.record.placements:
        if placement.package != package.name or not placement.verified:
            continue
        if not fits_signing(facts.signing, placement.signed_by):
            continue
        for build in usable:
            if build.key == placement.key:
                yield Candidate(DecisionKind.KEEP, build, facts.contents[build.key], placement.link_from)


def _of_other_kernel(facts: Facts, build: Build) -> Iterator[Candidate]:
    """A link where the build stands in another kernel, else a copy from the store: its kernel may be gone."""
    modules = facts.contents[build.key]
    owners = sorted(facts.owners.get(build.key, ()), key=sort_key, reverse=True)
    if owners:
        yield Candidate(DecisionKind.LINK, build, modules, owners[0])
    else:
        yield Candidate(DecisionKind.BUILD, build, modules)


def _unique(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    seen: set[str] = set()
    for candidate in candidates:
        if candidate.build.key not in seen:
            seen.add(candidate.build.key)
            yield candidate
