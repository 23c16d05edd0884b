"""Relocations that the loader does not know, as a compiler makes them for programs. It refuses the module for one."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

from autokmod.observe.elf import SHF_ALLOC, Elf, Section

SHT_RELA = 4
ENTRY = 24  # bytes: r_offset, r_info, r_addend; the type is the lower half of r_info
# (e_machine, bits) → what apply_relocate_add() of arch/x86/kernel/module.c takes: NONE, 64, PC32, PLT32, 32, 32S, PC64.
# For other machines nobody has made such a list here, and nothing is found.
KNOWN = {(62, 64): frozenset({0, 1, 2, 4, 10, 11, 24})}


def unknown_relocations(elf: Elf) -> tuple[int, ...]:
    """Their types, in order."""
    known = KNOWN.get((elf.ident.machine, elf.ident.bits))
    if known is None:
        return ()
    found: set[int] = set()
    for section in elf.sections:
        if section.type == SHT_RELA and _is_applied(elf, section):
            found.update(_types(elf.content(section)))
    return tuple(sorted(found - known))


def _is_applied(elf: Elf, section: Section) -> bool:
    """The loader passes over those for debugging information."""
    return section.info < len(elf.sections) and bool(elf.sections[section.info].flags & SHF_ALLOC)


def _types(data: bytes) -> Iterable[int]:
    words = array("I", data[: len(data) // ENTRY * ENTRY])
    if sys.byteorder == "big":
        words.byteswap()
    return words[2 :: ENTRY // 4]
