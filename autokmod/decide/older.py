"""The newest version of a package that does not build for a kernel, and an older one that is present and does.

A failed build is remembered by its key: when the key changes, the newest is tried again, and used if it builds.
Kinds of reasons: older-version (said first of what is used), build-failed-older (why no older one is).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from autokmod.decide.early import decide_early, select_versions
from autokmod.decide.facts import Facts
from autokmod.decide.why import FAILED, FAILURES, OLDER
from autokmod.model import Build, Decision, DecisionKind, Package, Reason
from autokmod.versions import is_older


def relevant_versions(packages: Sequence[Package], builds: Iterable[Build], krel: str) -> tuple[Package, ...]:
    """The newest of each name; where a version failed for this kernel, whatever the key, the next older as well."""
    failed = {(b.package, b.version) for b in builds if b.krel == krel and not b.ok and not b.transient}
    found: list[Package] = []
    wanted = select_versions(packages)
    while wanted:
        found += wanted
        given_up = [p for p in wanted if (p.name, p.version) in failed]
        wanted = tuple(older for p in given_up if (older := _next(packages, p)) is not None)
    return tuple(found)


def _next(packages: Iterable[Package], than: Package) -> Package | None:
    older = [p for p in packages if p.name == than.name and is_older(p.version, than.version)]
    return next(iter(select_versions(older)), None)


def does_not_build(decision: Decision) -> bool:
    """For a reason that does not pass by itself."""
    return decision.kind is DecisionKind.BUILD and decision.stored and decision.reasons[0].kind == FAILED


def next_versions(facts: Facts, chosen: Mapping[str, Package], decisions: Mapping[str, Decision]) -> dict[str, Package]:
    """Name → the next older version that may be looked at instead of the one that was chosen and does not build."""
    usable = [p for p in facts.packages if p.id in facts.recipes and decide_early(facts, p) is None]
    found = {name: _next(usable, chosen[name]) for name, d in decisions.items() if does_not_build(d)}
    return {name: package for name, package in found.items() if package is not None}


def conclude(facts: Facts, decision: Decision, given_up: Sequence[Decision]) -> Decision:
    """`given_up`: of newer versions, the newest first. What an older one is used for is said before anything else."""
    if not given_up:
        return decision
    if _is_usable(decision):
        first = _older_used(facts, decision, given_up)
        return replace(decision, reasons=(first, *decision.reasons), instead_of=tuple(d.version for d in given_up))
    newest, *others = given_up
    text = "{} cannot be used instead: {}"
    more = [Reason(f"{FAILED}-older", text.format(d.version, d.reasons[0].text)) for d in (*others, decision)]
    return replace(newest, reasons=(*newest.reasons, *more))


def _is_usable(decision: Decision) -> bool:
    if decision.kind in (DecisionKind.WAIT, DecisionKind.BLOCKED):
        return False
    return decision.reasons[0].kind not in FAILURES


def _older_used(facts: Facts, decision: Decision, given_up: Sequence[Decision]) -> Reason:
    newest, *others = given_up
    what = newest.reasons[0].text.removeprefix("the build failed").removeprefix(": ") or "its log says why"
    text = f"{decision.version} is used: {newest.version} does not build: {what}"
    if others:
        text += f"; nor {'does' if len(others) == 1 else 'do'} {' and '.join(d.version for d in others)}"
    log = next((f"see {b.directory}/build.log; " for b in facts.builds if b.key == newest.key), "")
    again = f"'autokmodctl reconcile --force {decision.krel}'"
    hint = f"{log}{newest.version} is tried again when its source, kernel or compiler change, or with {again}"
    return Reason(OLDER, text, hint=hint)
