"""The checker against the loaders of real kernels, and depmod beside them.

Compatible means that the module loads; incompatible, that it is refused, and for what the checker says. That holds for
every module of real packages on every kernel here, and for modules that were made to break one rule each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pytest

from autokmod.model import Verdict
from tests.corpus import Corpus
from tests.vm import purpose
from tests.vm.conftest import Report
from tests.vm.depmod import differences
from tests.vm.made import ENFORCE, Made
from tests.vm.matrix import Built, build_all, choose_kernels
from tests.vm.oracle import complaints, disagreement
from tests.vm.pairs import Pair, ask_all
from tests.vm.qemu import Session
from tests.vm.sources import built_sources
from tests.vm.target import Target, find_target
from tests.vm.trial import Trial, run_made

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.kbuild]


@dataclass(frozen=True)
class World:
    built: tuple[Built, ...]
    targets: Mapping[str, Target]
    sources: Mapping[str, Mapping[str, bytes]]  # of modules/, for the kernels that the made modules are put to

    @property
    def asked(self) -> list[Target]:
        return list(self.targets.values())


@pytest.fixture(scope="module")
def world(corpus: Corpus) -> World:
    kernels = choose_kernels(corpus)
    targets = {krel: find_target(corpus, krel) for krel in kernels.asked}
    ends = (kernels.asked[0], kernels.asked[-1])
    return World(build_all(corpus, kernels.built_for), targets, built_sources(corpus, ends))


# ---- real packages


@pytest.fixture(scope="module")
def pairs(world: World) -> list[Pair]:
    return _asked(ask_all(world.built, world.asked))


@pytest.fixture(scope="module")
def forged(world: World) -> list[Pair]:
    return _asked(ask_all(world.built, world.asked, forged=True))


def _asked(answer: tuple[list[Pair], list[Session]]) -> list[Pair]:
    pairs, _ = answer
    return pairs


def test_there_is_enough_to_ask(world: World, pairs: list[Pair]) -> None:
    assert len(pairs) >= 300
    assert len({b.package for b in world.built}) >= 8
    assert len({b.krel for b in world.built}) >= 3
    assert len(world.targets) >= 4
    assert len({krel.split("-", 1)[-1].lstrip("0123456789-") for krel in world.targets}) >= 2
    assert len({tuple(krel.split(".")[:2]) for krel in world.targets}) >= 2


def test_real_modules(pairs: list[Pair], report: Report) -> None:
    _check_pairs("real modules", pairs, report)
    accepted = [p for p in pairs if p.answer.outcome and p.answer.outcome.accepted]
    assert min(len(accepted), len(pairs) - len(accepted)) > 50


def test_real_modules_symbol_by_symbol(forged: list[Pair], report: Report) -> None:
    """`module_layout` is what nearly every other kernel's loader stumbles upon. With its CRC forged, the loader goes
    through all symbols, and so says of each what the checker says."""
    _check_pairs("real modules, module_layout forged", forged, report)
    assert sum(len(complaints(p.answer.outcome)) for p in forged if p.answer.outcome) > 1000


def _check_pairs(title: str, pairs: list[Pair], report: Report) -> None:
    report.lines += [f"{title}: {len(pairs)} pairs", *_table(pairs)]
    crashed = [f"{p.answer.case} on {p.krel}: {p.answer.last_words}" for p in pairs if p.answer.crashed]
    assert not crashed, "\n".join(crashed)
    wrong = [(p, d) for p in pairs if p.answer.outcome and (d := disagreement(p.answer.outcome, p.result, p.exporters))]
    assert not wrong, "\n".join(f"{p.answer.case} on {p.krel}: {d}" for p, d in wrong)
    unknown = [p for p in pairs if p.result.verdict is Verdict.UNKNOWN]
    assert len(unknown) < len(pairs) / 100, [(p.answer.case, p.krel, p.result.reasons) for p in unknown]


def _table(pairs: Iterable[Pair]) -> list[str]:
    rows = Counter((p.built.krel, p.krel, p.result.verdict.value, _said(p)) for p in pairs)
    return [f"  {a:>27} on {b:27} {v:12} {said:8} {n:4}" for (a, b, v, said), n in sorted(rows.items())]


def _said(pair: Pair) -> str:
    outcome = pair.answer.outcome
    return "crashed" if outcome is None else "loads" if outcome.accepted else "refused"


@pytest.mark.parametrize("which", ["pairs", "forged"])
def test_depmod_differs_for_known_reasons(which: str, request: pytest.FixtureRequest, report: Report) -> None:
    answers = [(p, p.answer.outcome) for p in request.getfixturevalue(which)]
    found = [(p, set(differences(complaints(o), p.depmod, p.result, p.exporters))) for p, o in answers if o]
    counts = Counter(why for _, whys in found for why in whys)
    agree = sum(not whys for _, whys in found)
    report.lines += [f"depmod -naeE ({which}): the same symbols as the loader in {agree} of {len(found)} pairs; else"]
    report.lines += [f"  {n:4} {why}" for why, n in counts.most_common()]
    unexplained = [(p.answer.case, p.krel, whys) for p, whys in found if any(w.startswith("?") for w in whys)]
    assert not unexplained


# ---- modules made for the purpose


@pytest.mark.parametrize("end", [0, -1], ids=["default-series", "newest-series"])
def test_made_modules(world: World, end: int, report: Report) -> None:
    target = world.asked[end]
    trials = run_made(target, purpose.cases(world.sources[target.krel], target.abi))
    report.lines.append(f"made modules on {target.krel}: {len(trials)}")
    report.lines += [f"  {t.made.id}: {t.result.verdict}, but loads: {t.made.why}" for t in trials if _is_stricter(t)]
    wrong = [(t.made.id, w) for t in trials for w in _what_is_wrong(t)]
    assert not wrong, "\n".join(f"{i}: {w}" for i, w in wrong)


def _is_stricter(trial: Trial) -> bool:
    outcome = trial.answer.outcome
    return outcome is not None and outcome.accepted and trial.result.verdict is not Verdict.COMPATIBLE


def _what_is_wrong(trial: Trial) -> Iterable[str]:
    made, result, outcome = trial.made, trial.result, trial.answer.outcome
    kinds = [r.kind for r in result.reasons]
    wanted = Verdict.COMPATIBLE if made.kind is None else Verdict.UNKNOWN if made.doubt else Verdict.INCOMPATIBLE
    if result.verdict is not wanted or (made.kind and made.kind not in kinds):
        yield f"the checker says {result.verdict} ({', '.join(kinds)}) instead of {wanted} ({made.kind})"
    if _is_stricter(trial):
        yield from () if made.why else ("the loader takes it",)
    elif outcome is not None:
        yield from filter(None, [disagreement(outcome, result)])
    elif result.verdict is Verdict.COMPATIBLE:
        yield f"it takes the kernel down: {trial.answer.last_words}"


@pytest.mark.parametrize("end", [0, -1], ids=["default-series", "newest-series"])
def test_a_module_changed_after_it_was_signed(world: World, end: int) -> None:
    """By the kernel's own key: with one that the kernel does not know, it would count as unsigned."""
    target = world.asked[end]
    signed = target.insertion(target.files["dummy"]).data
    changed = Made("changed", "dummy", signed.replace(b"intree=Y", b"intree=y"))
    whole, broken, trusted = run_made(
        target, [Made("whole", "dummy", signed), changed, Made("trusted", "dummy", signed, options=ENFORCE)]
    )
    assert (whole.result.verdict, _fate(whole)) == (Verdict.COMPATIBLE, "loads")
    assert (broken.result.verdict, _fate(broken)) == (Verdict.INCOMPATIBLE, "refused")
    assert [r.kind for r in broken.result.reasons] == ["signature-damaged"]
    assert (trusted.result.verdict, _fate(trusted)) == (Verdict.COMPATIBLE, "loads")


@pytest.mark.parametrize("end", [0, -1], ids=["default-series", "newest-series"])
def test_no_damage_is_called_compatible(world: World, end: int, report: Report) -> None:
    target = world.asked[end]
    trials = run_made(target, purpose.scars(world.sources[target.krel]))
    rows = Counter((t.result.verdict.value, _fate(t)) for t in trials)
    report.lines += [f"damaged modules on {target.krel}: {len(trials)}"]
    report.lines += [f"  {verdict:12} {fate:8} {n:4}" for (verdict, fate), n in sorted(rows.items())]
    bad = {("compatible", "refused"), ("compatible", "crashed"), ("incompatible", "loads")}
    assert not bad & set(rows), [t.made.id for t in trials if (t.result.verdict.value, _fate(t)) in bad]


def _fate(trial: Trial) -> str:
    outcome = trial.answer.outcome
    return "crashed" if outcome is None else "loads" if outcome.accepted else "refused"
