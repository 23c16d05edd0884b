"""From an autokmod.toml to the Recipe of one kernel: conditions judged, file patterns resolved. Nothing is run."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path

from autokmod.errors import FactMissing
from autokmod.model import Kernel, Package, Reason, Recipe, RecipeArchive, RecipeModule, RecipePatch
from autokmod.observe.choice import Choice, asks_compiler
from autokmod.observe.kernelfacts import Facts
from autokmod.observe.sources import CONF, RECIPE
from autokmod.observe.tomlfile import ARCHIVE, ModulePart, TomlRecipe, read_recipe_file
from autokmod.paths import Paths
from autokmod.tomllines import Key
from autokmod.tomltable import TomlError

ANYWHERE = "**"


def read_toml_recipe(paths: Paths, package: Package, kernel: Kernel, facts: Facts) -> tuple[Recipe, bool]:
    """And whether it asks for the compiler. Raises RecipeError, FactMissing."""
    top = paths.resolve(package.source)
    recipe = read_recipe_file(paths, Path(package.source))
    return make_recipe(recipe, package, kernel, facts, top), _asks_compiler(recipe)


def make_recipe(recipe: TomlRecipe, package: Package, kernel: Kernel, facts: Facts, top: Path) -> Recipe:
    def blame(key: Key, why: str) -> FactMissing:
        line, name = recipe.text.line(key), TomlError(key, "").name
        return FactMissing(recipe.path, name, f"nobody can tell whether it holds for {kernel.krel}: {why}", line)

    file, choice = recipe.file, Choice(facts, blame)
    excluded = _exclusion(recipe, kernel, facts, choice)
    modules = _modules(recipe, choice)
    archives = tuple(_archives(recipe, choice, top))
    series = tuple(_series(recipe, choice, top))
    flags, variables = choice.flags(file.define, file.flags)
    if not modules and excluded is None:
        excluded = Reason("excluded-modules", f"the recipe has no module for kernel {kernel.krel}")
    return Recipe(
        name=package.name,
        version=package.version,
        modules=modules,
        make=file.build.make.strip(),
        patches=(),
        autoinstall=file.package.autoinstall,
        build_depends=tuple(dict.fromkeys(file.package.build_depends)),
        pre_build="",
        post_build="",
        excluded=excluded,
        warnings=tuple(_warnings(recipe, package, top)),
        link_allowed=file.package.link == "auto",
        kind="toml",
        archives=archives,
        series=series,
        flags=flags,
        variables=variables,
        directory=_clean(file.build.dir),
        configure=file.build.configure.strip(),
        install=file.build.install.strip(),
        tools=file.package.tools,
        applied=tuple(choice.applied),
        passed_over=tuple(choice.passed_over),
        undecided=tuple(choice.undecided),
    )


def _asks_compiler(recipe: TomlRecipe) -> bool:
    file = recipe.file
    return asks_compiler([file.package, *file.module, *file.source, *file.patch, *file.define, *file.flags])


def _exclusion(recipe: TomlRecipe, kernel: Kernel, facts: Facts, choice: Choice) -> Reason | None:
    when = recipe.file.package.when
    if when is None:
        return None
    found = facts.judge(when)
    if found.holds is None and facts.has_headers:
        raise choice.blame(("package", "when"), found.why)
    if found.holds is not False:
        return None
    return Reason("excluded-kernel", f"the recipe is not meant for kernel {kernel.krel}: {found.why}")


def _modules(recipe: TomlRecipe, choice: Choice) -> tuple[RecipeModule, ...]:
    """Without conditions, nothing is worth telling of them."""
    parts = enumerate(recipe.file.module)
    kept = [p for i, p in parts if p.when is None or choice.takes(f"module {p.name}", p, ("module", i))]
    return tuple(_module(part) for part in kept)


def _module(part: ModulePart) -> RecipeModule:
    built = Path(part.path).stem if part.path else part.name
    location = _clean(posixpath.dirname(part.path)) if part.path else ANYWHERE
    return RecipeModule(built, location, part.name, part.strip)


def _clean(path: str) -> str:
    clean = posixpath.normpath(path) if path else ""
    return "" if clean == "." else clean


def _archives(recipe: TomlRecipe, choice: Choice, top: Path) -> Iterator[RecipeArchive]:
    for i, part in enumerate(recipe.file.source):
        for file in find_files(recipe, top, part.archive, ("source", i, "archive")):
            if not ARCHIVE.fullmatch(file):
                raise recipe.error(("source", i, "archive"), f"{file} is no tar archive by its name")
            if choice.takes(f"archive {file}", part, ("source", i)):
                yield RecipeArchive(file, _clean(part.into), part.strip)


def _series(recipe: TomlRecipe, choice: Choice, top: Path) -> Iterator[RecipePatch]:
    for i, part in enumerate(recipe.file.patch):
        yield from choice.patch(part, find_files(recipe, top, part.file, ("patch", i, "file")), ("patch", i))


def find_files(recipe: TomlRecipe, top: Path, pattern: str, key: Key) -> list[str]:
    """In the source, in order of name; at least one. Raises RecipeError."""
    found = sorted(f for f in glob.glob(pattern, root_dir=top) if os.path.isfile(top / f))
    if not found:
        raise recipe.error(key, f"there is no {pattern} in the source")
    return found


def _warnings(recipe: TomlRecipe, package: Package, top: Path) -> Iterator[Reason]:
    if (top / CONF).exists():
        text = f"there are both {RECIPE} and {CONF}: {RECIPE} counts"
        yield Reason("two-recipes", text, hint=f"remove the one that is not meant from {package.source}")
    said = f"{recipe.file.package.name}-{recipe.file.package.version}"
    if said != f"{package.name}-{package.version}":
        named = f"{package.name}-{package.version}"
        text = f"the directory is named {named}, but its {RECIPE} says {said}: the directory's name counts"
        yield Reason("package-name-differs", text, hint="rename the directory")
