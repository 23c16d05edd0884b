"""What no compiler makes: modules changed afterwards, one thing at a time. For 64-bit little-endian objects."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SYMBOL = struct.Struct("<IBBHQQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
SHOFF, SHNUM = 40, 60  # in the ELF header
SHT_NOBITS = 8
VERSION = struct.Struct("<Q56s")
MARKER = b"~Module signature appended~\n"
TRAILER = struct.Struct(">BBBBB3xI")  # algo, hash, id_type, signer_len, key_id_len, sig_len
PKCS7 = 2


@dataclass(frozen=True, slots=True)
class Section:
    index: int
    name: str
    header: tuple[int, ...]

    @property
    def offset(self) -> int:
        return self.header[4]

    @property
    def size(self) -> int:
        return self.header[5]

    @property
    def end(self) -> int:
        """In the file."""
        return self.offset + (0 if self.header[1] == SHT_NOBITS else self.size)


def sections(data: bytes) -> tuple[Section, ...]:
    header = HEADER.unpack_from(data)
    start, count, names_at = header[6], header[12], header[13]
    raw = [SECTION.unpack_from(data, start + i * SECTION.size) for i in range(count)]
    names = data[raw[names_at][4] :][: raw[names_at][5]]
    return tuple(Section(i, names[r[0] :].split(b"\0", 1)[0].decode(), r) for i, r in enumerate(raw))


def section(data: bytes, name: str) -> Section:
    """The first of that name. Raises KeyError."""
    for s in sections(data):
        if s.name == name:
            return s
    raise KeyError(name)


def content(data: bytes, name: str) -> bytes:
    s = section(data, name)
    return data[s.offset : s.end]


def with_header(data: bytes, name: str, **fields: int) -> bytes:
    """Changed values in one section's header: sh_name, sh_type, sh_flags, sh_offset, sh_size."""
    order = ("sh_name", "sh_type", "sh_flags", "sh_addr", "sh_offset", "sh_size", "sh_link", "sh_info")
    s = section(data, name)
    values = list(s.header)
    for field, value in fields.items():
        values[order.index(field)] = value
    return with_bytes(data, HEADER.unpack_from(data)[6] + s.index * SECTION.size, SECTION.pack(*values))


