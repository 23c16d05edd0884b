"""What is decided of a package without looking at any build: which version, and whether it is wanted here at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from autokmod.decide.facts import Facts
from autokmod.decide.foreign import VENDOR
from autokmod.decide.signing import fits_signing
from autokmod.model import Decision, DecisionKind, Package, Placement, Reason
from autokmod.versions import is_older


def select_versions(packages: Iterable[Package]) -> tuple[Package, ...]:
    """The newest version of each name: one module name can stand in a kernel only once."""
    newest: dict[str, Package] = {}
    for package in packages:
        other = newest.get(package.name)
        if other is None or is_older(other.version, package.version):
            newest[package.name] = package
    return tuple(newest[name] for name in sorted(newest))


def decide_early(facts: Facts, package: Package) -> Decision | None:
    """What is decided without looking at any build."""
    mine = facts.config.package(package.name)
    pattern = next((p for p in mine.exclude_kernels if fnmatchcase(facts.kernel.krel, p)), None)
    recipe = facts.recipes.get(package.id)
    if not mine.enabled:
        return make_decision(facts, package, DecisionKind.SKIP, Reason("disabled", "disabled by the administrator"))
    if pattern is not None:
        text = f"the administrator excluded kernels like {pattern}"
        return make_decision(facts, package, DecisionKind.SKIP, Reason("excluded", text))
    stands = _standing(facts, package) if not facts.abi.exports else None
    if stands is not None:
        text = "in place and verified when the headers were there; without them it cannot be compared again"
        older_used = stands.reasons[:1] if stands.instead_of else ()
        kept = make_decision(facts, package, DecisionKind.KEEP, *older_used, Reason("in-place", text))
        return replace(kept, version=stands.version, instead_of=stands.instead_of)
    if package.kind == VENDOR:
        return None
    problem = package.problem or facts.recipe_problems.get(package.id)
    if problem is not None:
        return make_decision(facts, package, DecisionKind.BLOCKED, problem)
    if recipe is None:
        return make_decision(facts, package, DecisionKind.WAIT, *facts.kernel.problems)
    if recipe.excluded is not None:
        return make_decision(facts, package, DecisionKind.SKIP, recipe.excluded)
    if not recipe.autoinstall:
        text = "the recipe does not ask to be installed by itself (AUTOINSTALL)"
        return make_decision(facts, package, DecisionKind.SKIP, Reason("no-autoinstall", text))
    if facts.signing_problem is not None:
        return make_decision(facts, package, DecisionKind.BLOCKED, facts.signing_problem)
    return None


def wait_for_source(facts: Facts, placement: Placement, why: Reason) -> Decision:
    """Its modules stay. Only a person can tell that it is gone for good."""
    krel = facts.kernel.krel
    hint = f"{why.hint}; if {placement.package} is gone for good: autokmodctl reconcile --force {krel}"
    reasons = (replace(why, hint=hint),)
    return Decision(placement.package, placement.version, krel, DecisionKind.WAIT, reasons, foreign=placement.foreign)


def _standing(facts: Facts, package: Package) -> Placement | None:
    """What was once decided for this very kernel and source still stands. Of a replaced kernel nobody knows."""
    if facts.record is None or facts.record.kernel_installed_at not in (None, facts.kernel.installed_at):
        return None
    mine = [p for p in facts.record.placements if p.package == package.name and package.name in facts.intact]
    same = (p for p in mine if package.version in (p.version, *p.instead_of[:1]))
    return next((p for p in same if p.verified and not p.standing and _may_stand(facts, p)), None)


def _may_stand(facts: Facts, placement: Placement) -> bool:
    """Signing anew for a better reason than that the kernel insists waits until the package can be looked at again."""
    if facts.signing is None or facts.signing.enforced is None:
        return True
    return facts.signing.problem is None and fits_signing(facts.signing, placement.signed_by)


def make_decision(facts: Facts, package: Package, kind: DecisionKind, *reasons: Reason) -> Decision:
    return Decision(package.name, package.version, facts.kernel.krel, kind, reasons, key=facts.keys.get(package.id))
