"""Facts of one kernel → one decision a package, with its reasons.

Existing builds are tried best first, all packages together: a package's modules may need symbols that another
package's chosen build exports. A choice that does not fit is dropped and everything is looked at again, until nothing
changes. A package that imports from one that is still to be built waits for it: the engine builds, and asks anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import islice

from autokmod.decide.candidates import Candidate, find_candidates
from autokmod.decide.compat import check_set
from autokmod.decide.facts import Facts
from autokmod.model import (
    Build,
    CompatResult,
    Decision,
    DecisionKind,
    KernelState,
    Package,
    Placement,
    Reason,
    Recipe,
    Verdict,
)
from autokmod.versions import is_older

FAILURES = ("build-failed", "build-interrupted")
MAX_SYMBOL_REASONS = 50  # kept with a decision; the sentence counts them all


@dataclass(slots=True)
class _Choice:
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


def decide_kernel(facts: Facts) -> tuple[Decision, ...]:
    """One decision for each package name, in name order."""
    decided = {p.name: _early(facts, p) for p in select_versions(facts.packages)}
    open_packages = [p for p in select_versions(facts.packages) if decided[p.name] is None]
    by_source = _by_source(facts.builds)
    choices = {p.name: _choice(facts, p, by_source.get(facts.source_keys.get(p.id, ""), ())) for p in open_packages}
    _settle(facts, choices)
    _judge_barred(facts, choices)
    decisions = {name: d for name, d in decided.items() if d is not None}
    for choice in choices.values():
        decisions[choice.package.name] = _decide(facts, choice)
    decisions.update({p.package: _wait_for_source(facts, p, why) for p, why in facts.lost if not facts.force})
    return tuple(_with_dependencies(facts, decisions, choices)[name] for name in sorted(decisions))


def select_versions(packages: Iterable[Package]) -> tuple[Package, ...]:
    """The newest version of each name: one module name can stand in a kernel only once."""
    newest: dict[str, Package] = {}
    for package in packages:
        other = newest.get(package.name)
        if other is None or is_older(other.version, package.version):
            newest[package.name] = package
    return tuple(newest[name] for name in sorted(newest))


def _early(facts: Facts, package: Package) -> Decision | None:
    """What is decided without looking at any build."""
    mine = facts.config.package(package.name)
    pattern = next((p for p in mine.exclude_kernels if fnmatchcase(facts.kernel.krel, p)), None)
    recipe = facts.recipes.get(package.id)
    if not mine.enabled:
        return _decision(facts, package, DecisionKind.SKIP, Reason("disabled", "disabled by the administrator"))
    if pattern is not None:
        text = f"the administrator excluded kernels like {pattern}"
        return _decision(facts, package, DecisionKind.SKIP, Reason("excluded", text))
    if not facts.abi.exports and _stands(facts, package):
        text = "in place and verified when the headers were there; without them it cannot be compared again"
        return _decision(facts, package, DecisionKind.KEEP, Reason("in-place", text))
    problem = package.problem or facts.recipe_problems.get(package.id)
    if problem is not None:
        return _decision(facts, package, DecisionKind.BLOCKED, problem)
    if recipe is None:
        return _decision(facts, package, DecisionKind.WAIT, *facts.kernel.problems)
    if recipe.excluded is not None:
        return _decision(facts, package, DecisionKind.SKIP, recipe.excluded)
    if not recipe.autoinstall:
        text = "the recipe does not ask to be installed by itself (AUTOINSTALL)"
        return _decision(facts, package, DecisionKind.SKIP, Reason("no-autoinstall", text))
    if facts.signing_problem is not None:
        return _decision(facts, package, DecisionKind.BLOCKED, facts.signing_problem)
    return None


def _wait_for_source(facts: Facts, placement: Placement, why: Reason) -> Decision:
    """Its modules stay. Only a person can tell that it is gone for good."""
    krel = facts.kernel.krel
    hint = f"{why.hint}; if {placement.package} is gone for good: autokmodctl reconcile --force {krel}"
    return Decision(placement.package, placement.version, krel, DecisionKind.WAIT, (replace(why, hint=hint),))


def _stands(facts: Facts, package: Package) -> bool:
    """What was once decided for this very kernel and source still stands. Of a replaced kernel nobody knows."""
    if facts.record is None or facts.record.kernel_installed_at not in (None, facts.kernel.installed_at):
        return False
    mine = [p for p in facts.record.placements if p.package == package.name and p.version == package.version]
    return package.name in facts.intact and any(p.verified and not p.standing for p in mine)


def _decision(facts: Facts, package: Package, kind: DecisionKind, *reasons: Reason) -> Decision:
    return Decision(package.name, package.version, facts.kernel.krel, kind, reasons, key=facts.keys.get(package.id))


def _by_source(builds: Iterable[Build]) -> dict[str, list[Build]]:
    found: dict[str, list[Build]] = {}
    for build in builds:
        found.setdefault(build.source_key, []).append(build)
    return found


def _choice(facts: Facts, package: Package, builds: Iterable[Build]) -> _Choice:
    recipe = facts.recipes[package.id]
    found = find_candidates(facts, package, recipe, builds)
    return _Choice(package, recipe, [c for c in found if not c.barred], [c for c in found if c.barred])


def _settle(facts: Facts, choices: Mapping[str, _Choice]) -> None:
    """Drop candidates that do not fit until all that are left fit together. Ends: each round drops at least one."""
    while unfit := _unfit(facts, choices):
        # What only suffers from a provider's candidate may be fine with that provider's next one.
        guilty = [c for c in unfit if not all(_is_providers_fault(r) for r in c.results)]
        for choice in guilty or unfit:
            choice.rejected.append((choice.candidates.pop(0), choice.results))


def _unfit(facts: Facts, choices: Mapping[str, _Choice]) -> list[_Choice]:
    """All chosen modules are judged as one set: they offer symbols, licences and faults to one another."""
    chosen = {name: c.best for name, c in choices.items() if c.best is not None}
    for name, results in _check_together(facts, chosen).items():
        choices[name].results = results
    return [choices[name] for name in chosen if not _is_fit(choices[name].results)]


def _check_together(facts: Facts, candidates: Mapping[str, Candidate]) -> dict[str, tuple[CompatResult, ...]]:
    """With the other owners' modules that would stay beside them."""
    modules = [m for c in candidates.values() for m in c.modules]
    names = {m.name for m in modules}
    results = iter(check_set([*modules, *(m for m in facts.foreign if m.name not in names)], facts.abi, {}))
    return {name: tuple(islice(results, len(c.modules))) for name, c in candidates.items()}


