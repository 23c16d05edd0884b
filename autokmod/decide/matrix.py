"""Does a package build for a kernel, whether or not it would be placed there: what `autokmodctl build` asks.

No other kernel's build counts, and no policy: a cell of the matrix is the build with the key of this very kernel. It
is what a reconcile of that kernel finds in the store later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from autokmod.decide.facts import Facts
from autokmod.model import Build, BuildError, Package, Reason


class Outcome(StrEnum):
    BUILT = "built"
    KNOWN = "known"  # it was in the store
    FAILED = "failed"  # now, or remembered
    EXCLUDED = "excluded"  # not for this kernel, by its recipe or the administrator
    BLOCKED = "blocked"  # it could not be tried
    CANCELLED = "cancelled"


GOOD = (Outcome.BUILT, Outcome.KNOWN, Outcome.EXCLUDED)
USABLE = (Outcome.BUILT, Outcome.KNOWN)


@dataclass(frozen=True, slots=True)
class Cell:
    """One package on one kernel."""

    package: str
    version: str
    krel: str
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    errors: tuple[BuildError, ...] = ()
    key: str | None = None
    duration_s: float = 0.0  # of the build, whenever it was
    log: str | None = None  # host path


def decide_cells(
    facts: Facts, wanted: Sequence[Package], tried: Mapping[str, Reason | None]
) -> tuple[dict[str, Cell], tuple[Package, ...]]:
    """Package id → what can be said already, of those that are wanted and those that they need; and what is to be
    compiled next. `tried`: the build keys of this run → why it could not even be tried.
    """
    cells: dict[str, Cell] = {}
    todo: list[Package] = []
    waiting = list(with_needed(facts, wanted))
    while waiting:
        names = {p.name for p in waiting}
        free = [p for p in waiting if names.isdisjoint(_needs(facts, p))]
        for package in free or waiting:
            cell = _decide(facts, package, tried, cells, todo) if free else _circle(facts, package)
            if cell is not None:
                cells[package.id] = cell
        waiting = [p for p in waiting if p not in free] if free else []
    # Who needs something that is compiled first is told nothing yet, and not compiled yet.
    return cells, tuple(todo)


def with_needed(facts: Facts, wanted: Sequence[Package]) -> tuple[Package, ...]:
    """And the packages that those are built upon."""
    found = {p.id: p for p in wanted}
    queue = list(wanted)
    while queue:
        needed = _needs(facts, queue.pop())
        more = [p for p in facts.packages if p.name in needed and p.id in facts.recipes and p.id not in found]
        found.update({p.id: p for p in more})
        queue += more
    return tuple(found.values())


def build_upon(facts: Facts, package: Package) -> tuple[Build, ...]:
    """The builds of what it needs, for this very kernel."""
    keys = {facts.keys.get(p.id) for p in facts.packages if p.name in _needs(facts, package)}
    return tuple(b for b in facts.builds if b.key in keys and b.ok)


def _needs(facts: Facts, package: Package) -> set[str]:
    recipe = facts.recipes.get(package.id)
    return set(recipe.build_depends) - {package.name} if recipe else set()


def _decide(
    facts: Facts,
    package: Package,
    tried: Mapping[str, Reason | None],
    cells: Mapping[str, Cell],
    todo: list[Package],
) -> Cell | None:
    """None: it is to be compiled, now or after what it needs."""
    cell = _excluded(facts, package) or _unreadable(facts, package) or _stored(facts, package, tried)
    if cell is not None:
        return cell
    needed = _needs(facts, package)
    upon = [p for p in facts.packages if p.name in needed and p.id in facts.recipes]
    bad = next((c for p in upon if (c := cells.get(p.id)) and c.outcome not in USABLE), None)
    missing = needed - {p.name for p in upon}
    if missing or bad is not None:
        return _cell(facts, package, Outcome.BLOCKED, _lacks(next(iter(sorted(missing)), ""), bad))
    if all(p.id in cells for p in upon):
        todo.append(package)
    return None


def _excluded(facts: Facts, package: Package) -> Cell | None:
    mine, recipe = facts.config.package(package.name), facts.recipes.get(package.id)
    pattern = next((p for p in mine.exclude_kernels if fnmatchcase(facts.kernel.krel, p)), None)
    if not mine.enabled:
        return _cell(facts, package, Outcome.EXCLUDED, Reason("disabled", "disabled by the administrator"))
    if pattern is not None:
        why = Reason("excluded", f"the administrator excluded kernels like {pattern}")
        return _cell(facts, package, Outcome.EXCLUDED, why)
    if recipe is not None and recipe.excluded is not None:
        return _cell(facts, package, Outcome.EXCLUDED, recipe.excluded)
    return None


def _unreadable(facts: Facts, package: Package) -> Cell | None:
    problem = package.problem or facts.recipe_problems.get(package.id)
    if problem is not None:
        return _cell(facts, package, Outcome.BLOCKED, problem)
    if facts.kernel.kdir is None:
        missing = Reason("headers-missing", "the kernel's headers are not installed")
        return _cell(facts, package, Outcome.BLOCKED, *(facts.kernel.problems or (missing,)))
    if package.id not in facts.recipes:
        why = Reason("other-version", f"another version of {package.name} is the one that is used")
        return _cell(facts, package, Outcome.BLOCKED, why)
    if package.id not in facts.keys:
        unreadable = Reason("headers-unreadable", "the kernel's headers cannot be read")
        problems = (facts.build_problem,) if facts.build_problem else facts.abi.problems
        return _cell(facts, package, Outcome.BLOCKED, *(problems or (unreadable,)))
    return None


def _stored(facts: Facts, package: Package, tried: Mapping[str, Reason | None]) -> Cell | None:
    key = facts.keys[package.id]
    build = next((b for b in facts.builds if b.key == key), None)
    obstacle = tried.get(key)
    if obstacle is not None:
        outcome = Outcome.CANCELLED if obstacle.kind == "cancelled" else Outcome.BLOCKED
        return _cell(facts, package, outcome, obstacle)
    if build is not None and build.ok:
        return _cell(facts, package, Outcome.BUILT if key in tried else Outcome.KNOWN, build=build)
    if build is not None and (key in tried or _is_remembered(facts, build)):
        return _cell(facts, package, Outcome.FAILED, build=build)
    if key in tried:
        return _cell(facts, package, Outcome.CANCELLED, Reason("cancelled", "the build was cancelled"))
    if facts.build_problem is not None:
        return _cell(facts, package, Outcome.BLOCKED, facts.build_problem)
    return None


def _is_remembered(facts: Facts, failed: Build) -> bool:
    """As in plan: until something changes, or a person asks."""
    is_outdated = failed.built_at - failed.duration_s < facts.kernel.changed_at
    return not (failed.transient or facts.force or is_outdated)


def _lacks(missing: str, bad: Cell | None) -> Reason:
    if missing:
        text = f"it needs the package {missing}, which is not on this machine"
        return Reason("dependency-missing", text, hint=f"install {missing}")
    name = bad.package if bad else ""
    return Reason("dependency-failed", f"it needs the package {name}, which is {bad.outcome if bad else ''}")


def _circle(facts: Facts, package: Package) -> Cell:
    why = Reason("dependency-circle", f"it needs {', '.join(sorted(_needs(facts, package)))}, which needs it")
    return _cell(facts, package, Outcome.BLOCKED, why)


def _cell(facts: Facts, package: Package, outcome: Outcome, *reasons: Reason, build: Build | None = None) -> Cell:
    return Cell(
        package.name,
        package.version,
        facts.kernel.krel,
        outcome,
        reasons,
        build.errors if build else (),
        facts.keys.get(package.id),
        build.duration_s if build else 0.0,
        f"{build.directory}/build.log" if build else None,
    )
