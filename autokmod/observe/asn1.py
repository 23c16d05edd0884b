"""ASN.1's DER and BER, as the kernel's decoder reads them (lib/asn1_decoder.c).

No tags above 30, no lengths above 65535. Every function may raise ValueError: the bytes are not what was expected.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_DEPTH = 16  # a signature's has ten levels
INTEGER, BITS, OCTETS, OID, SEQUENCE, SET = 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
CONSTRUCTED, INDEFINITE = 0x20, 0x80


class Node(NamedTuple):
    tag: int
    content: bytes


def several(node: Node) -> tuple[Node, ...]:
    return inside(node, SEQUENCE if node.tag == SEQUENCE else SET)


def inside(node: Node, tag: int) -> tuple[Node, ...]:
    if node.tag != tag:
        raise ValueError(node.tag)
    return nodes(node.content)


def nodes(data: bytes) -> tuple[Node, ...]:
    found, at = [], 0
    while at < len(data):
        one, at = node(data, at)
        found.append(one)
    return tuple(found)


def node(data: bytes, at: int, depth: int = MAX_DEPTH) -> tuple[Node, int]:
    """One element, and where the next begins."""
    if depth == 0 or at + 2 > len(data) or data[at] & 0x1F == 0x1F:
        raise ValueError(at)
    tag, length, start = data[at], data[at + 1], at + 2
    if length == INDEFINITE:
        end = _end_mark(data, at, depth)
        return Node(tag, data[start:end]), end + 2
    if length > INDEFINITE:
        width = length - INDEFINITE
        start += width
        length = int.from_bytes(data[start - width : start], "big") if width <= 2 else len(data)
    if start + length > len(data):
        raise ValueError(at)
    return Node(tag, data[start : start + length]), start + length


def _end_mark(data: bytes, at: int, depth: int) -> int:
    if not data[at] & CONSTRUCTED:
        raise ValueError(at)
    at += 2
    while data[at : at + 2] != b"\0\0":
        _, at = node(data, at, depth - 1)
    return at
