"""Packages that need packages: what must be compiled waits for those that it needs and that are not there yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autokmod.decide.early import make_decision
from autokmod.decide.facts import Facts
from autokmod.decide.settle import Choice
from autokmod.decide.why import FAILURES, why_unfit
from autokmod.model import Decision, DecisionKind, Reason


def with_dependencies(
    facts: Facts, decisions: Mapping[str, Decision], choices: Mapping[str, Choice]
) -> dict[str, Decision]:
    """A package that must be compiled waits for those that it needs and that are not there yet."""
    return {
        name: _after_dependencies(facts, decision, choices[name], decisions) if name in choices else decision
        for name, decision in decisions.items()
    }


def _after_dependencies(
    facts: Facts, decision: Decision, choice: Choice, decisions: Mapping[str, Decision]
) -> Decision:
    if decision.kind is not DecisionKind.BUILD or decision.stored:
        return decision
    for needed in sorted({*choice.recipe.build_depends, *_imported_from(facts, choice, decisions)}):
        reason = _obstacle(needed, decisions.get(needed), facts)
        if reason is not None:
            kind = DecisionKind.BLOCKED if reason.kind == "dependency-failed" else DecisionKind.WAIT
            return make_decision(facts, choice.package, kind, reason)
    return _unless_built_before(facts, decision, choice)


def _unless_built_before(facts: Facts, decision: Decision, choice: Choice) -> Decision:
    """The same key compiled again is the same build again: what did not fit will not fit then."""
    own = next(((c, r) for c, r in choice.rejected if c.build.key == decision.key), None)
    if own is None or (facts.force and decision.key not in facts.tried):
        return decision
    sentence, *details = why_unfit(*own)
    text = sentence.text.replace(f"the build for {own[0].build.krel} does not fit", "it was built, but does not fit")
    if facts.abi.problems:
        text = f"it was built, but nobody can tell whether it fits: {facts.abi.problems[0].text}"
    return make_decision(facts, choice.package, DecisionKind.BLOCKED, replace(sentence, text=text), *details)


def _imported_from(facts: Facts, choice: Choice, decisions: Mapping[str, Decision]) -> set[str]:
    """Packages whose known builds export a symbol that this package's known builds import."""
    mine = [m for b in facts.builds if b.package == choice.package.name for m in facts.contents.get(b.key, ())]
    wanted = {i.name for m in mine for i in m.imports}
    return {
        b.package
        for b in facts.builds
        if b.package != choice.package.name and b.package in decisions
        for m in facts.contents.get(b.key, ())
        if not wanted.isdisjoint(e.name for e in m.exports)
    }


def _obstacle(needed: str, decision: Decision | None, facts: Facts) -> Reason | None:
    if decision is None:
        text = f"it needs the package {needed}, which is not on this machine"
        return Reason("dependency-missing", text, hint=f"install {needed}; this goes on by itself then")
    if decision.kind in (DecisionKind.KEEP, DecisionKind.LINK):
        return None
    if decision.kind is DecisionKind.BUILD and not decision.stored:
        return Reason("dependency-pending", f"it needs the package {needed}, which is built first")
    if decision.kind is DecisionKind.BUILD and decision.reasons[0].kind not in FAILURES:
        return None
    text = f"it needs the package {needed}, which is not ready for {facts.kernel.krel}"
    return Reason("dependency-failed", text, hint=f"see 'autokmodctl explain {needed} {facts.kernel.krel}'")
