"""Which module files the indexes in an image know: modules.dep, and modules.dep.bin, which modprobe reads instead.

The latter is a trie of module names (kmod's libkmod/libkmod-index.c): a node is an optional prefix, children by their
first byte, and values behind a priority each. The upper bits of an offset say which of these the node there has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

MAGIC, MAJOR = 0xB007F457, 2
PREFIX, VALUES, CHILDREN = 0x80000000, 0x40000000, 0x20000000
OFFSET = 0x0FFFFFFF
TEXT, BINARY = "modules.dep", "modules.dep.bin"
INDEXES = (TEXT, BINARY)


def known_paths(indexes: Mapping[str, bytes]) -> frozenset[bytes]:
    """Of modules, below their directory: those that each index knows which is there. By name of the index."""
    found = [_in_text(data) if name == TEXT else _in_binary(data) for name, data in indexes.items()]
    return frozenset.intersection(*found) if found else frozenset()


def _in_text(data: bytes) -> frozenset[bytes]:
    return frozenset(line.partition(b":")[0] for line in data.splitlines() if b":" in line)


def _in_binary(data: bytes) -> frozenset[bytes]:
    """Nothing where it is damaged: modprobe would find nothing either."""
    try:
        magic, version, root = struct.unpack_from(">III", data)
        if magic != MAGIC or version >> 16 != MAJOR:
            return frozenset()
        return frozenset(value.partition(b":")[0] for value in _values(data, root))
    except (struct.error, ValueError):
        return frozenset()


def _values(data: bytes, root: int) -> Iterator[bytes]:
    """Raises struct.error, ValueError."""
    todo, seen = [root], set[int]()
    while todo:
        pointer = todo.pop()
        at = pointer & OFFSET
        if at in seen:
            raise ValueError("a node that is its own child")
        seen.add(at)
        if pointer & PREFIX:
            at = data.index(b"\0", at) + 1
        if pointer & CHILDREN:
            first, last = struct.unpack_from(">BB", data, at)
            count = max(0, last - first + 1)
            todo += [child for child in struct.unpack_from(f">{count}I", data, at + 2) if child]
            at += 2 + 4 * count
        if pointer & VALUES:
            (count,) = struct.unpack_from(">I", data, at)
            at += 4
            for _ in range(count):
                end = data.index(b"\0", at + 4)
                yield data[at + 4 : end]
                at = end + 1