def _is_fit(results: Iterable[CompatResult]) -> bool:
    return all(r.verdict is Verdict.COMPATIBLE for r in results)


def _judge_barred(facts: Facts, choices: Mapping[str, _Choice]) -> None:
    """Policy is only named where it alone is in the way: a build that would not load either is rejected for that."""
    barred = {name: c.barred[0] for name, c in choices.items() if c.best is None and not c.rejected and c.barred}
    if barred:
        chosen = {name: c.best for name, c in choices.items() if c.best is not None}
        for name, results in _check_together(facts, {**chosen, **barred}).items():
            if name in barred and not _is_fit(results):
                choices[name].rejected.append((barred[name], results))


def _is_providers_fault(result: CompatResult) -> bool:
    kinds = {r.kind for r in result.reasons} - {"summary"}
    return result.verdict is Verdict.COMPATIBLE or kinds <= {"provider-incompatible", "provider-unknown"}


def _decide(facts: Facts, choice: _Choice) -> Decision:
    if choice.best is not None:
        return _use(facts, choice, choice.best)
    failed = _failed_build(facts, choice.package)
    if failed is not None:
        return _remember_failure(facts, choice.package, failed)
    absent = _absent_providers(choice)
    if absent is not None:
        return _decision(facts, choice.package, DecisionKind.WAIT, absent)
    if facts.kernel.kdir is None:
        return _decision(facts, choice.package, DecisionKind.WAIT, *_no_headers(facts))
    if facts.build_problem is not None:
        return _decision(facts, choice.package, DecisionKind.BLOCKED, facts.build_problem)
    hindrance = facts.tried.get(facts.keys.get(choice.package.id, ""))
    if hindrance is not None:
        return _decision(facts, choice.package, DecisionKind.BLOCKED, hindrance)
    if choice.package.id not in facts.keys:
        return _decision(facts, choice.package, DecisionKind.BLOCKED, *facts.abi.problems)
    return _decision(facts, choice.package, DecisionKind.BUILD, *_why_build(facts, choice))


