"""What other owners' modules mean for a package: those that stand here win, those of other kernels are all that a
vendor's package has.

Kinds of reasons: foreign-stands (skip), foreign-unfit (blocked), foreign-unreadable, no-compatible-build (wait).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autokmod.decide.early import make_decision
from autokmod.decide.facts import Facts
from autokmod.decide.finding import RANK
from autokmod.decide.foreign import builds_of, files_here, is_dkms_s, names_of, promised_names, standing
from autokmod.decide.settle import Choice, is_fit
from autokmod.decide.why import no_headers, why_unfit
from autokmod.model import CompatResult, Decision, DecisionKind, ForeignOrigin, ModuleFacts, Reason, Verdict

HINT = "install the vendor's package for this kernel"

Verdicts = Mapping[str, CompatResult]  # path of another owner's module here → what the checker says


def is_dkms_s_work(facts: Facts, choice: Choice, verdicts: Verdicts) -> Decision | None:
    """DKMS installed this very package here, whole, and it fits: there is no reason to build it a second time."""
    if not is_dkms_s(choice.recipe):
        return None
    promised = promised_names(choice.recipe)
    here = [
        b
        for b in facts.foreign_builds
        if b.krel == facts.kernel.krel and not b.taken_over and b.names == promised
        if (b.package, b.version) == (choice.package.name, choice.package.version)
    ]
    theirs = standing(facts, promised)
    results = [verdicts[m.path] for m in theirs if m.path in verdicts]
    if not here or len(results) != len(promised) or not is_fit(results):
        return None
    origin = here[0].origin
    compared = sum(r.symbols_compared for r in results)
    text = f"{origin.owner} has it installed in {origin.place}, and it fits: all {compared} symbol versions agree"
    decision = make_decision(facts, choice.package, DecisionKind.SKIP, Reason("foreign-stands", text))
    return replace(decision, beside=files_here(facts, theirs))


def decide_vendor(facts: Facts, choice: Choice, verdicts: Verdicts) -> Decision:
    """Of a vendor's package of which no build is used here."""
    builds = builds_of(facts, choice.package.name)
    theirs = standing(facts, names_of(builds))
    kind, reasons = _beside(facts, theirs, verdicts) if theirs else (DecisionKind.WAIT, _why_none(facts, choice))
    decision = make_decision(facts, choice.package, kind, *reasons)
    picked = [m for m in theirs if m.path in verdicts] if kind is DecisionKind.SKIP else []
    return replace(decision, foreign=_origin(facts, choice), beside=files_here(facts, picked))


def _origin(facts: Facts, choice: Choice) -> ForeignOrigin:
    return builds_of(facts, choice.package.name)[0].origin


def _beside(facts: Facts, theirs: Sequence[ModuleFacts], verdicts: Verdicts) -> tuple[DecisionKind, tuple[Reason, ...]]:
    """Left alone in any case; told where it would not load."""
    where = _where(facts, theirs[0])
    results = [verdicts[m.path] for m in theirs if m.path in verdicts]  # none where a package of ours displaces it
    worst = max(results, key=lambda r: RANK[r.verdict], default=None)
    if worst is not None and worst.verdict is Verdict.INCOMPATIBLE:
        text = f"{where} is another owner's, and does not fit: {worst.reasons[0].text}"
        return DecisionKind.BLOCKED, (Reason("foreign-unfit", text, hint=HINT), *worst.reasons[1:])
    text = f"another owner's modules stand here: {where}"
    if worst is not None and worst.verdict is Verdict.UNKNOWN:
        text = f"{text}; whether they fit is not known: {worst.reasons[0].text}"
    return DecisionKind.SKIP, (Reason("foreign-stands", text),)


def _where(facts: Facts, module: ModuleFacts) -> str:
    """Relative to this kernel's modules directory, or to the one above it: a link of weak-modules leads elsewhere."""
    modulesd = facts.kernel.modulesd
    return module.path.removeprefix(f"{modulesd}/").removeprefix(f"{modulesd.rpartition('/')[0]}/")


def _why_none(facts: Facts, choice: Choice) -> tuple[Reason, ...]:
    if choice.rejected and facts.abi.problems:
        why = facts.abi.problems[0]
        text = f"nobody can tell whether its builds for other kernels fit: {why.text}"
        return (Reason("no-compatible-build", text, hint=why.hint or no_headers(facts)[0].hint or HINT),)
    problem = next((b.problem for b in builds_of(facts, choice.package.name) if b.problem is not None), None)
    if choice.rejected:
        first, *rest = why_unfit(*choice.rejected[0])
    elif choice.barred:
        first, *rest = choice.barred[0].barred
    elif problem is not None:
        return (replace(problem, hint=f"mend it, or {HINT}"),)
    else:
        first, rest = Reason("no-compatible-build", "none is known"), []
    hint = f"{HINT}; {first.hint}" if first.hint else HINT
    return (Reason("no-compatible-build", f"no compatible build: {first.text}", hint=hint), *rest)
