"""Module.symvers: what vmlinux and the in-tree modules export, a line a symbol (Documentation/kbuild/modules.rst):

    CRC <tab> symbol <tab> exporter <tab> EXPORT_SYMBOL[_GPL] <tab> namespace

Kernels before 5.4 have no fifth field. A line is taken apart when its symbol is asked for: of 25,000 symbols a
module needs some dozens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from autokmod.errors import FormatError
from autokmod.model import Export
from autokmod.observe.blob import read_blob

LIMIT = 64 << 20
LINE = rb"0x[0-9a-fA-F]{8}\t[!-~]+\t[!-~]+\tEXPORT_[A-Z_]+(?:\t[!-~]*)?\n"
TEXT = bytes(range(0x20, 0x7F)) + b"\t"
LINES = re.compile(rb"(?:%s)*" % LINE)


class Symvers(Mapping[str, Export]):
    __slots__ = ("_lines", "_parsed")

    def __init__(self, lines: dict[str, str]) -> None:
        self._lines = lines
        self._parsed: dict[str, Export] = {}

    def __getitem__(self, name: str) -> Export:
        found = self._parsed.get(name)
        if found is None:
            found = self._parsed[name] = parse_line(self._lines[name])
        return found

    def get(self, name: str, default: Any = None) -> Any:  # Mapping's own asks by exceptions
        found = self._parsed.get(name)
        return self[name] if found is None and name in self._lines else found or default

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def exporters(self) -> set[str]:
        """As the file spells them: `vmlinux`, `drivers/net/veth`."""
        return {line.split("\t", 3)[2] for line in self._lines.values()}


def parse_line(line: str) -> Export:
    crc, name, exporter, kind, *namespace = line.split("\t")
    return Export(name, int(crc, 16), exporter, "_GPL" in kind, (namespace or [""])[0] or None)


def read_symvers(path: str | os.PathLike[str]) -> Symvers:
    """Raises FormatError, and OSError where the file cannot be read."""
    return parse_symvers(read_blob(path, limit=LIMIT), os.fspath(path))


def parse_symvers(data: bytes, path: str) -> Symvers:
    """Raises FormatError that names the first bad line."""
    if not data:
        raise FormatError(path, "empty")
    good = LINES.match(data)
    end = good.end() if good else 0
    if end < len(data):
        raise FormatError(path, _what_is_wrong(data, end), end)
    lines = data.decode("ascii").split("\n")[:-1]
    found = {line.split("\t", 2)[1]: line for line in lines}
    if len(found) < len(lines):
        raise FormatError(path, _first_duplicate(lines))
    return Symvers(found)


def _what_is_wrong(data: bytes, start: int) -> str:
    number = data.count(b"\n", 0, start) + 1
    line, newline, _ = data[start:].partition(b"\n")
    if not newline:
        return f"line {number} is truncated"
    if line.translate(None, TEXT):
        return f"line {number} is not text"
    fields = line.count(b"\t") + 1
    if fields not in (4, 5):
        return f"line {number} has {fields} fields instead of 5"
    return f"line {number} is not a symbol's"


def _first_duplicate(lines: list[str]) -> str:
    first: dict[str, int] = {}
    names = [line.split("\t", 2)[1] for line in lines]
    number = min(i for i, name in enumerate(names, 1) if first.setdefault(name, i) != i)
    return f"line {number}: {names[number - 1]} stands there twice"