def _absent_providers(choice: _Choice) -> Reason | None:
    """The exact build is there and lacks nothing but modules of the kernel that are not installed: no rebuild helps."""
    if not choice.rejected:
        return None
    reasons = [r for _, results in choice.rejected[:1] for result in results for r in result.reasons]
    if {r.kind for r in reasons} - {"summary"} != {"provider-absent"}:
        return None
    exporters = ", ".join(sorted({str(r.exporter) for r in reasons if r.exporter}))
    hint = "install the rest of this kernel's modules (linux-modules-extra, kernel-modules-extra)"
    return Reason("provider-absent", f"it needs modules of the kernel that are not installed: {exporters}", hint=hint)


def _no_headers(facts: Facts) -> Sequence[Reason]:
    return facts.kernel.problems or (Reason("headers-missing", "the kernel's headers are not installed"),)


def _use(facts: Facts, choice: _Choice, candidate: Candidate) -> Decision:
    compared = sum(r.symbols_compared for r in choice.results)
    exact = candidate.build.key == facts.keys.get(choice.package.id)
    return Decision(
        choice.package.name,
        choice.package.version,
        facts.kernel.krel,
        candidate.kind,
        (_why_use(candidate, compared, exact=exact),),
        key=candidate.build.key,
        stored=True,
        link_from=candidate.link_from,
        symbols_compared=compared,
    )


def _why_use(candidate: Candidate, compared: int, *, exact: bool) -> Reason:
    agree = f"all {compared} symbol versions agree"
    origin = "built for this kernel" if exact else f"the build for {candidate.build.krel} is compatible"
    if candidate.kind is DecisionKind.KEEP:
        how = f"linked to {candidate.link_from}" if candidate.link_from else "in place"
        return Reason("in-place", f"{how} and verified; {origin}, {agree}")
    if candidate.kind is DecisionKind.LINK:
        return Reason("compatible-build", f"{origin}: {agree}")
    return Reason("stored-build", f"{origin} and in the store: nothing to compile, {agree}")


def _failed_build(facts: Facts, package: Package) -> Build | None:
    """A failure is remembered until something in the key changes, or a person asks; but tried once a run.

    And until the kernel's files change: not all of the headers count in the key, and some may have been missing.
    """
    key = facts.keys.get(package.id)
    failed = next((b for b in facts.builds if b.key == key and not b.ok), None)
    if failed is None or key in facts.tried:
        return failed
    is_outdated = failed.built_at - failed.duration_s < facts.kernel.changed_at
    return None if failed.transient or facts.force or is_outdated else failed


def _remember_failure(facts: Facts, package: Package, failed: Build) -> Decision:
    return Decision(
        package.name,
        package.version,
        facts.kernel.krel,
        DecisionKind.BUILD,
        (build_failed(failed),),
        key=failed.key,
        stored=True,
    )


def build_failed(build: Build) -> Reason:
    first = build.errors[0] if build.errors else None
    where = f"{first.file}:{first.line}: " if first and first.file else ""
    what = f"the build failed: {where}{first.text}" if first else "the build failed"
    logs = f"see 'autokmodctl logs {build.package} {build.krel}'"
    if build.transient:
        return Reason("build-interrupted", what, hint=f"{logs}; it is tried again by itself")
    again = f"'autokmodctl reconcile --force {build.krel}'"
    text = f"{logs}; it is tried again when source, kernel or compiler change, or with {again}"
    return Reason("build-failed", what, hint=text)


