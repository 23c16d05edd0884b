"""Certificates that a kernel has built in, and what was signed with their keys.

Apart from trust.py, because the library takes longer to import than most verdicts take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA224, SHA256, SHA384, SHA512, HashAlgorithm

from autokmod.observe.asn1 import INTEGER, node, nodes
from autokmod.observe.signature import Signer

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey
HASHES: dict[bytes, HashAlgorithm] = {
    bytes.fromhex("2b0e03021a"): SHA1(),
    bytes.fromhex("608648016503040204"): SHA224(),
    bytes.fromhex("608648016503040201"): SHA256(),
    bytes.fromhex("608648016503040202"): SHA384(),
    bytes.fromhex("608648016503040203"): SHA512(),
}
CERTIFICATE_LIMIT = 4096  # bytes
V3 = bytes.fromhex("a003020102")  # stands before the serial number
BEFORE_VERSION = 8  # the heads of two sequences with lengths of two bytes


def find_verifier(text: bytes, signer: Signer) -> Callable[[bytes, Signer], bool] | None:
    """By the certificate with the signer's issuer and serial number in `text`."""
    key = next((key for at in _places(text, signer) if (key := _key_at(text, at, signer)) is not None), None)
    return partial(is_signed_by, key) if key is not None else None


def _places(text: bytes, signer: Signer) -> Iterator[int]:
    mark = V3 + bytes((INTEGER, len(signer.serial))) + signer.serial
    at = text.find(mark, BEFORE_VERSION)
    while at >= 0:
        yield at - BEFORE_VERSION
        at = text.find(mark, at + 1)


def _key_at(text: bytes, start: int, signer: Signer) -> PublicKey | None:
    window = text[start : start + CERTIFICATE_LIMIT]
    try:
        _, end = node(window, 0)
        certificate = x509.load_der_x509_certificate(window[:end])
        (issuer,) = nodes(certificate.issuer.public_bytes())
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if issuer.content == signer.issuer and isinstance(key, RSAPublicKey | EllipticCurvePublicKey) else None


def is_signed_by(key: PublicKey, content: bytes, signer: Signer) -> bool:
    algorithm = HASHES.get(signer.digest)
    try:
        if algorithm is None:
            return False
        if isinstance(key, RSAPublicKey):
            key.verify(signer.signature, content, PKCS1v15(), algorithm)
        else:
            key.verify(signer.signature, content, ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True
