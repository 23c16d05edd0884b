"""Where debugging information may be left out of a compilation, and where something is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from autokmod.act.debuginfo import OFF, without_debug_info
from autokmod.model import Kernel, KernelAbi, KernelState, Recipe, RecipeModule
from autokmod.observe.toolchain import Toolchain

TOOLCHAIN = Toolchain("gcc-13", "ld", "strip", ("CC=gcc-13",), ())
DEBUG = {"CONFIG_DEBUG_INFO": "y"}
BTF = {**DEBUG, "CONFIG_DEBUG_INFO_BTF_MODULES": "y"}


def recipe(*strip: bool) -> Recipe:
    modules = tuple(RecipeModule(f"m{i}", "", f"m{i}", strip=s) for i, s in enumerate(strip))
    return Recipe("p", "1", modules, "", (), True, (), "", "", None)


@pytest.mark.parametrize(
    ("config", "vmlinux", "strip", "is_lean"),
    [
        (DEBUG, False, (True, True), True),
        ({}, False, (True,), True),
        (DEBUG, True, (True,), True),
        (BTF, False, (True,), True),  # kbuild skips BTF without vmlinux
        (BTF, True, (True,), False),
        ({**DEBUG, "CONFIG_GENDWARFKSYMS": "y"}, False, (True,), False),
        (DEBUG, False, (True, False), False),
    ],
)
def test_only_where_nothing_is_made_of_it(
    config: Mapping[str, str], vmlinux: bool, strip: tuple[bool, ...], is_lean: bool, tmp_path: Path
) -> None:
    kernel = Kernel("6.1.0", KernelState.COMPLETE, "/lib/modules/6.1.0", str(tmp_path), None, (), 0.0)
    abi = KernelAbi("6.1.0", None, None, None, True, {}, None, None, None, config, ())
    if vmlinux:
        (tmp_path / "vmlinux").touch()
    found = without_debug_info(TOOLCHAIN, recipe(*strip), kernel, abi)
    assert found.overrides == ("CC=gcc-13", *((OFF,) if is_lean else ()))
    assert found.identity == TOOLCHAIN.identity
