"""Which builds fit together on a kernel: all packages at once, to a fixpoint.

Existing builds are tried best first: a package's modules may need symbols that another package's chosen build exports.
A choice that does not fit is dropped and everything is looked at again, until nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from autokmod.decide.candidates import Candidate, find_candidates
from autokmod.decide.compat import check_set
from autokmod.decide.facts import Facts
from autokmod.decide.foreign import recipe_of
from autokmod.model import Build, CompatResult, ModuleFacts, Package, Recipe, Signature, Verdict


@dataclass(slots=True)
class Choice:
    """A package on its way to a decision: the candidates not yet found wanting."""

    package: Package
    recipe: Recipe
    candidates: list[Candidate]
    barred: list[Candidate]  # by policy
    rejected: list[tuple[Candidate, tuple[CompatResult, ...]]] = field(default_factory=list)
    results: tuple[CompatResult, ...] = ()

    @property
    def best(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None


def open_choices(facts: Facts, packages: Iterable[Package]) -> dict[str, Choice]:
    found = _by_source(facts.builds)
    return {p.name: _open_choice(facts, p, found.get(facts.source_keys.get(p.id, ""), ())) for p in packages}


def _by_source(builds: Iterable[Build]) -> dict[str, list[Build]]:
    found: dict[str, list[Build]] = {}
    for build in builds:
        found.setdefault(build.source_key, []).append(build)
    return found


def _open_choice(facts: Facts, package: Package, builds: Iterable[Build]) -> Choice:
    recipe = recipe_of(facts, package)
    found = find_candidates(facts, package, recipe, builds)
    return Choice(package, recipe, [c for c in found if not c.barred], [c for c in found if c.barred])


def settle(facts: Facts, choices: Mapping[str, Choice]) -> None:
    """Drop candidates that do not fit until all that are left fit together. Ends: each round drops at least one."""
    while unfit := _unfit(facts, choices):
        # What only suffers from a provider's candidate may be fine with that provider's next one.
        guilty = [c for c in unfit if not all(_is_providers_fault(r) for r in c.results)]
        for choice in guilty or unfit:
            choice.rejected.append((choice.candidates.pop(0), choice.results))


def _unfit(facts: Facts, choices: Mapping[str, Choice]) -> list[Choice]:
    """All chosen modules are judged as one set: they offer symbols, licences and faults to one another."""
    chosen = {name: c.best for name, c in choices.items() if c.best is not None}
    for name, results in check_together(facts, chosen).items():
        choices[name].results = results
    return [choices[name] for name in chosen if not is_fit(choices[name].results)]


def check_together(facts: Facts, candidates: Mapping[str, Candidate]) -> dict[str, tuple[CompatResult, ...]]:
    """With the other owners' modules that would stay beside them."""
    enforced = _enforced(facts)
    modules = [m for c in candidates.values() for m in (_signed(c) if enforced else c.modules)]
    names = {m.name for m in modules}
    others = [m for m in facts.foreign if m.name not in names]
    results = iter(check_set([*modules, *others], facts.abi, {}, sig_enforced=enforced))
    return {name: tuple(islice(results, len(c.modules))) for name, c in candidates.items()}


def _enforced(facts: Facts) -> bool | None:
    return facts.signing.enforced is not None if facts.signing is not None else None


def _signed(candidate: Candidate) -> Sequence[ModuleFacts]:
    """As they will be when they are placed: what the store has is unsigned. Whether the key is trusted is judged apart.

    Another owner's modules stay as they are.
    """
    if candidate.foreign is not None:
        return candidate.modules
    return [replace(module, signature=Signature.VERIFIED) for module in candidate.modules]


def judge_theirs(facts: Facts, choices: Mapping[str, Choice]) -> dict[str, CompatResult]:
    """Path → what is to be said of another owner's module that stays here, beside what was chosen."""
    best = [c.best for c in choices.values() if c.best is not None]
    chosen = [m for c in best for m in (_signed(c) if _enforced(facts) else c.modules)]
    names = {m.name for m in chosen}
    staying = [m for m in facts.foreign if m.name not in names]
    judged = check_set([*chosen, *staying], facts.abi, {}, sig_enforced=_enforced(facts)) if staying else ()
    return {result.path: result for result in judged[len(chosen) :]}


def is_fit(results: Iterable[CompatResult]) -> bool:
    return all(r.verdict is Verdict.COMPATIBLE for r in results)


def judge_barred(facts: Facts, choices: Mapping[str, Choice]) -> None:
    """Policy is only named where it alone is in the way: a build that would not load either is rejected for that."""
    barred = {name: c.barred[0] for name, c in choices.items() if c.best is None and not c.rejected and c.barred}
    if barred:
        chosen = {name: c.best for name, c in choices.items() if c.best is not None}
        for name, results in check_together(facts, {**chosen, **barred}).items():
            if name in barred and not is_fit(results):
                choices[name].rejected.append((barred[name], results))


def _is_providers_fault(result: CompatResult) -> bool:
    kinds = {r.kind for r in result.reasons} - {"summary"}
    return result.verdict is Verdict.COMPATIBLE or kinds <= {"provider-incompatible", "provider-unknown"}
