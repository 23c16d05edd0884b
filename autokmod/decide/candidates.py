"""Which existing builds a package could use on a kernel, best first. Whether they fit is decided in plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autokmod.decide.facts import Facts
from autokmod.model import Build, DecisionKind, ModuleFacts, Package, Recipe
from autokmod.versions import sort_key


@dataclass(frozen=True, slots=True)
class Candidate:
    kind: DecisionKind  # what using it would be: keep, link, or build (from the store, nothing compiled)
    build: Build
    modules: tuple[ModuleFacts, ...]
    link_from: str | None = None


def find_candidates(facts: Facts, package: Package, recipe: Recipe) -> tuple[Candidate, ...]:
    """Builds of this very source, verified and readable: what stands here, the exact build, other kernels' builds."""
    return tuple(_unique(_ordered(facts, package, recipe)))


def _ordered(facts: Facts, package: Package, recipe: Recipe) -> Iterator[Candidate]:
    usable = [b for b in facts.builds if _is_usable(facts, package, recipe, b)]
    yield from _standing(facts, package, recipe, usable)
    for build in usable:
        if build.key == facts.keys.get(package.id):
            yield Candidate(DecisionKind.BUILD, build, facts.contents[build.key])
    if may_reuse(facts, package, recipe):
        others = sorted(usable, key=lambda b: (sort_key(b.krel), b.built_at), reverse=True)
        yield from (c for build in others for c in _of_other_kernel(facts, build))


def _is_usable(facts: Facts, package: Package, recipe: Recipe, build: Build) -> bool:
    """Same source, and all modules that the recipe promises for this kernel (BUILD_EXCLUSIVE may differ)."""
    same_source = build.ok and build.source_key == facts.source_keys.get(package.id)
    promised = {m.dest_name for m in recipe.modules}
    return same_source and build.key in facts.contents and {m.dest_name for m in build.modules} == promised


def may_reuse(facts: Facts, package: Package, recipe: Recipe) -> bool:
    """Whether a build made for another kernel may be used at all."""
    return recipe.link_allowed and facts.config.link.enabled and facts.config.package(package.name).link != "never"


def _standing(facts: Facts, package: Package, recipe: Recipe, usable: list[Build]) -> Iterator[Candidate]:
    if facts.record is None or package.name not in facts.intact:
        return
    for placement in facts.record.placements:
        if placement.package != package.name or not placement.verified:
            continue
        for build in usable:
            foreign = build.key != facts.keys.get(package.id)
            if build.key == placement.key and (not foreign or may_reuse(facts, package, recipe)):
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
