"""What changes a key, and what does not: a key that changes without need compiles again, one that stays lies."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from autokmod.decide.buildkey import build_key, source_key
from autokmod.model import ElfIdent, KernelAbi, Package, Reason, Recipe, RecipeArchive, RecipeModule, RecipePatch
from autokmod.observe.toolchain import Toolchain

PACKAGE = Package("foo", "1.0", "/usr/src/foo-1.0", "dkms", "digest")
RECIPE = Recipe("foo", "1.0", (RecipeModule("foo", "", "foo", strip=True),), "make", (), True, (), "", "", None)
ABI = KernelAbi("6.1.0-56", ElfIdent(64, "little", 62), "6.1.0-56 SMP", 1, True, {}, None, "sym", "conf", {}, ())
TOOLS = Toolchain("gcc-12", "ld", "strip", (), ("gcc-12 12.2.0", "GNU ld 2.40"))
KEY = build_key(PACKAGE, RECIPE, ABI, TOOLS)
WHY = Reason("x", "y")


def test_the_key_is_stable() -> None:
    """Whoever changes this number makes every machine build everything again: then raise buildkey.FORMAT too."""
    assert KEY == "fd89493f27d6be5cc3579e39a227d5b374f28bd9d79ea8eecaf4c91f1547fe2f"


CHANGING_RECIPE = {
    "modules": (RecipeModule("foo", "", "bar", strip=True),),
    "make": "make all",
    "patches": ("a.patch",),
    "build_depends": ("dep",),
    "pre_build": "configure",
    "post_build": "x",
    "name": "bar",
    "version": "2",
    "kind": "toml",
    "archives": (RecipeArchive("a.tar", "", 1),),
    "series": (RecipePatch("b.patch"),),
    "flags": ("-DX",),
    "variables": ("X=y",),
    "directory": "src",
    "configure": "./configure",
    "install": "make install",
    "tools": ("flex",),
    "undecided": ("patch",),
}
INDIFFERENT_RECIPE = {"autoinstall": False, "excluded": WHY, "warnings": (WHY,), "link_allowed": False}
INDIFFERENT_RECIPE |= {"applied": ("why",), "passed_over": ("why not",)}


def test_every_field_of_a_recipe_was_thought_of() -> None:
    assert {f.name for f in fields(Recipe)} == CHANGING_RECIPE.keys() | INDIFFERENT_RECIPE.keys()


@pytest.mark.parametrize("field", CHANGING_RECIPE)
def test_what_builds_changes_the_key(field: str) -> None:
    recipe = replace(RECIPE, **{field: CHANGING_RECIPE[field]})  # type: ignore[arg-type]
    assert build_key(PACKAGE, recipe, ABI, TOOLS) != KEY


@pytest.mark.parametrize("field", INDIFFERENT_RECIPE)
def test_what_does_not_build_leaves_the_key(field: str) -> None:
    recipe = replace(RECIPE, **{field: INDIFFERENT_RECIPE[field]})  # type: ignore[arg-type]
    assert build_key(PACKAGE, recipe, ABI, TOOLS) == KEY


def test_kernel_source_tools_and_dependencies_change_the_key() -> None:
    keys = {
        KEY,
        build_key(replace(PACKAGE, digest="other"), RECIPE, ABI, TOOLS),
        build_key(replace(PACKAGE, version="1.1"), RECIPE, ABI, TOOLS),
        build_key(PACKAGE, RECIPE, replace(ABI, krel="6.1.0-57"), TOOLS),
        build_key(PACKAGE, RECIPE, replace(ABI, symvers_digest="other"), TOOLS),
        build_key(PACKAGE, RECIPE, replace(ABI, config_digest="other"), TOOLS),
        build_key(PACKAGE, RECIPE, ABI, replace(TOOLS, identity=("gcc-12 12.3.0", "GNU ld 2.40"))),
        build_key(PACKAGE, RECIPE, ABI, replace(TOOLS, overrides=("LLVM=1",))),
        build_key(PACKAGE, RECIPE, ABI, TOOLS, ["a" * 64]),
        build_key(PACKAGE, RECIPE, ABI, TOOLS, ["b" * 64]),
    }
    assert len(keys) == 10


def test_where_the_source_lies_is_indifferent() -> None:
    assert build_key(replace(PACKAGE, source="/elsewhere"), RECIPE, ABI, TOOLS) == KEY


def test_the_source_key_knows_no_kernel_but_what_the_kernel_chose() -> None:
    key = source_key(PACKAGE, RECIPE)
    assert source_key(PACKAGE, replace(RECIPE, make="make KVER=6.1.0-57")) == key
    assert source_key(PACKAGE, replace(RECIPE, patches=("a.patch",))) != key
    assert source_key(PACKAGE, replace(RECIPE, modules=(RecipeModule("x", "", "x", strip=True),))) != key
    assert source_key(PACKAGE, replace(RECIPE, series=(RecipePatch("a.patch"),))) != key
    assert source_key(PACKAGE, replace(RECIPE, flags=("-DX",))) != key
    assert source_key(PACKAGE, replace(RECIPE, undecided=("patch",))) != key
    assert source_key(PACKAGE, replace(RECIPE, applied=("for 6.1.0-56",))) == key
    assert source_key(replace(PACKAGE, digest="other"), RECIPE) != key
    assert key != KEY
