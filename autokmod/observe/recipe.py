"""The recipe of one package for one kernel, whatever it is written in, with the administrator's additions on top."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from autokmod import __version__
from autokmod.config import Config
from autokmod.model import Kernel, KernelAbi, Package, Recipe
from autokmod.observe.additions import add_additions, additions_ask_compiler
from autokmod.observe.dkmsconf import kernel_arch, read_dkms_recipe
from autokmod.observe.kernelfacts import Distribution, condition_facts, read_distribution
from autokmod.observe.sources import list_sources
from autokmod.observe.tomlrecipe import read_toml_recipe
from autokmod.paths import Paths

KnownRecipes = dict[tuple[str, str], tuple[str, Recipe]]  # package id, krel → known_by, recipe


@dataclass(slots=True)
class Recipes:
    """What one process that looks again and again need not read again."""

    neighbours: Sequence[str]  # the directories of /usr/src that are packages, as of this look
    distribution: Distribution  # as of this look
    known: KnownRecipes = field(default_factory=dict)


def look_up_recipes(paths: Paths, known: KnownRecipes | None = None) -> Recipes:
    return Recipes(list_sources(paths), read_distribution(paths), known if known is not None else {})


def read_recipe(
    paths: Paths,
    config: Config,
    package: Package,
    kernel: Kernel,
    abi: KernelAbi | None,
    recipes: Recipes | None = None,
) -> Recipe:
    """Raises RecipeError, FactMissing where a condition asks for what cannot be read, and SandboxUnavailable where
    nothing can be evaluated."""
    recipes = recipes or look_up_recipes(paths)
    recipe = recall_recipe(config, package, kernel, abi, recipes)
    return recipe or _read(paths, config, package, kernel, abi, recipes)


def recall_recipe(
    config: Config, package: Package, kernel: Kernel, abi: KernelAbi | None, recipes: Recipes
) -> Recipe | None:
    """What needs neither file nor sandbox."""
    known = recipes.known.get((package.id, kernel.krel))
    if known is None or known[0] != _known_by(config, package, kernel, abi, recipes):
        return None
    return known[1]


def _read(
    paths: Paths, config: Config, package: Package, kernel: Kernel, abi: KernelAbi | None, recipes: Recipes
) -> Recipe:
    facts = condition_facts(paths, config, kernel, abi, recipes.distribution)
    if package.kind == "toml":
        recipe, asks_compiler = read_toml_recipe(paths, package, kernel, facts)
    else:
        recipe, asks_compiler = read_dkms_recipe(paths, config, package, kernel, abi, recipes.neighbours), False
    recipe = add_additions(paths, config, kernel, recipe, facts)
    # Which compiler is there changes without anything that known_by holds.
    if not asks_compiler and not additions_ask_compiler(config, package.name):
        recipes.known[package.id, kernel.krel] = _known_by(config, package, kernel, abi, recipes), recipe
    return recipe


def _known_by(config: Config, package: Package, kernel: Kernel, abi: KernelAbi | None, recipes: Recipes) -> str:
    kernel_side = (kernel.krel, kernel.kdir, kernel_arch(abi), abi and abi.config_digest, abi and abi.symvers_digest)
    problems = [p.kind for p in abi.problems] if abi else []
    settings = (config.build.eval_limit_s, config.build.jobs, config.build.allow_unsandboxed)
    distribution = (recipes.distribution.ids, recipes.distribution.release)
    parts: Sequence[object] = (
        *(__version__, package.id, package.source, package.kind, package.digest),
        *(kernel_side, problems, settings, distribution, recipes.neighbours),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
