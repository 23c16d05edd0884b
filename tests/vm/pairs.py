"""Every module of the matrix against every kernel: the loader's answer, the checker's, and depmod's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from autokmod.decide.compat import check_set
from autokmod.model import CompatResult
from autokmod.observe.ko import parse_module
from tests.vm import craft
from tests.vm.depmod import ask_depmod
from tests.vm.matrix import Built
from tests.vm.oracle import Complaint
from tests.vm.protocol import Answer
from tests.vm.qemu import Case, Insertion, Session, ask
from tests.vm.target import Target


@dataclass(frozen=True, slots=True)
class Pair:
    built: Built
    krel: str  # the kernel that was asked
    answer: Answer
    result: CompatResult
    depmod: frozenset[Complaint]
    exporters: Mapping[str, str] = field(repr=False)  # of the set: symbol → module


def _forged(data: bytes, target: Target | None) -> bytes:
    return craft.with_versions(data, module_layout=target.abi.exports["module_layout"].crc) if target else data


class SetOfModules:
    """All that was built for one kernel, as depmod would find it together in one directory."""

    def __init__(self, built: Iterable[Built], forged_for: Target | None = None) -> None:
        self.data = {b: _forged(b.path.read_bytes(), forged_for) for b in built}
        self.facts = {b: parse_module(str(b.path), data) for b, data in self.data.items()}
        self._exporter = {e.name: b for b, f in self.facts.items() for e in f.exports}

    @cached_property
    def exporters(self) -> Mapping[str, str]:
        return {symbol: self.facts[b].name for symbol, b in self._exporter.items()}

    @property
    def names(self) -> set[str]:
        return {f.name for f in self.facts.values()}

    def providers(self, built: Built, target: Target) -> tuple[Built, ...]:
        """Those of the set that it needs, all the way down, those first that come first."""
        found: dict[Built, None] = {}

        def visit(one: Built) -> None:
            for provider in self._needed(one, target):
                if provider not in found and provider != built:
                    visit(provider)
                    found[provider] = None

        visit(built)
        return tuple(found)

    def _needed(self, built: Built, target: Target) -> Iterator[Built]:
        for symbol in sorted(i.name for i in self.facts[built].imports):
            own = target.abi.exports.get(symbol)
            if symbol in self._exporter and (own is None or own.exporter != "vmlinux"):
                yield self._exporter[symbol]

    def insertion(self, built: Built, *, passive: bool = False) -> Insertion:
        data = self.data[built]
        return Insertion(self.facts[built].name, craft.without_init(data) if passive else data)

    def case(self, built: Built, target: Target, passive: Collection[str] = ()) -> Case:
        """The kernel's own modules first; a namesake in the set takes the place of one of those."""
        providers = self.providers(built, target)
        symbols = [i.name for b in (*providers, built) for i in self.facts[b].imports]
        own = [i for i in target.needs(symbols) if i.name not in self.names]
        needs = (*own, *(self.insertion(p, passive=self.facts[p].name in passive) for p in providers))
        return Case(f"{built.package}/{built.krel}/{built.path.stem}", self.insertion(built), needs)


def ask_all(
    built: Sequence[Built], targets: Sequence[Target], *, forged: bool = False
) -> tuple[list[Pair], list[Session]]:
    """`forged`: each module claims the layout of the kernel that is asked, whose loader then goes on to the symbols."""
    by_krel: dict[str, list[Built]] = defaultdict(list)
    for b in built:
        by_krel[b.krel].append(b)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda target: _ask_one(by_krel.values(), target, forged=forged), targets))
    return [p for pairs, _ in done for p in pairs], [session for _, sessions in done for session in sessions]


def _ask_one(
    groups: Iterable[Sequence[Built]], target: Target, *, forged: bool
) -> tuple[list[Pair], tuple[Session, ...]]:
    sets = [SetOfModules(group, target if forged else None) for group in groups]
    cases = {s.case(b, target).id: (s, b) for s in sets for b in s.facts}
    first = ask(target.machine(), [s.case(b, target) for s, b in cases.values()])
    hindered = {i: missing for i, answer in first.answers.items() if (missing := _without_hardware(answer))}
    again = [s.case(b, target, hindered[i]) for i, (s, b) in cases.items() if i in hindered]
    second = ask(target.machine(), again) if again else Session({}, 0, ())
    answers = {b: {**first.answers, **second.answers}[i] for i, (_, b) in cases.items()}
    return [p for s in sets for p in _pairs(s, target, answers)], (first, second)


def _without_hardware(answer: Answer) -> frozenset[str]:
    """What was needed and accepted, but did not want to start: its symbols went away with it. It is tried again in a
    form that starts nothing."""
    return frozenset(n.name for n in answer.needs if n.accepted and n.result != 0)


def _pairs(s: SetOfModules, target: Target, answers: Mapping[Built, Answer]) -> Iterator[Pair]:
    results = check_set(tuple(s.facts.values()), target.abi, {})
    depmod = ask_depmod(target, {b.path.name: data for b, data in s.data.items()})
    for b, result in zip(s.facts, results, strict=True):
        yield Pair(b, target.krel, answers[b], result, depmod[b.path.name], s.exporters)
