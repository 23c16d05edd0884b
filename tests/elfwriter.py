"""Modules made to measure: a .ko in memory with the sections, symbols and tables that a test asks for.

`make_ko()` without arguments gives a module that a kernel like `facts.ABI` would load. What a test wants otherwise,
it says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

EM_X86_64, EM_386, EM_PPC64, EM_S390 = 62, 3, 21, 22
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS = 1, 2, 3, 8
SHF_ALLOC = 2
SHN_UNDEF, SHN_ABS, SHN_COMMON = 0, 0xFFF1, 0xFFF2
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STRUCT_SIZE = 896
FLAGS = "SMP preempt mod_unload modversions "
SIGNED_DATA, DATA = (bytes.fromhex("2a864886f70d01070" + digit) for digit in "21")
SIGNATURE_MARK = b"~Module signature appended~\n"


@dataclass(frozen=True, slots=True)
class Sec:
    name: str
    data: bytes
    type: int = SHT_PROGBITS
    flags: int = SHF_ALLOC


@dataclass(frozen=True, slots=True)
class Sym:
    name: str
    section: str | int = SHN_UNDEF  # a section's name, or SHN_…
    value: int = 0
    bind: int = STB_GLOBAL


@dataclass(frozen=True, slots=True)
class Exp:
    name: str
    crc: int | None = 0x1111
    gpl: bool = False
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    bits: int = 64
    order: str = "<"
    machine: int = EM_X86_64

    def pack(self, kind: str, *values: int) -> bytes:
        """`kind` for 64 bits; 32-bit objects have words of half the size."""
        return struct.pack(self.order + (kind if self.bits == 64 else kind.replace("Q", "I")), *values)


X86_64 = Format()


def make_ko(
    *,
    name: str = "sample",
    krel: str = "6.1.0-55-cloud-amd64",
    vermagic: str | None = None,
    modinfo: Iterable[tuple[str, str]] = (("license", "GPL"),),
    versions: Mapping[str, int] | None = None,
    basic: bool = True,
    ext_versions: Mapping[str, int] | None = None,
    weak: Iterable[str] = (),
    imports: Iterable[str] | None = None,
    exports: Iterable[Exp] = (),
    exports_as: str = "kcrctab",
    struct_size: int = STRUCT_SIZE,
    sections: Iterable[Sec] = (),
    symbols: Iterable[Sym] = (),
    form: Format = X86_64,
) -> bytes:
    """`imports` are what `versions` names, but for module_layout, unless given. `basic=False`: no __versions."""
    versions = {"module_layout": 0xA351F379} if versions is None else versions
    needed = [n for n in {**versions, **(ext_versions or {})} if n != "module_layout"] if imports is None else imports
    info = [("vermagic", f"{krel} {FLAGS}" if vermagic is None else vermagic), ("name", name), *modinfo]
    secs = [
        Sec(".modinfo", b"".join(f"{k}={v}".encode() + b"\0" for k, v in info)),
        Sec(".gnu.linkonce.this_module", bytes(struct_size)),
        *([Sec("__versions", versions_section(versions, form))] if basic else []),
        *(ext_sections(ext_versions, form) if ext_versions is not None else ()),
    ]
    syms = [Sym(n, bind=STB_GLOBAL) for n in needed] + [Sym(n, bind=STB_WEAK) for n in weak]
    more_secs, more_syms = export_parts(tuple(exports), exports_as, form)
    return write_elf([*secs, *more_secs, *sections], [*syms, *more_syms, *symbols], form)


def versions_section(versions: Mapping[str, int], form: Format = X86_64) -> bytes:
    room = 64 - form.bits // 8
    return b"".join(form.pack("Q", crc) + name.encode().ljust(room, b"\0") for name, crc in versions.items())


def ext_sections(versions: Mapping[str, int], form: Format = X86_64) -> tuple[Sec, Sec]:
    crcs = b"".join(form.pack("I", crc) for crc in versions.values())
    names = b"".join(name.encode() + b"\0" for name in versions)
    return Sec("__version_ext_crcs", crcs), Sec("__version_ext_names", names)


def export_parts(exports: Sequence[Exp], style: str, form: Format) -> tuple[list[Sec], list[Sym]]:
    """As modpost writes them: `kcrctab` since 5.19, `absolute` CRCs before, `kflagstab` after."""
    secs: dict[str, bytes] = {}
    syms: list[Sym] = []

    def put(section: str, symbol: str, data: bytes) -> None:
        syms.append(Sym(symbol, section, len(secs.get(section, b"")), STB_LOCAL))
        secs[section] = secs.get(section, b"") + data

    for export in exports:
        table = "_gpl" if export.gpl and style != "kflagstab" else ""
        put("__ksymtab_strings", f"__kstrtab_{export.name}", export.name.encode() + b"\0")
        put("__ksymtab_strings", f"__kstrtabns_{export.name}", export.namespace.encode() + b"\0")
        put(f"__ksymtab{table}", f"__ksymtab_{export.name}", bytes(12))
        if style == "kflagstab":
            put("__kflagstab", f"__flags_{export.name}", bytes([export.gpl]))
        if export.crc is None:
            continue
        if style == "absolute":
            syms.append(Sym(f"__crc_{export.name}", SHN_ABS, export.crc))
        else:
            put(f"__kcrctab{table}", f"__crc_{export.name}", form.pack("I", export.crc))
    return [Sec(name, data) for name, data in secs.items()], syms


def sign(ko: bytes, *, body: bytes | None = None, id_type: int = 2, size: int | None = None) -> bytes:
    """A signature of the right shape; nobody's key made it."""
    pkcs7 = pkcs7_message() if body is None else body
    length = len(pkcs7) if size is None else size
    return ko + pkcs7 + struct.pack(">BBBBB3sI", 0, 0, id_type, 0, 0, b"", length) + SIGNATURE_MARK


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    return bytes([tag, size] if size < 128 else [tag, 0x82, size >> 8, size & 0xFF]) + content


