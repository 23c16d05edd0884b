"""The administrator's patches and flags, on top of a recipe of either kind.

All of /etc/autokmod/packages.d/NAME/patches/*.patch apply, in order of name, -p1; an entry [[patch]] in
packages.d/NAME.toml that names some of them says more precisely where and when.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from autokmod.config import Config, PackageConfig
from autokmod.errors import FactMissing, RecipeError
from autokmod.model import Kernel, Recipe, RecipePatch
from autokmod.observe.choice import Choice, asks_compiler, first_naming
from autokmod.observe.kernelfacts import Facts
from autokmod.observe.sources import list_patches
from autokmod.paths import Paths
from autokmod.recipeparts import PatchPart
from autokmod.tomllines import Key
from autokmod.tomltable import TomlError


def add_additions(paths: Paths, config: Config, kernel: Kernel, recipe: Recipe, facts: Facts) -> Recipe:
    """Raises RecipeError, FactMissing."""
    mine = config.package(recipe.name)
    names = list_patches(paths, recipe.name)
    if not (names or mine.patch or mine.define or mine.flags):
        return recipe
    place = f"{paths.inside(paths.packages_d)}/{recipe.name}.toml"

    def blame(key: Key, why: str) -> FactMissing:
        return FactMissing(place, TomlError(key, "").name, f"nobody can tell whether it holds for {kernel.krel}: {why}")

    choice = Choice(facts, blame)
    series = _series(mine, names, choice, place)
    flags, variables = choice.flags(mine.define, mine.flags)
    return replace(
        recipe,
        series=(*recipe.series, *series),
        flags=(*recipe.flags, *flags),
        variables=(*recipe.variables, *variables),
        applied=(*recipe.applied, *map(_mark, choice.applied)),
        passed_over=(*recipe.passed_over, *map(_mark, choice.passed_over)),
        undecided=(*recipe.undecided, *choice.undecided),
    )


def _mark(sentence: str) -> str:
    return f"the administrator's {sentence}"


def _series(mine: PackageConfig, names: tuple[str, ...], choice: Choice, place: str) -> list[RecipePatch]:
    for i, part in enumerate(mine.patch):
        if not any(fnmatchcase(name, part.file) for name in names):
            where = f"{place.removesuffix('.toml')}/patches"
            raise RecipeError(place, f"patch[{i}].file", f"there is no {part.file} in {where}")
    found: list[RecipePatch] = []
    for name in names:
        index = first_naming(mine.patch, name)
        part = mine.patch[index] if index is not None else PatchPart(name)
        found += choice.patch(part, [name], ("patch", index or 0))
    return [replace(patch, own=True) for patch in found]


def additions_ask_compiler(config: Config, name: str) -> bool:
    mine = config.package(name)
    return asks_compiler([*mine.patch, *mine.define, *mine.flags])
