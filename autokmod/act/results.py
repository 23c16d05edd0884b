"""The modules that a build made: taken out, and checked to be what the recipe promised."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autokmod.act.take import take_file
from autokmod.errors import FormatError
from autokmod.model import BuiltModule, KernelAbi, ModuleFacts, Recipe, RecipeModule
from autokmod.observe.ko import parse_module


@dataclass(frozen=True, slots=True)
class Result:
    module: BuiltModule
    data: bytes


def take_results(recipe: Recipe, abi: KernelAbi, work: Path, place: Sequence[str], *, limit: int) -> tuple[Result, ...]:
    """From WORK/PLACE/module/DEST_NAME.ko. Raises FormatError for the first that is not a module as promised."""
    return tuple(_take(module, abi, work, (*place, "module"), limit) for module in recipe.modules)


def _take(module: RecipeModule, abi: KernelAbi, work: Path, place: Sequence[str], limit: int) -> Result:
    file = f"{module.dest_name}.ko"
    try:
        data = take_file(work, (*place, file), limit=limit)
        facts = parse_module(file, data)
    except FileNotFoundError as exc:
        raise FormatError(file, "was not made") from exc
    except FormatError as exc:
        raise FormatError(file, exc.what, exc.offset) from exc
    problem = check_promise(module, abi, facts)
    if problem is not None:
        raise FormatError(file, problem)
    digest = hashlib.sha256(data).hexdigest()
    built = BuiltModule(facts.name, module.dest_name, file, digest, len(data), facts.srcversion, facts.vermagic)
    return Result(built, data)


def check_promise(module: RecipeModule, abi: KernelAbi, facts: ModuleFacts) -> str | None:
    """What is wrong with it, if anything. A module may be installed under another name than its own."""
    promised = {name.replace("-", "_") for name in (module.built_name, module.dest_name)}
    if facts.name not in promised:
        return f"is the module {facts.name}, but the recipe promises {module.built_name}"
    if facts.release != abi.krel:
        return f"was built for kernel {facts.release or '(none)'}, not for {abi.krel}"
    if abi.ident is not None and facts.ident != abi.ident:
        return "was built for another kind of machine"
    if facts.problems:
        return facts.problems[0].text
    return None
