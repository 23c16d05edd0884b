"""What a rule of the checker found, and the sentence that sums up many findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from autokmod.model import Reason, Verdict

RANK = {Verdict.COMPATIBLE: 0, Verdict.UNKNOWN: 1, Verdict.INCOMPATIBLE: 2}

# Kinds that come once a symbol, and what is said of one symbol and of several.
OF_SYMBOLS = {
    "crc-mismatch": ("changed", "changed"),
    "symbol-missing": ("is not exported", "are not exported"),
    "provider-absent": ("is of a module that is not installed", "are of modules that are not installed"),
    "gpl-only": ("is for GPL modules only", "are for GPL modules only"),
    "namespace-not-imported": ("is in a namespace that is not imported", "are in namespaces that are not imported"),
    "crc-missing": ("has no version in the module", "have no version in the module"),
    "tables-disagree": ("has two versions in the module", "have two versions in the module"),
}


class Finding(NamedTuple):
    verdict: Verdict  # what it makes of the module: unknown or incompatible
    reason: Reason


def refused(reason: Reason) -> Finding:
    return Finding(Verdict.INCOMPATIBLE, reason)


def doubtful(reason: Reason) -> Finding:
    return Finding(Verdict.UNKNOWN, reason)


def worst(findings: Iterable[Finding]) -> Verdict:
    return max((f.verdict for f in findings), key=lambda v: RANK[v], default=Verdict.COMPATIBLE)


def reasons_of(findings: Sequence[Finding]) -> tuple[Reason, ...]:
    """The sentence that decides first, then every finding: the gravest first, else in the order of the rules."""
    ordered = sorted(findings, key=lambda f: -RANK[f.verdict])
    gravest = [f.reason for f in ordered if f.verdict is worst(findings)]
    summary = summarize(gravest)
    return (summary, *(f.reason for f in ordered)) if summary else tuple(f.reason for f in ordered)


def summarize(reasons: Sequence[Reason]) -> Reason | None:
    """None where the first reason says it all."""
    if len(reasons) < 2 or any(r.kind not in OF_SYMBOLS for r in reasons):
        return None
    kinds = list(dict.fromkeys(r.kind for r in reasons))
    parts = [_of_kind(kind, [r.symbol or "" for r in reasons if r.kind == kind]) for kind in kinds]
    return Reason("summary", ", ".join(parts))


def _of_kind(kind: str, symbols: Sequence[str]) -> str:
    one, many = OF_SYMBOLS[kind]
    # module_layout changes with nearly everything: a function that is called says more.
    first = next((s for s in symbols if s != "module_layout"), symbols[0])
    if len(symbols) == 1:
        return f"`{first}` {one}"
    return f"`{first}` and {len(symbols) - 1} more symbol{'s' if len(symbols) > 2 else ''} {many}"
