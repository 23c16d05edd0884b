"""Facts of one kernel → one decision a package, with its reasons.

A package that imports from one that is still to be built waits for it: the engine builds, and asks anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from autokmod.decide.candidates import Candidate
from autokmod.decide.dependencies import with_dependencies
from autokmod.decide.early import decide_early, make_decision, select_versions, wait_for_source
from autokmod.decide.facts import Facts
from autokmod.decide.foreign import VENDOR, vendor_packages
from autokmod.decide.older import conclude, next_versions
from autokmod.decide.settle import Choice, judge_barred, judge_theirs, open_choices, settle
from autokmod.decide.vendor import Verdicts, decide_vendor, is_dkms_s_work
from autokmod.decide.why import absent_providers, build_failed, no_headers, why_build, why_use
from autokmod.model import Build, Decision, DecisionKind, KernelState, Package


def decide_kernel(facts: Facts) -> tuple[Decision, ...]:
    """One decision for each package name, in name order."""
    chosen = {p.name: p for p in (*select_versions(facts.packages), *vendor_packages(facts))}
    decisions = _decide_all(facts, chosen)
    given_up: dict[str, list[Decision]] = {}
    while older := next_versions(facts, chosen, decisions):
        for name in older:
            given_up.setdefault(name, []).append(decisions[name])
        chosen |= older
        decisions = _decide_all(facts, chosen)
    return tuple(conclude(facts, decisions[name], given_up.get(name, ())) for name in sorted(decisions))


def _decide_all(facts: Facts, chosen: Mapping[str, Package]) -> dict[str, Decision]:
    """With these versions, and no others."""
    early = {name: decide_early(facts, p) for name, p in chosen.items()}
    choices = open_choices(facts, [p for name, p in chosen.items() if early[name] is None])
    settle(facts, choices)
    judge_barred(facts, choices)
    decisions = {name: d for name, d in early.items() if d is not None}
    theirs = judge_theirs(facts, choices) if facts.foreign_builds else {}
    decisions.update({name: _decide(facts, choice, theirs) for name, choice in choices.items()})
    decisions.update({p.package: wait_for_source(facts, p, why) for p, why in facts.lost if not facts.force})
    return with_dependencies(facts, decisions, choices)


def _decide(facts: Facts, choice: Choice, theirs: Verdicts) -> Decision:
    if choice.best is not None:
        return _use(facts, choice, choice.best)
    if choice.package.kind == VENDOR:
        return decide_vendor(facts, choice, theirs)
    done = is_dkms_s_work(facts, choice, theirs)
    if done is not None:
        return done
    failed = _failed_build(facts, choice.package)
    if failed is not None:
        return _remember_failure(facts, choice.package, failed)
    absent = absent_providers(choice)
    if absent is not None:
        return make_decision(facts, choice.package, DecisionKind.WAIT, absent)
    if facts.kernel.kdir is None:
        return make_decision(facts, choice.package, DecisionKind.WAIT, *no_headers(facts))
    if facts.build_problem is not None:
        return make_decision(facts, choice.package, DecisionKind.BLOCKED, facts.build_problem)
    hindrance = facts.tried.get(facts.keys.get(choice.package.id, ""))
    if hindrance is not None:
        return make_decision(facts, choice.package, DecisionKind.BLOCKED, hindrance)
    if choice.package.id not in facts.keys:
        return make_decision(facts, choice.package, DecisionKind.BLOCKED, *facts.abi.problems)
    return make_decision(facts, choice.package, DecisionKind.BUILD, *why_build(facts, choice))


def _use(facts: Facts, choice: Choice, candidate: Candidate) -> Decision:
    compared = sum(r.symbols_compared for r in choice.results)
    exact = candidate.build.key == facts.keys.get(choice.package.id)
    return Decision(
        choice.package.name,
        candidate.build.version if candidate.foreign is not None else choice.package.version,
        facts.kernel.krel,
        candidate.kind,
        (why_use(candidate, compared, exact=exact),),
        key=candidate.build.key,
        stored=True,
        link_from=candidate.link_from,
        symbols_compared=compared,
        foreign=candidate.foreign.origin if candidate.foreign is not None else None,
    )


def _failed_build(facts: Facts, package: Package) -> Build | None:
    """A failure is remembered until something in the key changes, or a person asks; but tried once a run.

    And until the kernel's files change: not all of the headers count in the key, and some may have been missing.
    """
    key = facts.keys.get(package.id)
    failed = next((b for b in facts.builds if b.key == key and not b.ok), None)
    if failed is None or key in facts.tried:
        return failed
    is_outdated = failed.built_at - failed.duration_s < facts.kernel.changed_at and not _is_from_the_future(facts)
    return None if failed.transient or facts.force or is_outdated else failed


def _is_from_the_future(facts: Facts) -> bool:
    """The kernel's last change was recorded before it happened: a clock was wrong, and tells nothing of before and
    after. Else each look would compile what fails once more."""
    changed_at, record = facts.kernel.changed_at, facts.record
    return record is not None and record.kernel_changed_at == changed_at and record.updated_at < changed_at


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


def can_be_planned(facts: Facts) -> bool:
    """A directory that is no kernel, or one in the middle of a change, is left alone."""
    return facts.kernel.state not in (KernelState.HEADERS_ONLY, KernelState.INCOMPLETE)