def pkcs7_message(
    *, version: int = 1, kind: bytes = SIGNED_DATA, content: bytes = b"", certificates: bytes = b""
) -> bytes:
    """What sign-file writes, in outline: SignedData without content and with one signer."""
    algorithm = der(0x30, der(0x06, b"\x60\x86\x48\x01\x65\x03\x04\x02\x01"))
    number = der(0x02, bytes([version]))
    signer = der(0x30, number, der(0x30, der(0x30), der(0x02, b"\7")), algorithm, algorithm, der(0x04, bytes(256)))
    detached = der(0x30, der(0x06, DATA), content)
    signed = der(0x30, number, der(0x31, algorithm), detached, certificates, der(0x31, signer))
    return der(0x30, der(0x06, kind), der(0xA0, signed))


# ---- the format itself


class _Strings:
    def __init__(self) -> None:
        self.data = b"\0"

    def add(self, text: str) -> int:
        offset = len(self.data)
        self.data += text.encode() + b"\0"
        return offset


def write_elf(sections: Sequence[Sec], symbols: Sequence[Sym], form: Format = X86_64, *, kind: int = 1) -> bytes:
    """Header, contents, section headers; sections are numbered from 1 as given, then the tables follow."""
    strings, names = _Strings(), _Strings()
    symbols = sorted(symbols, key=lambda s: s.bind != STB_LOCAL)  # the format wants local ones first
    local = 1 + sum(s.bind == STB_LOCAL for s in symbols)
    numbers = {s.name: i for i, s in enumerate(sections, 1)}
    symtab = b"".join([_symbol(form, 0, 0, 0, 0), *(_write_symbol(s, numbers, strings, form) for s in symbols)])
    table = Sec(".symtab", symtab, SHT_SYMTAB, 0)
    strtab = Sec(".strtab", strings.data, SHT_STRTAB, 0)
    every = [*sections, table, strtab]
    offsets = [names.add(s.name) for s in [*every, Sec(".shstrtab", b"")]]
    every.append(Sec(".shstrtab", names.data, SHT_STRTAB, 0))
    header_size = 64 if form.bits == 64 else 52
    body, headers = b"", [bytes(64 if form.bits == 64 else 40)]
    for section, name in zip(every, offsets, strict=True):
        place = (header_size + len(body), len(section.data))
        more = (len(sections) + 2, local, 8, 24 if form.bits == 64 else 16) if section is table else (0, 0, 1, 0)
        headers.append(form.pack("IIQQQQIIQQ", name, section.type, section.flags, 0, *place, *more))
        body += b"" if section.type == SHT_NOBITS else section.data
    ident = b"\x7fELF" + bytes([form.bits // 32, 1 if form.order == "<" else 2, 1]) + bytes(9)
    shentsize = 64 if form.bits == 64 else 40
    fields = (kind, form.machine, 1, 0, 0, header_size + len(body), 0, header_size, 0, 0, shentsize, len(headers))
    return ident + form.pack("HHIQQQIHHHHHH", *fields, len(headers) - 1) + body + b"".join(headers)


def _write_symbol(symbol: Sym, numbers: Mapping[str, int], strings: _Strings, form: Format) -> bytes:
    section = numbers[symbol.section] if isinstance(symbol.section, str) else symbol.section
    return _symbol(form, strings.add(symbol.name), symbol.bind << 4, section, symbol.value)


def _symbol(form: Format, name: int, info: int, section: int, value: int) -> bytes:
    if form.bits == 64:
        return form.pack("IBBHQQ", name, info, 0, section, value, 0)
    return form.pack("IIIBBH", name, value, 0, info, 0, section)
