"""What one module says of itself: ModuleFacts from the bytes of a .ko.

The rules are those of kernel/module/main.c and of scripts/mod/modpost.c, which writes the sections:

* `.modinfo`: `key=value`, each ended by a zero byte.
* `__versions`: 64 bytes an entry: the CRC in an unsigned long, then the name. Where a name stands twice, the loader
  takes the first.
* `__version_ext_crcs`, `__version_ext_names` (Linux 6.14): an array of u32 and as many zero-ended names.
* exports: one symbol `__ksymtab_NAME` each, in a section `__ksymtab` or `__ksymtab_gpl`; or in `__ksymtab` with a
  byte at `__flags_NAME` whose lowest bit says GPL-only. `__crc_NAME` is absolute (before 5.19) or leads to a u32.
  `__kstrtabns_NAME` leads to the namespace.
* the signature: behind everything else, see signature.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping

from autokmod.model import Export, Import, ModuleFacts, Reason
from autokmod.observe.blob import read_blob
from autokmod.observe.elf import SHN_ABS, SHN_COMMON, SHN_UNDEF, STT_REGISTER, Elf, Section, Symbol
from autokmod.observe.modtree import module_name
from autokmod.observe.relocations import unknown_relocations
from autokmod.observe.signature import read_signature

EM_386, EM_SPARC, EM_PPC64, EM_SPARCV9, EM_X86_64 = 3, 2, 21, 43, 62
VERSION_ENTRY = 64
KSYMTAB = "__ksymtab_"
MARKS = (b"__ksymtab_", b"__crc_", b"__kstrtabns_", b"__flags_")
THIS_MODULE = ".gnu.linkonce.this_module"


def read_module(path: str | os.PathLike[str]) -> ModuleFacts:
    """Raises FormatError, and OSError where the file cannot be read."""
    return parse_module(os.fspath(path), read_blob(path))


def parse_module(path: str, data: bytes) -> ModuleFacts:
    """`data` is uncompressed. Raises FormatError."""
    signature, size = read_signature(data)
    elf = Elf(path, data[:size])
    info = read_modinfo(elf)
    name = _first(info, "name") or module_name(os.path.basename(path))
    struct_size, struct_problems = _this_module(elf)
    imports, common = _imports(elf)
    return ModuleFacts(
        path=path,
        name=name.replace("-", "_"),
        ident=elf.ident,
        vermagic=_first(info, "vermagic"),
        struct_size=struct_size,
        licenses=tuple(info.get("license", ())),
        depends=tuple(d for d in (_first(info, "depends") or "").split(",") if d),
        import_ns=tuple(info.get("import_ns", ())),
        imports=imports,
        versions=_versions(elf),
        ext_versions=_ext_versions(elf),
        exports=tuple(_exports(elf, name.replace("-", "_"))),
        srcversion=_first(info, "srcversion"),
        version=_first(info, "version"),
        signature=signature,
        has_btf=_has(elf, ".BTF"),
        has_btf_base=_has(elf, ".BTF.base"),
        livepatch="livepatch" in info,
        intree="intree" in info,
        problems=(*struct_problems, *common, *_relocations(elf)),
    )


def read_modinfo(elf: Elf) -> dict[str, list[str]]:
    section = elf.find(".modinfo")
    info: dict[str, list[str]] = {}
    for entry in _strings(elf.content(section)) if section else ():
        key, equals, value = entry.partition("=")
        if equals:
            info.setdefault(key, []).append(value)
    return info


def _strings(data: bytes) -> Iterator[str]:
    return (s.decode("utf-8", "backslashreplace") for s in data.split(b"\0") if s)


def _first(info: Mapping[str, list[str]], key: str) -> str | None:
    values = info.get(key)
    return values[0] if values else None


def _has(elf: Elf, name: str) -> bool:
    return any(s.name == name and s.size for s in elf.sections)


def _this_module(elf: Elf) -> tuple[int | None, tuple[Reason, ...]]:
    found = [s for s in elf.sections if s.name == THIS_MODULE]
    if len(found) != 1:
        return None, (Reason("not-a-module", f"it has {len(found)} sections {THIS_MODULE} instead of one"),)
    if not found[0].is_stored or not elf.find(THIS_MODULE):
        return None, (Reason("not-a-module", f"its section {THIS_MODULE} is not loaded"),)
    return found[0].size, ()


def _relocations(elf: Elf) -> Iterator[Reason]:
    unknown = unknown_relocations(elf)
    if unknown:
        types = ", ".join(map(str, unknown))
        yield Reason("unknown-relocation", f"it has relocations of type {types}, which the kernel does not know")


# ---- what it needs


def _imports(elf: Elf) -> tuple[tuple[Import, ...], tuple[Reason, ...]]:
    """Undefined symbols in the order of the table, each once; weak only if every entry is."""
    strong: dict[str, bool] = {}
    common: list[str] = []
    for symbol in elf.symbols((SHN_UNDEF, SHN_COMMON)):
        name = _undotted(elf, elf.name(symbol))
        if symbol.section == SHN_COMMON:
            common += [] if name.startswith("__gnu_lto") else [name]
        elif not _ignored(elf, symbol, name):
            strong[name] = strong.get(name, False) or not symbol.weak
    problems = [Reason("common-symbol", f"`{n}` is a common symbol, which no loader accepts", n) for n in common[:1]]
    return tuple(Import(n, weak=not s) for n, s in strong.items()), tuple(problems)


def _ignored(elf: Elf, symbol: Symbol, name: str) -> bool:
    """What the loader itself supplies or passes over: ignore_undef_symbol() and the architectures' own."""
    machine = elf.ident.machine
    if machine in (EM_386, EM_X86_64):
        return name == "_GLOBAL_OFFSET_TABLE_"
    if machine == EM_PPC64:
        return name == "TOC."
    return machine in (EM_SPARC, EM_SPARCV9) and symbol.info & 0xF == STT_REGISTER


