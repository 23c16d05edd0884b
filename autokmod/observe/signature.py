"""The signature behind a module: is it there, and is its shape such that a loader could verify it?

Whether the key is known and the digest right, only the kernel can say. The rules are mod_check_sig()'s
(kernel/module_signature.c) and the PKCS#7 parser's (crypto/asymmetric_keys/pkcs7.asn1): what they call EBADMSG is
refused always, also where unsigned modules load.

    module … | PKCS#7 | algo hash id_type signer_len key_id_len 0 0 0 sig_len(be32) | ~Module signature appended~\\n
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from autokmod.model import Signature

MARKER = b"~Module signature appended~\n"
TRAILER = struct.Struct(">BBBBB3sI")
PKCS7 = 2
MAX_SIZE, MAX_DEPTH = 64 << 10, 16  # a real one has some 700 bytes and ten levels
SIGNED_DATA = bytes.fromhex("2a864886f70d010702")  # 1.2.840.113549.1.7.2
INTEGER, OCTETS, OID, SEQUENCE, SET, FIRST, SECOND = 0x02, 0x04, 0x06, 0x30, 0x31, 0xA0, 0xA1
CONSTRUCTED, INDEFINITE = 0x20, 0x80


class Node(NamedTuple):
    tag: int
    content: bytes
    children: tuple[Node, ...]

    @property
    def tags(self) -> tuple[int, ...]:
        return tuple(child.tag for child in self.children)


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
        root, end = _node(data, 0, len(data), MAX_DEPTH) if len(data) <= MAX_SIZE else (None, 0)
    except ValueError:
        return False
    if root is None or end != len(data) or root.tag != SEQUENCE or root.tags != (OID, FIRST):
        return False
    kind, wrapper = root.children
    return kind.content == SIGNED_DATA and wrapper.tags == (SEQUENCE,) and _is_content(wrapper.children[0])


def _is_content(signed: Node) -> bool:
    without_certificates = tuple(t for t in signed.tags if t not in (FIRST, SECOND))
    if without_certificates != (INTEGER, SET, SEQUENCE, SET):
        return False
    version, _, content, *_, signers = signed.children
    return version.content in (b"\1", b"\3") and content.tags == (OID,) and all(map(_is_signer, signers.children))


def _is_signer(signer: Node) -> bool:
    return signer.tag == SEQUENCE and signer.tags[:1] == (INTEGER,) and len(signer.tags) >= 5 and OCTETS in signer.tags


# ---- ASN.1


def _node(data: bytes, at: int, stop: int, depth: int) -> tuple[Node, int]:
    """One element before `stop`, and where the next begins. Raises ValueError."""
    if depth == 0 or at + 2 > stop or data[at] & 0x1F == 0x1F:
        raise ValueError(at)
    tag, length, start = data[at], data[at + 1], at + 2
    if length == INDEFINITE:
        if not tag & CONSTRUCTED:
            raise ValueError(at)
        children, end = _until_end_mark(data, start, stop, depth)
        return Node(tag, b"", children), end
    if length > INDEFINITE:
        width = length - INDEFINITE
        start += width
        length = int.from_bytes(data[start - width : start], "big")
    end = start + length
    if end > stop:
        raise ValueError(at)
    return Node(tag, data[start:end], _all(data, start, end, depth) if tag & CONSTRUCTED else ()), end


def _all(data: bytes, at: int, stop: int, depth: int) -> tuple[Node, ...]:
    found = []
    while at < stop:
        node, at = _node(data, at, stop, depth - 1)
        found.append(node)
    return tuple(found)


def _until_end_mark(data: bytes, at: int, stop: int, depth: int) -> tuple[tuple[Node, ...], int]:
    found = []
    while data[at : at + 2] != b"\0\0":
        node, at = _node(data, at, stop, depth - 1)
        found.append(node)
    return tuple(found), at + 2
