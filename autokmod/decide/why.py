"""Why a package is decided upon as it is: the shortest true sentence first, then the symbols."""

from __future__ import annotations

from collections.abc import Sequence

from autokmod.decide.candidates import Candidate
from autokmod.decide.facts import Facts
from autokmod.decide.settle import Choice
from autokmod.model import Build, CompatResult, DecisionKind, Reason, Verdict

FAILED = "build-failed"
FAILURES = (FAILED, "build-interrupted")
OLDER = "older-version"
MAX_SYMBOL_REASONS = 50  # kept with a decision; the sentence counts them all


def _whose(candidate: Candidate) -> str:
    krel = candidate.build.krel
    if candidate.foreign is None:
        return f"the build for {krel}"
    origin = candidate.foreign.origin
    return f"{origin.owner}'s build for {krel} ({origin.place})"


def why_use(candidate: Candidate, compared: int, *, exact: bool) -> Reason:
    agree = f"all {compared} symbol versions agree"
    origin = "built for this kernel" if exact else f"{_whose(candidate)} is compatible"
    if candidate.kind is DecisionKind.KEEP:
        how = f"linked to {candidate.link_from}" if candidate.link_from else "in place"
        return Reason("in-place", f"{how} and verified; {origin}, {agree}")
    if candidate.kind is DecisionKind.LINK:
        return Reason("compatible-build", f"{origin}: {agree}")
    return Reason("stored-build", f"{origin} and in the store: nothing to compile, {agree}")


def absent_providers(choice: Choice) -> Reason | None:
    """The exact build is there and lacks nothing but modules of the kernel that are not installed: no rebuild helps."""
    if not choice.rejected:
        return None
    reasons = [r for _, results in choice.rejected[:1] for result in results for r in result.reasons]
    if {r.kind for r in reasons} - {"summary"} != {"provider-absent"}:
        return None
    exporters = ", ".join(sorted({str(r.exporter) for r in reasons if r.exporter}))
    hint = "install the rest of this kernel's modules (linux-modules-extra, kernel-modules-extra)"
    return Reason("provider-absent", f"it needs modules of the kernel that are not installed: {exporters}", hint=hint)


def no_headers(facts: Facts) -> Sequence[Reason]:
    return facts.kernel.problems or (Reason("headers-missing", "the kernel's headers are not installed"),)


def build_failed(build: Build) -> Reason:
    first = build.errors[0] if build.errors else None
    where = f"{first.file}:{first.line}: " if first and first.file else ""
    what = f"the build failed: {where}{first.text}" if first else "the build failed"
    logs = f"see 'autokmodctl logs {build.package} {build.krel}'"
    if build.transient:
        return Reason("build-interrupted", what, hint=f"{logs}; it is tried again by itself")
    again = f"'autokmodctl reconcile --force {build.krel}'"
    text = f"{logs}; it is tried again when source, kernel or compiler change, or with {again}"
    return Reason(FAILED, what, hint=text)


def why_build(facts: Facts, choice: Choice) -> tuple[Reason, ...]:
    if choice.rejected:
        candidate, results = choice.rejected[0]
        return why_unfit(candidate, results)
    if choice.barred:
        return choice.barred[0].barred
    known = [b for b in facts.builds if b.package == choice.package.name and b.ok]
    if not known:
        return (Reason("no-build", "it was never built on this machine"),)
    if not any(b.source_key == facts.source_keys.get(choice.package.id) for b in known):
        return (Reason("source-changed", "its source or recipe changed since the last build"),)
    return (Reason("no-build", "it was not built for this kernel, and no other build may be used"),)


def why_unfit(candidate: Candidate, results: Sequence[CompatResult]) -> tuple[Reason, ...]:
    """The sentence first, then the details, each symbol once."""
    reasons = [reason for result in results if result.verdict is not Verdict.COMPATIBLE for reason in result.reasons]
    by_symbol = {reason.symbol: reason for reason in reasons if reason.symbol is not None}
    others = [reason for reason in reasons if reason.symbol is None]
    sentence = f"{_whose(candidate)} does not fit: {_summary(list(by_symbol.values()), others)}"
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
