"""The digest of everything that decides what a build contains. The same key never compiles twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any

from autokmod.jsonvalue import to_json
from autokmod.model import KernelAbi, Package, Recipe
from autokmod.observe.toolchain import Toolchain

# To be raised when autokmod builds differently from the same input.
FORMAT = 1

# What conditions choose. Left out where empty: so recipes without them keep the keys that they always had.
CHOSEN = ("archives", "series", "flags", "variables", "undecided")
SAYS_WHY = ("applied", "passed_over")


@lru_cache(maxsize=4096)
def source_key(package: Package, recipe: Recipe) -> str:
    """What is built, whatever the kernel: two builds with this key are of the same source.

    Not the recipe's commands: evaluated, they name the kernel. But what a condition on the kernel chooses,
    patches and modules, makes another source of it.
    """
    modules = sorted(m.dest_name for m in recipe.modules)
    chosen: dict[str, Any] = {"modules": modules, "patches": recipe.patches}
    chosen |= {name: value for name in CHOSEN if (value := getattr(recipe, name))}
    return _digest({"format": FORMAT, "package": package.id, "source": package.digest, **chosen})


def build_key(
    package: Package, recipe: Recipe, abi: KernelAbi, toolchain: Toolchain, depends: Sequence[str] = ()
) -> str:
    """krel counts: it stands in every module's vermagic, and Makefiles see it as KERNELRELEASE.

    `depends` are the build keys of the packages in recipe.build_depends: their symbols' CRCs go into the build.
    """
    return _digest(
        {
            "format": FORMAT,
            "package": package.id,
            "source": package.digest,
            "recipe": _building_part(recipe),
            "krel": abi.krel,
            "symvers": abi.symvers_digest,
            "config": abi.config_digest,
            "tools": toolchain,
            "depends": tuple(depends),
        }
    )


def _building_part(recipe: Recipe) -> dict[str, Any]:
    """Whether it is to be installed by itself, linked, or warned of, changes no byte of a build."""
    left_out = {"autoinstall", "excluded", "warnings", "link_allowed", *SAYS_WHY}
    left_out |= {f.name for f in fields(Recipe) if f.default is not MISSING and getattr(recipe, f.name) == f.default}
    return {name: value for name, value in to_json(recipe).items() if name not in left_out}


def _digest(parts: dict[str, Any]) -> str:
    """Hex sha256 of canonical JSON."""
    text = json.dumps(to_json(parts), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
