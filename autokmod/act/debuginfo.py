"""Debugging information that `strip -g` would take away again is not made in the first place: a tenth of the CPU.

gcc and clang promise the same code with and without -g. The variable is kbuild's own name for all of it in every
kernel, and what a Makefile of a package asks of it is the same question; the C side, autoconf.h, is left alone.
It is needed where BTF is made from it, which kbuild does as soon as a vmlinux lies in the headers; where the CRCs of
exports are (gendwarfksyms, since 6.14); and where a recipe keeps it (STRIP=no).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autokmod.model import Kernel, KernelAbi, Recipe
from autokmod.observe.toolchain import Toolchain

OFF = "CONFIG_DEBUG_INFO="
BTF = "CONFIG_DEBUG_INFO_BTF_MODULES"
CRCS = "CONFIG_GENDWARFKSYMS"


def without_debug_info(toolchain: Toolchain, recipe: Recipe, kernel: Kernel, abi: KernelAbi) -> Toolchain:
    """No part of the build key: what is stored is the same, but for the order of __versions."""
    makes_btf = abi.config.get(BTF) == "y" and kernel.kdir is not None and Path(kernel.kdir, "vmlinux").exists()
    if makes_btf or abi.config.get(CRCS) == "y" or not all(module.strip for module in recipe.modules):
        return toolchain
    return replace(toolchain, overrides=(*toolchain.overrides, OFF))
