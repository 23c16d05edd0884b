"""Relocatable ELF objects, as far as a module's facts need them: sections, symbols, strings.

The bounds are those of the kernel's elf_validity_cache_copy() (kernel/module/main.c): what it refuses, this
refuses, with the offset. Nothing but FormatError is raised, and every loop is bounded by the file's size.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from autokmod.errors import FormatError
from autokmod.model import ElfIdent

ET_REL = 1
SHT_NULL, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS = 0, 2, 3, 8
SHF_ALLOC = 2
SHN_UNDEF, SHN_ABS, SHN_COMMON, SHN_LIVEPATCH = 0, 0xFFF1, 0xFFF2, 0xFF20
STB_WEAK = 2
STT_REGISTER = 13  # SPARC only
# Far above what any module has; they keep a damaged file from costing memory.
MAX_NAME = 1024  # KSYM_NAME_LEN is 512
MAX_SYMBOLS = 1 << 17  # that a module imports, or exports


class Section(NamedTuple):
    number: int
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int = 0

    @property
    def is_stored(self) -> bool:
        """Whether offset and size speak of bytes in the file; if not, nobody has checked them."""
        return self.type not in (SHT_NULL, SHT_NOBITS)


class Strings(NamedTuple):
    """Where in the file a string table lies."""

    offset: int
    end: int


class Symbol(NamedTuple):
    name: int  # offset in the string table
    info: int
    section: int
    value: int

    @property
    def weak(self) -> bool:
        return self.info >> 4 == STB_WEAK


@dataclass(frozen=True, slots=True)
class Layout:
    """One class and byte order: the structs, and where in a symbol its fields are."""

    word: str  # struct's byte order character
    header: struct.Struct
    section: struct.Struct
    symbol: struct.Struct
    order: tuple[int, int, int, int]  # of st_name, st_info, st_shndx, st_value
    address: int  # bytes of a pointer


def _layout(order: str, bits: int) -> Layout:
    if bits == 64:
        header, section, symbol = (struct.Struct(order + p) for p in ("HHIQQQIHHHHHH", "IIQQQQIIQQ", "IBBHQQ"))
        return Layout(order, header, section, symbol, (0, 1, 3, 4), 8)
    header, section, symbol = (struct.Struct(order + p) for p in ("HHIIIIIHHHHHH", "IIIIIIIIII", "IIIBBH"))
    return Layout(order, header, section, symbol, (0, 3, 5, 1), 4)


LAYOUTS = {(bits, order): _layout(order, bits) for bits in (32, 64) for order in "<>"}


class Elf:
    """Raises FormatError from every method."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.data = path, data
        self.ident, self.layout = self._identify()
        self.sections = self._read_sections()
        self.symtab = self._find_symtab()
        strings = self.sections[self.symtab.link]
        self.names = self._strings(strings.type, strings.offset, strings.size)
        self.strtab = data[self.names.offset : self.names.end]

    def fail(self, what: str, offset: int) -> FormatError:
        return FormatError(self.path, what, offset)

    # ---- header and sections

    def _identify(self) -> tuple[ElfIdent, Layout]:
        data = self.data
        if data[:4] != b"\x7fELF":
            raise self.fail("not an ELF file" if data else "empty file", 0)
        if len(data) < 20 or data[4] not in (1, 2) or data[5] not in (1, 2):
            raise self.fail("unknown ELF class or byte order", 4)
        bits, order = 32 * data[4], "<>"[data[5] - 1]
        kind, machine = struct.unpack_from(order + "HH", data, 16)
        if kind != ET_REL:
            raise self.fail(f"not a relocatable object (e_type {kind})", 16)
        return ElfIdent(bits, "little" if order == "<" else "big", machine), LAYOUTS[bits, order]

    def _read_sections(self) -> tuple[Section, ...]:
        header = self._unpack(self.layout.header, 16)
        start, entry_size, count, names_at = self._table_offset(), header[10], header[11], header[12]
        if entry_size != self.layout.section.size:
            raise self.fail(f"section headers of {entry_size} bytes", 16)
        if count * entry_size > len(self.data) - start:
            raise self.fail(f"{count} section headers do not fit in the file: truncated?", start)
        if not 0 < names_at < count:
            raise self.fail("no section with the sections' names", start)
        table = memoryview(self.data)[start : start + count * entry_size]
        raw = list(self.layout.section.iter_unpack(table))
        self._check_bounds(raw, start)
        names = self._strings(raw[names_at][1], raw[names_at][4], raw[names_at][5])
        return tuple(self._section(i, s, names) for i, s in enumerate(raw))

    def _table_offset(self) -> int:
        return self._unpack(self.layout.header, 16)[5]

    def _check_bounds(self, raw: list[tuple[int, ...]], start: int) -> None:
        _, kind, _, address, _, size, *_ = raw[0]
        if (kind, address, size) != (SHT_NULL, 0, 0):
            raise self.fail("the first section header is not empty", start)
        for i, (_, kind, _, _, offset, size, link, *_) in enumerate(raw):
            if kind in (SHT_NULL, SHT_NOBITS):
                continue
            if offset + size > len(self.data):
                raise self.fail(f"section {i} ({size} bytes) does not fit in the file: truncated?", offset)
            if kind == SHT_SYMTAB and not 0 < link < len(raw):
                raise self.fail(f"section {i} links to section {link}, which does not exist", offset)

    def _section(self, index: int, raw: tuple[int, ...], names: Strings) -> Section:
        name, kind, flags, _, offset, size, link, info = raw[:8]
        return Section(index, self._string(names, name), kind, flags, offset, size, link, info)

    def find(self, name: str) -> Section | None:
        """The one section of that name that the loader would take: without SHF_ALLOC it does not see it."""
        found = [s for s in self.sections if s.name == name and s.flags & SHF_ALLOC]
        if len(found) > 1:
            raise self.fail(f"{len(found)} sections are called {name}", found[1].offset)
        return found[0] if found else None

    def content(self, section: Section) -> bytes:
        """Empty for a section that takes no space in the file."""
        if not section.is_stored:
            return b""
        return self.data[section.offset : section.offset + section.size]

    # ---- symbols and strings

    def _find_symtab(self) -> Section:
        found = [s for s in self.sections if s.type == SHT_SYMTAB]
        if len(found) != 1:
            raise self.fail(f"{len(found)} symbol tables instead of one (stripped?)", self._table_offset())
        if found[0].size % self.layout.symbol.size:
            raise self.fail(f"a symbol table of {found[0].size} bytes ends within a symbol", found[0].offset)
        return found[0]

    def symbols(self, sections: Container[int]) -> list[Symbol]:
        """Those that belong to one of these section numbers."""
        return self._few(s for s in self._every_symbol() if s.section in sections)

    def named(self, prefixes: tuple[bytes, ...]) -> dict[str, Symbol]:
        """Those whose names begin so."""
        table = self.strtab
        return {
            self.name(s): s for s in self._few(s for s in self._every_symbol() if table.startswith(prefixes, s.name))
        }

    def _every_symbol(self) -> Iterator[Symbol]:
        """But for the first, which the format reserves."""
        a, b, c, d = self.layout.order
        raw = self.layout.symbol.iter_unpack(self.content(self.symtab))
        return (Symbol(s[a], s[b], s[c], s[d]) for s in islice(raw, 1, None))

    def _few(self, symbols: Iterator[Symbol]) -> list[Symbol]:
        found = list(islice(symbols, MAX_SYMBOLS + 1))
        if len(found) > MAX_SYMBOLS:
            raise self.fail(f"more than {MAX_SYMBOLS} symbols", self.symtab.offset)
        return found

    def name(self, symbol: Symbol) -> str:
        return self._string(self.names, symbol.name)

    def _strings(self, kind: int, offset: int, size: int) -> Strings:
        """Linux 6.12 asks for the type, 6.1 does not."""
        if kind != SHT_STRTAB:
            raise self.fail(f"a section of type {kind} instead of a string table", offset)
        if size == 0 or offset + size > len(self.data) or self.data[offset + size - 1] != 0:
            raise self.fail("a string table that does not end in a zero byte", offset)
        return Strings(offset, offset + size)

    def _string(self, table: Strings, offset: int) -> str:
        start = table.offset + offset
        end = self.data.find(b"\0", start, min(start + MAX_NAME, table.end)) if start < table.end else -1
        if end < 0:
            raise self.fail(f"a name at {offset} of a table of {table.end - table.offset} bytes", table.offset)
        return self.data[start:end].decode("utf-8", "backslashreplace")

    def string(self, section: Section, offset: int) -> str:
        size = section.size if section.is_stored else 0
        return self._string(Strings(section.offset, section.offset + size), offset)

    def u8(self, section: Section, offset: int) -> int:
        return self._value("B", section, offset)

    def u32(self, section: Section, offset: int) -> int:
        return self._value("I", section, offset)

    def _value(self, kind: str, section: Section, offset: int) -> int:
        what = struct.Struct(self.layout.word + kind)
        if not section.is_stored or offset + what.size > section.size:
            raise self.fail(f"a value outside section {section.name}", section.offset)
        return int(what.unpack_from(self.data, section.offset + offset)[0])

    def _unpack(self, what: struct.Struct, offset: int) -> tuple[int, ...]:
        if offset + what.size > len(self.data):
            raise self.fail("the file ends within the ELF header", len(self.data))
        return what.unpack_from(self.data, offset)
