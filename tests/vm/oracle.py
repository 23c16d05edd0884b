"""Does the checker say what the loader said? The loader's log and the checker's reasons, in the same words.

The loader stops at the first of its stages that is not content; what it names there, the checker has to name too. Where
it comes to the symbols, it goes through all of them, and both lists have to be the same.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from autokmod.model import CompatResult, Verdict
from tests.vm.protocol import Outcome


class Complaint(NamedTuple):
    rule: str
    symbol: str | None = None


# kernel/module/{main,version,signing}.c, security/lockdown: message → rule; a group is the symbol.
MESSAGES = tuple(
    (re.compile(pattern), rule)
    for pattern, rule in (
        (r"disagrees about version of symbol (\S+)", "crc"),
        (r"uses symbol \(?(\S+?)\)? from namespace \S+, but does not import it", "namespace"),
        (r"uses symbols (\S+) from proprietary module", "proprietary"),
        (r"Unknown symbol (\S+) \(err -2\)", "missing"),
        (r"exports duplicate symbol (\S+) \(owned by", "duplicate"),
        (r"version magic '.*' should be '", "vermagic"),
        (r"section size must match the kernel's built struct module size", "struct-size"),
        (r"please compile with -fno-common", "common"),
        (r"Unknown rela relocation", "relocation"),
        (r"Loading of (?:unsigned module|module with \w+ \w+) is rejected", "unsigned"),
        (r"Lockdown: \S+: unsigned module loading is restricted", "unsigned"),
        (r"^PKCS7: (?:Unsupported|Only support)", "signature"),
        (r"failed to validate module \[\S+\] BTF", "btf"),
    )
)
ABOUT_SYMBOLS = {"crc", "namespace", "missing", "proprietary"}
# Without a word of the loader, its errno says it.
ERRNOS = {errno.EBADMSG: "signature", errno.EKEYREJECTED: "signature", errno.ENOEXEC: "format"}

# The checker's kinds of reasons → what the loader may call it.
RULES = {
    "unreadable": ("format",),
    "not-a-module": ("format",),
    "other-machine": ("format",),
    "common-symbol": ("common",),
    "unknown-relocation": ("relocation",),
    "struct-size": ("struct-size",),
    "vermagic-mismatch": ("vermagic",),
    "release-mismatch": ("vermagic",),
    "signature-damaged": ("signature",),
    "unsigned": ("unsigned",),
    "crc-mismatch": ("crc",),
    "symbol-missing": ("missing",),
    "provider-absent": ("missing",),
    "provider-incompatible": ("missing",),
    "gpl-only": ("missing",),
    "namespace-not-imported": ("namespace",),
    "proprietary-provider": ("proprietary", "missing"),
    "duplicate-export": ("duplicate",),
}


def complaints(outcome: Outcome) -> frozenset[Complaint]:
    """Why the loader refused, in its own words; none where it accepted."""
    if outcome.accepted:
        return frozenset()
    found = {
        Complaint(rule, *m.groups())
        for line in outcome.log
        for pattern, rule in MESSAGES
        if (m := pattern.search(line))
    }
    # A symbol that a proprietary module taints, it then also calls unknown.
    found -= {Complaint("missing", c.symbol) for c in found if c.rule == "proprietary"}
    return frozenset(found or {Complaint(ERRNOS.get(outcome.result, errno.errorcode.get(outcome.result, "?")))})


def disagreement(outcome: Outcome, result: CompatResult, exporters: Mapping[str, str] | None = None) -> str | None:
    """One sentence, or None where they say the same. An unknown verdict never disagrees.

    `exporters`: symbol → module of the set. A refused provider the checker names once, the loader misses all of its
    symbols.
    """
    said = complaints(outcome)
    if result.verdict is Verdict.UNKNOWN:
        return None
    if result.verdict is Verdict.COMPATIBLE:
        return f"false compatible: {_text(said)}" if said else None
    if not said:
        return f"false incompatible: {', '.join(_names(result))}"
    return _other_reasons(said, result, exporters or {})


def _other_reasons(said: frozenset[Complaint], result: CompatResult, exporters: Mapping[str, str]) -> str | None:
    named = {Complaint(rule, r.symbol) for r in result.reasons for rule in RULES.get(r.kind, ())}
    named |= {Complaint(c.rule) for c in named}  # the loader does not always say which symbol it means
    refused = {r.exporter for r in result.reasons if r.kind == "provider-incompatible"}
    named |= {c for c in said if c.rule == "missing" and exporters.get(c.symbol or "") in refused}
    # Of a proprietary module's symbols one is enough, and the loader takes its pick.
    proprietary = {c for c in said if c.rule == "proprietary"}
    excused = proprietary if named & proprietary else set()
    unsaid = [c for c in said if c not in named | excused]
    if unsaid:
        return f"other reasons: the loader says {_text(unsaid)}, the checker {', '.join(_names(result))}"
    if not came_to_symbols(said):
        return None
    symbols = {c.symbol for c in said}
    more = [r.symbol for r in result.reasons if r.symbol and r.kind in RULES and r.symbol not in symbols]
    return f"other reasons: the loader has nothing against {', '.join(sorted(more))}" if more else None


def came_to_symbols(said: Iterable[Complaint]) -> bool:
    return any(c.rule in ABOUT_SYMBOLS and c.symbol != "module_layout" for c in said)


def _names(result: CompatResult) -> list[str]:
    return [f"{r.kind} {r.symbol or ''}".strip() for r in result.reasons if r.kind != "summary"]


def _text(said: Iterable[Complaint]) -> str:
    return ", ".join(sorted(f"{c.rule} {c.symbol or ''}".strip() for c in said))
