"""The `.initrd` section of a unified kernel image: a PE file (Microsoft's PE format, sections 2 to 4)."""

from __future__ import annotations

import struct

from autokmod.errors import FormatError

DOS_MAGIC, PE_MAGIC = b"MZ", b"PE\0\0"
PE_OFFSET_AT, SECTION = 0x3C, struct.Struct("<8sIIII")
SECTION_SIZE, COFF_SIZE, MAX_SECTIONS = 40, 20, 96


def is_uki(data: memoryview) -> bool:
    return bytes(data[:2]) == DOS_MAGIC


def find_initrd(data: memoryview, path: str) -> tuple[int, int]:
    """Where it begins and ends in the file. Raises FormatError."""
    try:
        (start,) = struct.unpack_from("<I", data, PE_OFFSET_AT)
        magic, _, count, *_, optional = struct.unpack_from("<4sHHIIIH", data, start)
        if magic != PE_MAGIC or count > MAX_SECTIONS:
            raise FormatError(path, "it begins like a PE file, and is none", start)
        table = start + len(PE_MAGIC) + COFF_SIZE + optional
        sections = [SECTION.unpack_from(data, table + i * SECTION_SIZE) for i in range(count)]
    except struct.error as exc:
        raise FormatError(path, "the PE headers are truncated", PE_OFFSET_AT) from exc
    for name, virtual, _, stored, offset in sections:
        if name.rstrip(b"\0") == b".initrd":
            end = offset + min(virtual, stored)
            if end > len(data):
                raise FormatError(path, "the .initrd section is truncated", offset)
            return offset, end
    raise FormatError(path, "it is a PE file without an .initrd section")