def _why_build(facts: Facts, choice: _Choice) -> tuple[Reason, ...]:
    if choice.rejected:
        candidate, results = choice.rejected[0]
        return _why_unfit(candidate, results)
    if choice.barred:
        return choice.barred[0].barred
    known = [b for b in facts.builds if b.package == choice.package.name and b.ok]
    if not known:
        return (Reason("no-build", "it was never built on this machine"),)
    if not any(b.source_key == facts.source_keys.get(choice.package.id) for b in known):
        return (Reason("source-changed", "its source or recipe changed since the last build"),)
    return (Reason("no-build", "it was not built for this kernel, and no other build may be used"),)


def _why_unfit(candidate: Candidate, results: Sequence[CompatResult]) -> tuple[Reason, ...]:
    """The sentence first, then the details, each symbol once."""
    reasons = [reason for result in results if result.verdict is not Verdict.COMPATIBLE for reason in result.reasons]
    by_symbol = {reason.symbol: reason for reason in reasons if reason.symbol is not None}
    others = [reason for reason in reasons if reason.symbol is None]
    sentence = f"the build for {candidate.build.krel} does not fit: {_summary(list(by_symbol.values()), others)}"
    return (Reason("incompatible-build", sentence), *list(by_symbol.values())[:MAX_SYMBOL_REASONS])


def _summary(symbols: Sequence[Reason], others: Sequence[Reason]) -> str:
    if not symbols:
        return others[0].text if others else "the checker does not say why"
    what = "changed" if all(r.kind == "crc-mismatch" for r in symbols) else "changed or are gone"
    # module_layout changes with nearly everything: the name of a function that is called says more.
    first = next((r for r in symbols if r.symbol != "module_layout"), symbols[0])
    if len(symbols) == 1:
        return first.text
    plural = "s" if len(symbols) > 2 else ""
    return f"{first.symbol} and {len(symbols) - 1} more symbol{plural} {what}"


# ---- packages that need packages -----------------------------------------------------------------


def _with_dependencies(
    facts: Facts, decisions: Mapping[str, Decision], choices: Mapping[str, _Choice]
) -> dict[str, Decision]:
    """A package that must be compiled waits for those that it needs and that are not there yet."""
    return {
        name: _after_dependencies(facts, decision, choices[name], decisions) if name in choices else decision
        for name, decision in decisions.items()
    }


def _after_dependencies(
    facts: Facts, decision: Decision, choice: _Choice, decisions: Mapping[str, Decision]
) -> Decision:
    if decision.kind is not DecisionKind.BUILD or decision.stored:
        return decision
    for needed in sorted({*choice.recipe.build_depends, *_imported_from(facts, choice, decisions)}):
        reason = _obstacle(needed, decisions.get(needed), facts)
        if reason is not None:
            kind = DecisionKind.BLOCKED if reason.kind == "dependency-failed" else DecisionKind.WAIT
            return _decision(facts, choice.package, kind, reason)
    return _unless_built_before(facts, decision, choice)


def _unless_built_before(facts: Facts, decision: Decision, choice: _Choice) -> Decision:
    """The same key compiled again is the same build again: what did not fit will not fit then."""
    own = next(((c, r) for c, r in choice.rejected if c.build.key == decision.key), None)
    if own is None or (facts.force and decision.key not in facts.tried):
        return decision
    sentence, *details = _why_unfit(*own)
    text = sentence.text.replace(f"the build for {own[0].build.krel} does not fit", "it was built, but does not fit")
    if facts.abi.problems:
        text = f"it was built, but nobody can tell whether it fits: {facts.abi.problems[0].text}"
    return _decision(facts, choice.package, DecisionKind.BLOCKED, replace(sentence, text=text), *details)


def _imported_from(facts: Facts, choice: _Choice, decisions: Mapping[str, Decision]) -> set[str]:
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


def can_be_planned(facts: Facts) -> bool:
    """A directory that is no kernel, or one in the middle of a change, is left alone."""
    return facts.kernel.state not in (KernelState.HEADERS_ONLY, KernelState.INCOMPLETE)
