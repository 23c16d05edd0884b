"""The signature behind a module: is it there, and is its shape such that a loader could verify it?

Whether the key is known and the digest right, only the kernel can say. The rules are mod_check_sig()'s
(kernel/module_signature.c) and the PKCS#7 parser's (crypto/asymmetric_keys/pkcs7.asn1): what they refuse is
refused always, also where unsigned modules load.

    module … | PKCS#7 | algo hash id_type signer_len key_id_len 0 0 0 sig_len(be32) | ~Module signature appended~\\n
"""

from __future__ import annotations

import struct
from collections.abc import Container, Sequence
from typing import NamedTuple

from autokmod.model import Signature

MARKER = b"~Module signature appended~\n"
TRAILER = struct.Struct(">BBBBB3sI")
PKCS7 = 2
MAX_SIZE, MAX_DEPTH = 64 << 10, 16  # a real one has some 700 bytes and ten levels
SIGNED_DATA = bytes.fromhex("2a864886f70d010702")  # 1.2.840.113549.1.7.2
DATA = bytes.fromhex("2a864886f70d010701")
INTEGER, OCTETS, OID, SEQUENCE, SET, KEY_ID = 0x02, 0x04, 0x06, 0x30, 0x31, 0x80
CERTIFICATES, REVOKED = (0xA0, 0xA2), (0xA1, 0xA3)  # each as a set or as a sequence
SIGNED, UNSIGNED = (0xA0, 0xA2), (0xA1, 0xA3)  # attributes of a signer
CONSTRUCTED, INDEFINITE = 0x20, 0x80


class Node(NamedTuple):
    tag: int
    content: bytes


def read_signature(data: bytes) -> tuple[Signature, int]:
    """The state, and how many bytes of `data` are the module itself."""
    if not data.endswith(MARKER):
        return Signature.NONE, len(data)
    end = len(data) - len(MARKER) - TRAILER.size
    if end < 0:
        return Signature.DAMAGED, len(data)
    algo, digest, id_type, signer, key_id, pad, size = TRAILER.unpack_from(data, end)
    if size >= end:
        return Signature.DAMAGED, len(data)
    start = end - size
    if id_type != PKCS7:  # ENOPKG: to the loader, as good as unsigned, and it cuts off the marker alone
        return Signature.NONE, len(data) - len(MARKER)
    plain = not (algo or digest or signer or key_id or pad != b"\0\0\0")
    return Signature.PRESENT if plain and is_signed_data(data[start:end]) else Signature.DAMAGED, start


def is_signed_data(data: bytes) -> bool:
    """PKCS#7 SignedData with a detached content and whole signer infos, from the first byte to the last."""
    try:
        return len(data) <= MAX_SIZE and _is_message(data)
    except ValueError:
        return False


# ---- the grammar. Every function here may raise ValueError, which means no.


def _is_message(data: bytes) -> bool:
    (root,) = _nodes(data)
    kind, wrapper = _inside(root, SEQUENCE)
    (signed,) = _inside(wrapper, 0xA0)
    version, algorithms, content, *more, signers = _inside(signed, SEQUENCE)
    right = kind == (OID, SIGNED_DATA) and _inside(content, SEQUENCE) == ((OID, DATA),)
    right = right and _in_order([n.tag for n in more], CERTIFICATES, REVOKED) and _number(version) in (1, 3)
    return (
        right
        and all(map(_is_algorithm, _several(algorithms)))
        and all(_is_signer(signer, version) for signer in _several(signers))
    )


def _is_signer(signer: Node, message_version: Node) -> bool:
    version, who, digest, *rest = _inside(signer, SEQUENCE)
    *before, cipher, signature = rest[:-1] if rest[-1:] and rest[-1].tag in UNSIGNED else rest
    whole = signature.tag == OCTETS and _in_order([n.tag for n in before], SIGNED) and version == message_version
    return whole and _is_algorithm(digest) and _is_algorithm(cipher) and (who.tag == KEY_ID or _is_issuer(who))


def _is_issuer(who: Node) -> bool:
    name, serial = _inside(who, SEQUENCE)
    pairs = (_inside(pair, SEQUENCE) for part in _inside(name, SEQUENCE) for pair in _inside(part, SET))
    return serial.tag == INTEGER and all(len(pair) == 2 and pair[0].tag == OID for pair in pairs)


def _is_algorithm(node: Node) -> bool:
    what, *parameters = _inside(node, SEQUENCE)
    return what.tag == OID and len(parameters) <= 1


def _number(node: Node) -> int:
    return node.content[0] if node.tag == INTEGER and len(node.content) == 1 else -1


def _in_order(tags: Sequence[int], *optional: Container[int]) -> bool:
    """Each of the optional ones once at most, in this order."""
    todo = list(tags)
    for choice in optional:
        if todo and todo[0] in choice:
            del todo[0]
    return not todo


# ---- ASN.1, as the kernel's decoder reads it: no tags above 30, no lengths above 65535


def _several(node: Node) -> tuple[Node, ...]:
    return _inside(node, SEQUENCE if node.tag == SEQUENCE else SET)


def _inside(node: Node, tag: int) -> tuple[Node, ...]:
    if node.tag != tag:
        raise ValueError(node.tag)
    return _nodes(node.content)


def _nodes(data: bytes) -> tuple[Node, ...]:
    found, at = [], 0
    while at < len(data):
        node, at = _node(data, at, MAX_DEPTH)
        found.append(node)
    return tuple(found)


def _node(data: bytes, at: int, depth: int) -> tuple[Node, int]:
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
        _, at = _node(data, at, depth - 1)
    return at
