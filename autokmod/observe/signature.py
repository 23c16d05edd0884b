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
from autokmod.observe.asn1 import INTEGER, OCTETS, OID, SEQUENCE, SET, Node, inside, nodes, several

MARKER = b"~Module signature appended~\n"
TRAILER = struct.Struct(">BBBBB3sI")
PKCS7 = 2
MAX_SIZE = 64 << 10  # a real one has some 700 bytes
SIGNED_DATA = bytes.fromhex("2a864886f70d010702")  # 1.2.840.113549.1.7.2
DATA = bytes.fromhex("2a864886f70d010701")
KEY_ID = 0x80
CERTIFICATES, REVOKED = (0xA0, 0xA2), (0xA1, 0xA3)  # each as a set or as a sequence
SIGNED, UNSIGNED = (0xA0, 0xA2), (0xA1, 0xA3)  # attributes of a signer


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


class Signer(NamedTuple):
    """Who signed, and what came out, of one signer without attributes of his own: as scripts/sign-file makes them."""

    issuer: bytes  # the contents of the DER elements
    serial: bytes
    digest: bytes  # the algorithm's object identifier
    signature: bytes

    @property
    def name(self) -> tuple[bytes, bytes]:
        return self.issuer, self.serial


def only_signer(data: bytes) -> Signer | None:
    """Of a module whose signature is whole."""
    state, size = read_signature(data)
    if state is not Signature.PRESENT:
        return None
    (root,) = nodes(data[size : -len(MARKER) - TRAILER.size])
    *_, signers = inside(inside(inside(root, SEQUENCE)[1], 0xA0)[0], SEQUENCE)
    if len(several(signers)) != 1:
        return None
    _, who, digest, *rest = inside(several(signers)[0], SEQUENCE)
    if who.tag == KEY_ID or len(rest) != 2:
        return None
    issuer, serial = inside(who, SEQUENCE)
    return Signer(issuer.content, serial.content, inside(digest, SEQUENCE)[0].content, rest[1].content)


def is_signed_data(data: bytes) -> bool:
    """PKCS#7 SignedData with a detached content and whole signer infos, from the first byte to the last."""
    try:
        return len(data) <= MAX_SIZE and _is_message(data)
    except ValueError:
        return False


# ---- the grammar. Every function here may raise ValueError, which means no.


def _is_message(data: bytes) -> bool:
    (root,) = nodes(data)
    kind, wrapper = inside(root, SEQUENCE)
    (signed,) = inside(wrapper, 0xA0)
    version, algorithms, content, *more, signers = inside(signed, SEQUENCE)
    right = kind == (OID, SIGNED_DATA) and inside(content, SEQUENCE) == ((OID, DATA),)
    right = right and _in_order([n.tag for n in more], CERTIFICATES, REVOKED) and _number(version) in (1, 3)
    return (
        right
        and all(map(_is_algorithm, several(algorithms)))
        and all(_is_signer(signer, version) for signer in several(signers))
    )


def _is_signer(signer: Node, message_version: Node) -> bool:
    version, who, digest, *rest = inside(signer, SEQUENCE)
    *before, cipher, signature = rest[:-1] if rest[-1:] and rest[-1].tag in UNSIGNED else rest
    whole = signature.tag == OCTETS and _in_order([n.tag for n in before], SIGNED) and version == message_version
    return whole and _is_algorithm(digest) and _is_algorithm(cipher) and (who.tag == KEY_ID or _is_issuer(who))


def _is_issuer(who: Node) -> bool:
    name, serial = inside(who, SEQUENCE)
    pairs = (inside(pair, SEQUENCE) for part in inside(name, SEQUENCE) for pair in inside(part, SET))
    return serial.tag == INTEGER and all(len(pair) == 2 and pair[0].tag == OID for pair in pairs)


def _is_algorithm(node: Node) -> bool:
    what, *parameters = inside(node, SEQUENCE)
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
