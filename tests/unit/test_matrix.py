"""The matrix of `autokmodctl build`, by tables: what can be said, and what is to be compiled next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from autokmod.config import Config, PackageConfig
from autokmod.decide.facts import Facts
from autokmod.decide.matrix import Outcome, build_upon, decide_cells, with_needed
from autokmod.model import Package, Reason
from tests.unit.test_plan import FACTS, K2, PACKAGE, RECIPE, build, kernel

WHY = Reason("why", "because")
STORED = replace(FACTS, builds=(build("key2", K2),))
FAILED = replace(FACTS, builds=(build("key2", K2, ok=False),))
UPPER = Package("upper", "1.0", "/usr/src/upper-1.0", "dkms", "digest")
LINKED = replace(
    FACTS,
    packages=(PACKAGE, UPPER),
    recipes={PACKAGE.id: RECIPE, UPPER.id: replace(RECIPE, name="upper", build_depends=("drv",))},
    keys={PACKAGE.id: "key2", UPPER.id: "upper2"},
)


def with_config(facts: Facts, **package: object) -> Facts:
    return replace(facts, config=Config(packages=(("drv", PackageConfig(**package)),)))  # type: ignore[arg-type]


# Each: the facts, what was tried in this run, and the outcome; None: it is to be compiled.
CASES: dict[str, tuple[Facts, Mapping[str, Reason | None], Outcome | None]] = {
    "never built": (FACTS, {}, None),
    "only another kernel's build": (replace(FACTS, builds=(build("key1", "6.1.0-1-test"),)), {}, None),
    "in the store": (STORED, {}, Outcome.KNOWN),
    "in the store, and a person asks for what failed": (replace(STORED, force=True), {}, Outcome.KNOWN),
    "just built": (STORED, {"key2": None}, Outcome.BUILT),
    "failed before": (FAILED, {}, Outcome.FAILED),
    "failed now": (FAILED, {"key2": None}, Outcome.FAILED),
    "failed before, and a person asks": (replace(FAILED, force=True), {}, None),
    "failed again although a person asked": (replace(FAILED, force=True), {"key2": None}, Outcome.FAILED),
    "interrupted before": (replace(FACTS, builds=(build("key2", K2, ok=False, transient=True),)), {}, None),
    "failed before the headers changed": (replace(FAILED, kernel=replace(kernel(), changed_at=2.0)), {}, None),
    "could not be tried": (FACTS, {"key2": WHY}, Outcome.BLOCKED),
    "cancelled": (FACTS, {"key2": Reason("cancelled", "")}, Outcome.CANCELLED),
    "cancelled while it was compiled": (FACTS, {"key2": None}, Outcome.CANCELLED),
    "no compiler": (replace(FACTS, build_problem=WHY), {}, Outcome.BLOCKED),
    "no compiler, but it is in the store": (replace(STORED, build_problem=WHY), {}, Outcome.KNOWN),
    "no headers": (replace(FACTS, kernel=replace(kernel(), kdir=None), keys={}), {}, Outcome.BLOCKED),
    "headers that cannot be read": (replace(FACTS, keys={}), {}, Outcome.BLOCKED),
    "a broken recipe": (replace(FACTS, recipes={}, recipe_problems={PACKAGE.id: WHY}), {}, Outcome.BLOCKED),
    "a broken source": (replace(FACTS, packages=(replace(PACKAGE, problem=WHY),)), {}, Outcome.BLOCKED),
    "a version that is not looked at": (replace(FACTS, recipes={}), {}, Outcome.BLOCKED),
    "excluded by its recipe": (
        replace(STORED, recipes={PACKAGE.id: replace(RECIPE, excluded=WHY)}),
        {},
        Outcome.EXCLUDED,
    ),
    "excluded by the administrator": (with_config(FACTS, exclude_kernels=("*-test",)), {}, Outcome.EXCLUDED),
    "disabled by the administrator": (with_config(FACTS, enabled=False), {}, Outcome.EXCLUDED),
    "not to be installed by itself, but a person asks": (
        replace(FACTS, recipes={PACKAGE.id: replace(RECIPE, autoinstall=False)}),
        {},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_package(name: str) -> None:
    facts, tried, expected = CASES[name]
    cells, todo = decide_cells(facts, facts.packages, tried)
    assert [c.outcome for c in cells.values()] == ([expected] if expected else [])
    assert [p.id for p in todo] == ([] if expected else [PACKAGE.id])
    for cell in cells.values():
        assert (cell.package, cell.version, cell.krel) == ("drv", "1.0", K2)
        assert cell.reasons or cell.outcome in (Outcome.BUILT, Outcome.KNOWN, Outcome.FAILED)
        assert bool(cell.errors) == (cell.outcome is Outcome.FAILED)


def test_what_it_needs_comes_first_and_is_shown() -> None:
    assert [p.id for p in with_needed(LINKED, [UPPER])] == [UPPER.id, PACKAGE.id]
    cells, todo = decide_cells(LINKED, [UPPER], {})
    assert (cells, [p.id for p in todo]) == ({}, [PACKAGE.id])
    built = replace(LINKED, builds=(build("key2", K2),))
    cells, todo = decide_cells(built, [UPPER], {"key2": None})
    assert ({i: c.outcome for i, c in cells.items()}, [p.id for p in todo]) == (
        {PACKAGE.id: Outcome.BUILT},
        [UPPER.id],
    )
    assert [b.key for b in build_upon(built, UPPER)] == ["key2"]


def test_what_it_needs_failed() -> None:
    failed = replace(LINKED, builds=(build("key2", K2, ok=False),))
    cells, todo = decide_cells(failed, [UPPER], {"key2": None})
    assert todo == ()
    assert (cells[UPPER.id].outcome, cells[UPPER.id].reasons[0].kind) == (Outcome.BLOCKED, "dependency-failed")
    assert build_upon(failed, UPPER) == ()


def test_what_it_needs_is_not_here() -> None:
    alone = replace(LINKED, packages=(UPPER,))
    cells, _ = decide_cells(alone, [UPPER], {})
    assert cells[UPPER.id].reasons[0].kind == "dependency-missing"


def test_a_circle_is_said_to_be_one() -> None:
    recipes = {**LINKED.recipes, PACKAGE.id: replace(RECIPE, build_depends=("upper",))}
    cells, todo = decide_cells(replace(LINKED, recipes=recipes), [UPPER], {})
    assert todo == ()
    assert {c.reasons[0].kind for c in cells.values()} == {"dependency-circle"}