def _undotted(elf: Elf, name: str) -> str:
    """64-bit PowerPC's first ABI puts a dot before functions; its loader takes it away (dedotify)."""
    return name[1:] if elf.ident.machine == EM_PPC64 and name.startswith(".") else name


def _versions(elf: Elf) -> dict[str, int] | None:
    section = elf.find("__versions")
    if section is None:
        return None
    if section.size % VERSION_ENTRY or not section.is_stored:
        raise elf.fail(f"{section.size} bytes of __versions: not whole entries", section.offset)
    address = elf.layout.address
    entry = struct.Struct(f"{elf.layout.word}{'Q' if address == 8 else 'I'}{VERSION_ENTRY - address}s")
    versions: dict[str, int] = {}
    for i, (crc, raw) in enumerate(entry.iter_unpack(elf.content(section))):
        name, zero, _ = raw.partition(b"\0")
        if not zero:
            raise elf.fail("a name in __versions does not end", section.offset + i * VERSION_ENTRY)
        versions.setdefault(_undotted(elf, name.decode("utf-8", "backslashreplace")), crc)
    return versions


def _ext_versions(elf: Elf) -> dict[str, int] | None:
    crcs, names = elf.find("__version_ext_crcs"), elf.find("__version_ext_names")
    if crcs is None and names is None:
        return None
    if crcs is None or names is None:
        offset = (crcs or names or elf.symtab).offset
        raise elf.fail("only one of __version_ext_crcs and __version_ext_names", offset)
    values, text = elf.content(crcs), elf.content(names)
    if not values or len(values) % 4 or not text.endswith(b"\0"):
        raise elf.fail("__version_ext_crcs or __version_ext_names is empty or truncated", crcs.offset)
    keys = text[:-1].split(b"\0")
    if len(keys) != len(values) // 4:
        raise elf.fail(f"{len(values) // 4} CRCs for {len(keys)} names in __version_ext_*", crcs.offset)
    versions: dict[str, int] = {}
    for key, (crc,) in zip(keys, struct.iter_unpack(elf.layout.word + "I", values), strict=True):
        versions.setdefault(_undotted(elf, key.decode("utf-8", "backslashreplace")), crc)
    return versions


# ---- what it offers


def _exports(elf: Elf, exporter: str) -> Iterable[Export]:
    tables = {s.number: s for s in elf.sections if s.name in ("__ksymtab", "__ksymtab_gpl") and s.size}
    if not tables:
        return ()
    marks = elf.named(MARKS)
    names = {n.removeprefix(KSYMTAB): s for n, s in marks.items() if n.startswith(KSYMTAB) and s.section in tables}
    empty = set(tables) - {s.section for s in names.values()}
    if empty:
        raise elf.fail("exports without __ksymtab_ symbols (stripped?)", tables[min(empty)].offset)
    return [_export(elf, name, tables[s.section], marks, exporter) for name, s in names.items()]


def _export(elf: Elf, name: str, table: Section, marks: Mapping[str, Symbol], exporter: str) -> Export:
    flags = marks.get("__flags_" + name)
    gpl = table.name.endswith("_gpl") or (flags is not None and elf.u8(_home(elf, flags), flags.value) & 1 == 1)
    return Export(name, _crc(elf, marks.get("__crc_" + name)), exporter, gpl, _namespace(elf, name, marks))


def _home(elf: Elf, symbol: Symbol) -> Section:
    if not 0 < symbol.section < len(elf.sections):
        text = f"symbol {elf.name(symbol)} lies in section {symbol.section}, which does not exist"
        raise elf.fail(text, elf.symtab.offset)
    return elf.sections[symbol.section]


def _crc(elf: Elf, mark: Symbol | None) -> int | None:
    if mark is None or mark.section == SHN_UNDEF:  # genksyms gave up, or modversions are off
        return None
    if mark.section == SHN_ABS:
        return mark.value & 0xFFFFFFFF
    return elf.u32(_home(elf, mark), mark.value)


def _namespace(elf: Elf, name: str, marks: Mapping[str, Symbol]) -> str | None:
    mark = marks.get("__kstrtabns_" + name)
    if mark is None or mark.section in (SHN_UNDEF, SHN_ABS):
        return None
    return elf.string(_home(elf, mark), mark.value) or None
