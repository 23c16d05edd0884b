"""The signature behind a module: is it there, and is its shape such that a loader could verify it?

Whether the key is known and the digest right, only the kernel can say. The rules are mod_check_sig()'s
(kernel/module_signature.c): a shape that it calls EBADMSG is refused always, also where unsigned modules load.

    module … | PKCS#7 | algo hash id_type signer_len key_id_len 0 0 0 sig_len(be32) | ~Module signature appended~\\n
"""

from __future__ import annotations

import struct

from autokmod.model import Signature

MARKER = b"~Module signature appended~\n"
TRAILER = struct.Struct(">BBBBB3sI")
PKCS7 = 2


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
    if id_type != PKCS7:  # ENOPKG: to the loader, as good as unsigned
        return Signature.NONE, start
    if algo or digest or signer or key_id or pad != b"\0\0\0" or not _is_der_sequence(data[start:end]):
        return Signature.DAMAGED, start
    return Signature.PRESENT, start


def _is_der_sequence(data: bytes) -> bool:
    """One ASN.1 SEQUENCE from the first byte to the last."""
    if len(data) < 2 or data[0] != 0x30:
        return False
    if data[1] < 0x80:
        return 2 + data[1] == len(data)
    if data[1] == 0x80:  # BER's indefinite length, which the kernel reads too
        return data.endswith(b"\0\0")
    width = data[1] & 0x7F
    return 2 + width + int.from_bytes(data[2 : 2 + width], "big") == len(data)