def with_bytes(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def with_content(data: bytes, name: str, new: bytes) -> bytes:
    """At the end of the file, where there is room for any size."""
    start = -(-len(data) // 64) * 64
    moved = with_header(data, name, sh_offset=start, sh_size=len(new))
    return moved.ljust(start, b"\0") + new


def without(data: bytes, name: str) -> bytes:
    """The section is still there, by another name."""
    return renamed_section(data, name, ".without" + name)


# ---- .modinfo


def with_modinfo(data: bytes, **changes: str | None) -> bytes:
    """None takes a key away, every time that it stands there."""
    entries = [e for e in content(data, ".modinfo").split(b"\0") if e]
    kept = [e for e in entries if e.split(b"=", 1)[0].decode() not in changes]
    new = [f"{key}={value}".encode() for key, value in changes.items() if value is not None]
    return with_content(data, ".modinfo", b"".join(e + b"\0" for e in kept + new))


def modinfo(data: bytes, key: str) -> str:
    start = key.encode() + b"="
    entries = content(data, ".modinfo").split(b"\0")
    return next(e for e in entries if e.startswith(start))[len(start) :].decode()


# ---- __versions


def versions(data: bytes) -> dict[str, int]:
    return {n.rstrip(b"\0").decode(): crc for crc, n in VERSION.iter_unpack(content(data, "__versions"))}


def with_versions(data: bytes, **changes: int | None) -> bytes:
    """None takes an entry away."""
    table = {**versions(data), **changes}
    rows = (VERSION.pack(crc, n.encode()) for n, crc in table.items() if crc is not None)
    return with_content(data, "__versions", b"".join(rows))


def with_ext_versions(data: bytes, **changes: int | None) -> bytes:
    """The tables of Linux 6.14 in place of the basic one: their headers are those of two sections not needed."""
    table = {n: crc for n, crc in {**versions(data), **changes}.items() if crc is not None}
    names, crcs = b"".join(n.encode() + b"\0" for n in table), struct.pack(f"<{len(table)}I", *table.values())
    for unneeded, name, new in (
        (".comment", "__version_ext_names", names),
        (".note.GNU-stack", "__version_ext_crcs", crcs),
    ):
        data = renamed_section(with_content(data, unneeded, new), unneeded, name)
        data = with_header(data, name, sh_flags=2, sh_type=1)
    return data


def renamed_section(data: bytes, old: str, new: str) -> bytes:
    names = sections(data)[HEADER.unpack_from(data)[13]].name
    table = content(data, names)
    moved = with_content(data, names, table + new.encode() + b"\0")
    return with_header(moved, old, sh_name=len(table))


def without_crcs(data: bytes) -> bytes:
    """Of what it exports: neither the loader, which goes by sections, nor a reader of symbols finds any."""
    data = without(without(data, "__kcrctab"), "__kcrctab_gpl")
    return with_content(data, ".strtab", content(data, ".strtab").replace(b"__crc_", b"__xrc_"))


# ---- symbols


def renamed_symbol(data: bytes, old: str, new: str) -> bytes:
    """Wherever it stands, as an export too. Both names have the same length."""
    assert len(old) == len(new)
    for s in sections(data):
        if s.name not in (".strtab", "__ksymtab_strings"):
            continue
        data = with_bytes(data, s.offset, data[s.offset : s.end].replace(old.encode() + b"\0", new.encode() + b"\0"))
    return data


def renamed_module(data: bytes, old: str, new: str) -> bytes:
    """Both names have the same length."""
    assert len(old) == len(new)
    s = section(data, ".gnu.linkonce.this_module")
    data = with_bytes(data, s.offset, data[s.offset : s.end].replace(old.encode() + b"\0", new.encode() + b"\0"))
    return with_modinfo(data, name=new)


def with_weak(data: bytes, name: str) -> bytes:
    return _with_binding(data, name, 2)


def with_strong(data: bytes, name: str) -> bytes:
    return _with_binding(data, name, 1)


def _with_binding(data: bytes, name: str, binding: int) -> bytes:
    """Of an undefined symbol: in the upper half of st_info."""
    table, names = section(data, ".symtab"), content(data, ".strtab")
    for at in range(table.offset, table.end, SYMBOL.size):
        start, info, _, where, *_ = SYMBOL.unpack_from(data, at)
        if where == 0 and names[start:].split(b"\0", 1)[0] == name.encode():
            return with_bytes(data, at + 4, bytes([binding << 4 | info & 0xF]))
    raise KeyError(name)


def without_init(data: bytes) -> bytes:
    """A module that starts and stops nothing: only its symbols are there."""
    for s in sections(data):
        if s.name == ".rela.gnu.linkonce.this_module":
            return with_bytes(data, s.offset, bytes(s.end - s.offset))
    return data


def with_relocation(data: bytes, name: str, kind: int) -> bytes:
    """The first of a section gets another type."""
    return with_bytes(data, section(data, f".rela{name}").offset + 8, struct.pack("<I", kind))


# ---- the file's shape


def truncations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """At the beginning and the end of everything that the file consists of."""
    header = HEADER.unpack_from(data)
    ends = {"ELF-header": HEADER.size, "section-headers": header[6], "last-section-header": len(data) - SECTION.size}
    for s in sections(data)[1:]:
        ends[f"before-{s.index}{s.name}"], ends[f"after-{s.index}{s.name}"] = s.offset, s.end
    seen = {len(data)}
    for name, end in sorted(ends.items(), key=lambda e: e[1]):
        if end not in seen:
            seen.add(end)
            yield name, data[:end]


# What a reader of symbols and versions looks at. The rest of a module is code and data, in which damage shows only to
# who relocates it: digests are for that.
READ = frozenset(
    {"", ".modinfo", "__versions", ".symtab", ".strtab", ".shstrtab", "__kcrctab", "__kcrctab_gpl", "__ksymtab_strings"}
)
FIELDS = {"name": 0, "type": 1, "address": 3, "offset": 4, "size": 5, "link": 6}


def field_damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Each number of the ELF header, and of the headers of sections that are read, set to what it must not be."""
    header = HEADER.unpack_from(data)
    for i in range(1, len(header)):
        for value in (0, 1, 0xFFFF):
            yield f"header-{i}-{value}", with_bytes(data, 0, HEADER.pack(*header[:i], value, *header[i + 1 :]))
    for s in sections(data):
        at = header[6] + s.index * SECTION.size
        for field, i in FIELDS.items() if s.name in READ else ():
            # By 1, a name becomes that of another section, which some kernels refuse for sysfs' sake.
            for value in (0, 0xFFFFFFF0) if field == "name" else (0, 1, 0xFFFFFFF0):
                raw = SECTION.pack(*s.header[:i], value, *s.header[i + 1 :])
                yield f"section-{s.index}{s.name}-{field}-{value}", with_bytes(data, at, raw)


def signature_damages(data: bytes, blob: bytes) -> Iterator[tuple[str, bytes]]:
    """Each byte before the signature proper inverted, and each of the trailer's."""
    for i in range(len(blob) - 256):
        yield f"signature-byte-{i}", with_signature(data, _inverted(blob, i))
    whole = with_signature(data, blob)
    for i in range(TRAILER.size):
        yield f"trailer-byte-{i}", _inverted(whole, len(whole) - len(MARKER) - TRAILER.size + i)


def _inverted(data: bytes, at: int) -> bytes:
    return with_bytes(data, at, bytes([data[at] ^ 0xFF]))


# ---- signatures


def with_signature(data: bytes, blob: bytes, *, id_type: int = PKCS7, size: int | None = None, algo: int = 0) -> bytes:
    trailer = TRAILER.pack(algo, 0, id_type, 0, 0, len(blob) if size is None else size)
    return data + blob + trailer + MARKER


def signature(data: bytes) -> bytes:
    """As scripts/sign-file makes it, with a key that no kernel knows."""
    with tempfile.TemporaryDirectory() as scratch:
        key, cert, source = (Path(scratch) / n for n in ("key", "cert", "module"))
        source.write_bytes(data)
        new_key = ("req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=nobody/")
        openssl(*new_key, "-keyout", str(key), "-out", str(cert))
        flags = ("-binary", "-noattr", "-nosmimecap", "-nocerts", "-md", "sha256", "-outform", "DER")
        return openssl("cms", "-sign", *flags, "-in", str(source), "-signer", str(cert), "-inkey", str(key))


def openssl(*args: str) -> bytes:
    return subprocess.run(("openssl", *args), check=True, capture_output=True, timeout=60).stdout
