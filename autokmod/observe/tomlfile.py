"""autokmod.toml: what it may say, and reading it. docs/recipes.md and autokmod.schema.json say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autokmod.conditions import Condition, Texts
from autokmod.errors import FormatError, RecipeError
from autokmod.observe.sources import RECIPE, is_package_name
from autokmod.paths import Paths
from autokmod.recipeparts import DefinePart, FlagsPart, PatchPart, Strip, path_problems
from autokmod.tomllines import Key
from autokmod.tomltable import Text, TomlError, read_text

MODULE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
TOOL = re.compile(r"[\w.+-]+", re.ASCII)
ARCHIVE = re.compile(r".*\.(tar(\.(gz|bz2|xz|zst))?|tgz|tbz2|txz)")


@dataclass(frozen=True, slots=True)
class PackagePart:
    name: str
    version: str
    autoinstall: bool = True
    link: Literal["auto", "never"] = "auto"
    build_depends: Texts = ()
    tools: Texts = ()  # programs that have to be there
    when: Condition | None = None  # for which kernels the package is meant

    def problems(self) -> Iterator[tuple[str, str]]:
        for key, value in (("name", self.name), ("version", self.version)):
            if not is_package_name(value):
                yield key, f"{value!a} has to be of letters, digits and . _ + ~ : -"
        yield from (
            ("build_depends", f"{n!a} is no package's name") for n in self.build_depends if not is_package_name(n)
        )
        yield from (("tools", f"{t!a} is no program's name") for t in self.tools if not TOOL.fullmatch(t))


@dataclass(frozen=True, slots=True)
class BuildPart:
    """Bash command lines; those that are empty are not run, but that `make` is kbuild's plain one."""

    dir: str = ""
    configure: str = ""
    make: str = ""
    install: str = ""

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from (("dir", f"{self.dir!a} {why}") for why in path_problems(self.dir, empty=True))


@dataclass(frozen=True, slots=True)
class SourcePart:
    archive: str  # or a shell pattern: then in order of name
    into: str = ""
    strip: Strip = 1
    when: Condition | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from (("archive", f"{self.archive!a} {why}") for why in path_problems(self.archive))
        yield from (("into", f"{self.into!a} {why}") for why in path_problems(self.into, empty=True))


@dataclass(frozen=True, slots=True)
class ModulePart:
    name: str  # on the kernel, without .ko
    path: str = ""  # where the build leaves it; may be a shell pattern; empty: wherever it is
    strip: bool = True
    when: Condition | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.name.endswith((".ko", ".o")) or not MODULE_NAME.fullmatch(self.name):
            yield "name", f"{self.name!a} is not the name of a module, without '.ko'"
        yield from (("path", f"{self.path!a} {why}") for why in path_problems(self.path, empty=True))
        if self.path and not (self.path.endswith(".ko") and MODULE_NAME.fullmatch(Path(self.path).stem)):
            yield "path", f"{self.path!a} has to end in NAME.ko"


@dataclass(frozen=True, slots=True)
class RecipeFile:
    package: PackagePart
    module: tuple[ModulePart, ...]
    build: BuildPart = field(default_factory=BuildPart)
    source: tuple[SourcePart, ...] = ()
    patch: tuple[PatchPart, ...] = ()
    define: tuple[DefinePart, ...] = ()
    flags: tuple[FlagsPart, ...] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        if not self.module:
            yield "module", "is empty: the recipe names no module"


@dataclass(frozen=True, slots=True)
class TomlRecipe:
    """One file, and where in it things stand."""

    path: str
    text: Text
    file: RecipeFile

    def error(self, key: Key, why: str) -> RecipeError:
        return RecipeError(self.path, TomlError(key, "").name, why, self.text.line(key))


def read_recipe_file(paths: Paths, source: Path) -> TomlRecipe:
    """Raises RecipeError."""
    path = f"{source}/{RECIPE}"
    try:
        text = read_text(paths.resolve(path))
        recipe = TomlRecipe(path, text, text.read(RecipeFile))
    except TomlError as exc:
        raise RecipeError(path, exc.name, exc.why, exc.line) from exc
    except (OSError, FormatError) as exc:
        raise RecipeError(
            path, "", f"cannot be read: {exc.strerror if isinstance(exc, OSError) else exc.what}"
        ) from exc
    _check_twins(recipe)
    return recipe


def _check_twins(recipe: TomlRecipe) -> None:
    """Of modules with conditions, one of the same name may be meant for other kernels."""
    seen: dict[str, int] = {}
    for i, module in enumerate(recipe.file.module):
        name = module.name.replace("-", "_")
        if name in seen and (module.when is None or recipe.file.module[seen[name]].when is None):
            raise recipe.error(("module", i, "name"), f"names the same module as module[{seen[name]}]")
        seen.setdefault(name, i)
