"""An X.509 certificate (RFC 5280), as far as it matters whose signature a module carries.

Nothing is verified here: the kernel and the firmware trust certificates by their very bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from autokmod.errors import FormatError
from autokmod.observe.asn1 import OCTETS, OID, SEQUENCE, SET, Node, inside, nodes

LIMIT = 64 << 10  # bytes
PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)-----END", re.DOTALL)
VERSION, EXTENSIONS = 0xA0, 0xA3  # optional fields, by their tags
UTC_TIME = 0x17
COMMON_NAME = bytes.fromhex("550403")
KEY_ID = bytes.fromhex("551d0e")  # subjectKeyIdentifier


@dataclass(frozen=True, slots=True)
class Certificate:
    der: bytes
    name: str  # the subject's common name; the issuer's serial number where it has none
    key_id: str  # subject key identifier, hex; "" where it has none
    not_after: str  # YYYY-MM-DD

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.der)

    @property
    def pem(self) -> bytes:
        return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(self.der) + b"-----END CERTIFICATE-----\n"


def fingerprint(der: bytes) -> str:
    """Hex sha256 of the whole certificate: what tools print, without colons."""
    return hashlib.sha256(der).hexdigest()


def parse_certificate(data: bytes, path: str) -> Certificate:
    """From DER or PEM. Raises FormatError."""
    try:
        return _parse(_der(data))
    except (ValueError, binascii.Error) as exc:
        raise FormatError(path, "not an X.509 certificate in DER or PEM") from exc


def _der(data: bytes) -> bytes:
    found = PEM.search(data)
    return base64.b64decode(found[1]) if found else data


def _parse(der: bytes) -> Certificate:
    (certificate,) = nodes(der)
    body, *_ = inside(certificate, SEQUENCE)
    fields = [field for field in inside(body, SEQUENCE) if field.tag != VERSION]
    serial, _, _, validity, subject, *more = fields
    name = next(_values(subject, COMMON_NAME), f"serial number {serial.content.hex()}")
    return Certificate(der, name, next(_key_ids(more), ""), _date(inside(validity, SEQUENCE)[1]))


def _values(name: Node, wanted: bytes) -> Iterator[str]:
    for part in inside(name, SEQUENCE):
        for pair in inside(part, SET):
            kind, value = inside(pair, SEQUENCE)
            if kind == (OID, wanted):
                yield value.content.decode("utf-8", "replace")


def _key_ids(fields: list[Node]) -> Iterator[str]:
    for field in fields:
        for extension in inside(inside(field, EXTENSIONS)[0], SEQUENCE) if field.tag == EXTENSIONS else ():
            kind, *_, value = inside(extension, SEQUENCE)
            if kind == (OID, KEY_ID):
                yield inside(Node(SEQUENCE, value.content), SEQUENCE)[0].content.hex() if value.tag == OCTETS else ""


def _date(time: Node) -> str:
    """UTCTime has two digits of the year: from 50 on they are of the century before (4.1.2.5.1)."""
    text = time.content.decode("ascii")
    if time.tag == UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}"
