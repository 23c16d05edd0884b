"""`when = {…}`: facts of a kernel and its distribution that choose patches, flags and modules. Pure.

Every key of a condition has to hold. A key's value is a text or a list of texts, of which one has to hold; a text is
one or more terms with commas between them, which all have to hold; `!` before a term turns it round.

    kernel        a bound (>=6.2, <6.13, =6.1: any 6.1) or a shell pattern of the release (*-rt-*)
    distribution  a shell pattern of os-release's ID, or of one of its ID_LIKE
    release       a bound or a shell pattern of os-release's VERSION_ID
    config        CONFIG_NAME (y or m), or CONFIG_NAME=VALUE
    arch          a shell pattern of what uname -m says on that kernel
    exports       a symbol in the kernel's Module.symvers
    compiler      gcc or clang, a bound of its version, or both: gcc >=12
    not           another condition, or a list of them: none of them may hold

What cannot be read makes an answer unknown, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated

from autokmod.tomltable import OneOrMany
from autokmod.versions import is_at_least, is_at_most

Texts = Annotated[tuple[str, ...], OneOrMany()]

BOUND = re.compile(r"(>=|<=|!=|==?|<|>)\s*(\d[\w.+~-]*)")
_PATTERN = re.compile(r"[\w.+~*?\[\]!:-]+")
_OPTION = re.compile(r"CONFIG_\w+(=\S.*)?", re.ASCII)
_SYMBOL = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_COMPILER = re.compile(r"(gcc|clang)?\s*(?P<bound>(?:>=|<=|!=|==?|<|>)\s*\d[\w.+~-]*)?")


@dataclass(frozen=True, slots=True)
class Condition:
    kernel: Texts = ()
    distribution: Texts = ()
    release: Texts = ()
    config: Texts = ()
    arch: Texts = ()
    exports: Texts = ()
    compiler: Texts = ()
    not_: Annotated[tuple[Condition, ...], OneOrMany()] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """Key and what is wrong with its value."""
        for key, (is_term, expected) in TERMS.items():
            for text in getattr(self, key):
                bad = next((t for t in split_terms(text) if not is_term(t.removeprefix("!").lstrip())), None)
                if bad is not None:
                    yield key, f"'{bad}' is not {expected}"

    def texts(self, key: str) -> Iterator[str]:
        """Every term of this key, also those in `not`, without `!`."""
        for text in getattr(self, key):
            yield from (t.removeprefix("!").lstrip() for t in split_terms(text))
        for inner in self.not_:
            yield from inner.texts(key)


@dataclass(frozen=True, slots=True)
class ConditionFacts:
    """None where it could not be read."""

    krel: str
    arch: str
    distribution: tuple[str, ...] | None  # ID, then ID_LIKE
    release: str | None  # VERSION_ID
    config: Mapping[str, str] | None
    exports: Mapping[str, object] | None
    compiler: tuple[str, str] | None  # gcc or clang, version


@dataclass(frozen=True, slots=True)
class Judgement:
    holds: bool | None  # None: nobody can tell
    why: str  # the facts that decided


def split_terms(text: str) -> list[str]:
    return [term.strip() for term in text.split(",")]


def judge(condition: Condition, facts: ConditionFacts) -> Judgement:
    found = [_any_text(key, getattr(condition, key), facts) for key in TERMS if getattr(condition, key)]
    found += [_none_of(inner, facts) for inner in condition.not_]
    return _all(found)


def _none_of(inner: Condition, facts: ConditionFacts) -> Judgement:
    found = judge(inner, facts)
    return Judgement(None if found.holds is None else not found.holds, found.why)


def _any_text(key: str, texts: Iterable[str], facts: ConditionFacts) -> Judgement:
    found = [_all([_judge_term(key, t, facts) for t in split_terms(text)]) for text in texts]
    for wanted in (True, None):
        best = next((j for j in found if j.holds is wanted), None)
        if best is not None:
            return best
    return Judgement(holds=False, why=_together(found))


def _all(found: list[Judgement]) -> Judgement:
    """No is stronger than unknown, which is stronger than yes."""
    for wanted in (False, None):
        worst = next((j for j in found if j.holds is wanted), None)
        if worst is not None:
            return worst
    return Judgement(holds=True, why=_together(found))


def _together(found: Iterable[Judgement]) -> str:
    return " and ".join(dict.fromkeys(j.why for j in found))


def _judge_term(key: str, term: str, facts: ConditionFacts) -> Judgement:
    plain = term.removeprefix("!").lstrip()
    found = JUDGES[key](plain, facts)
    if plain == term or found.holds is None:
        return found
    return Judgement(not found.holds, found.why)


# ---- one term ------------------------------------------------------------------------------------


def is_within(version: str, bound: str) -> bool:
    """6.12.117 is <=6.12 and =6.12, and not >6.12: what a bound does not mention does not count."""
    found = BOUND.fullmatch(bound)
    if found is None:
        raise ValueError(bound)
    operator, limit = found.groups()
    at_least, at_most = is_at_least(version, limit), is_at_most(version, limit)
    return {
        ">=": at_least,
        "<=": at_most,
        "<": not at_least,
        ">": not at_most,
        "!=": not (at_least and at_most),
    }.get(operator, at_least and at_most)


def _kernel(term: str, facts: ConditionFacts) -> Judgement:
    return _version_or_pattern(facts.krel, term, facts.krel)


def _version_or_pattern(value: str, term: str, what: str) -> Judgement:
    holds = is_within(value, term) if BOUND.fullmatch(term) else fnmatchcase(value, term)
    return Judgement(holds, f"{what} is {'' if holds else 'not '}{term}")


def _distribution(term: str, facts: ConditionFacts) -> Judgement:
    if facts.distribution is None:
        return Judgement(holds=None, why="there is no os-release that names the distribution")
    name = facts.distribution[0] if facts.distribution else "linux"
    if any(fnmatchcase(d, term) for d in facts.distribution):
        return Judgement(
            holds=True, why=f"the distribution is {name}" + (f", which is like {term}" if name != term else "")
        )
    return Judgement(holds=False, why=f"the distribution is {name}")


def _release(term: str, facts: ConditionFacts) -> Judgement:
    if facts.release is None:
        return Judgement(holds=None, why="os-release does not tell the distribution's release")
    return _version_or_pattern(facts.release, term, f"the distribution's release {facts.release}")


def _config(term: str, facts: ConditionFacts) -> Judgement:
    if facts.config is None:
        return Judgement(holds=None, why=f"the configuration of {facts.krel} cannot be read")
    option, equals, wanted = term.partition("=")
    value = facts.config.get(option)
    holds = value is not None and value.strip('"') == wanted.strip('"') if equals else value in ("y", "m")
    return Judgement(holds, f"{option} is {value if value is not None else 'not set'}")


def _arch(term: str, facts: ConditionFacts) -> Judgement:
    return Judgement(fnmatchcase(facts.arch, term), f"the architecture is {facts.arch}")


def _exports(term: str, facts: ConditionFacts) -> Judgement:
    if facts.exports is None:
        return Judgement(holds=None, why=f"the symbols that {facts.krel} exports cannot be read")
    holds = term in facts.exports
    return Judgement(holds, f"the kernel {'exports' if holds else 'does not export'} {term}")


def _compiler(term: str, facts: ConditionFacts) -> Judgement:
    if facts.compiler is None:
        return Judgement(holds=None, why=f"the compiler for {facts.krel} is not known")
    name, version = facts.compiler
    found = _COMPILER.fullmatch(term)
    bound = found["bound"] if found else None
    holds = found is not None and found[1] in (None, name) and (bound is None or is_within(version, bound))
    return Judgement(holds, f"the compiler is {name} {version}")


JUDGES: Mapping[str, Callable[[str, ConditionFacts], Judgement]] = {
    "kernel": _kernel,
    "distribution": _distribution,
    "release": _release,
    "config": _config,
    "arch": _arch,
    "exports": _exports,
    "compiler": _compiler,
}


# ---- what a term may look like -------------------------------------------------------------------


def _matches(pattern: re.Pattern[str], term: str) -> bool:
    return bool(term) and pattern.fullmatch(term) is not None


def _is_version_or_pattern(term: str) -> bool:
    return _matches(BOUND, term) or _matches(_PATTERN, term)


_BOUND_OR_PATTERN = 'a bound (">=6.2") or a shell pattern'
TERMS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "kernel": (_is_version_or_pattern, _BOUND_OR_PATTERN + " of a kernel's release"),
    "distribution": (partial(_matches, _PATTERN), 'an ID of os-release ("debian")'),
    "release": (_is_version_or_pattern, _BOUND_OR_PATTERN + " of os-release's VERSION_ID"),
    "config": (partial(_matches, _OPTION), 'an option of the kernel ("CONFIG_PCI", "CONFIG_HZ=250", "!CONFIG_X")'),
    "arch": (partial(_matches, _PATTERN), 'an architecture as uname -m says it ("x86_64")'),
    "exports": (partial(_matches, _SYMBOL), 'the name of a symbol ("strscpy", "!strlcpy")'),
    "compiler": (partial(_matches, _COMPILER), 'a compiler ("gcc", "clang >=15", "<12")'),
}
