"""Signatures by the key that signed a kernel's own modules: that one the kernel has built in, so it can be tried here.

A signature by a known key that does not hold is refused whatever the policy, one by an unknown key only where
signatures are enforced. What the firmware and the owner of the machine enrolled is not looked at.

The boot protocol (Documentation/arch/x86/boot.rst) says where in a bzImage the compressed kernel lies. The certificates
lie in it as plain DER (certs/system_certificates.S).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from autokmod.errors import FormatError
from autokmod.model import ModuleFacts, Signature
from autokmod.observe import lz4legacy
from autokmod.observe.blob import LIMIT, decompress, read_blob, read_bounded
from autokmod.observe.signature import Signer, only_signer, read_signature

Verifier: TypeAlias = Callable[[bytes, Signer], bool]  # whether the signer signed these bytes
IMAGE_LIMIT = 64 << 20
BZIMAGE, BZIMAGE_AT, SETUP_SECTORS_AT, PAYLOAD_AT = b"HdrS", 0x202, 0x1F1, 0x248


@dataclass
class OwnKey:
    """What signed the modules of one kernel."""

    image: str | None  # host paths
    reference: str | None  # one of its modules

    @cached_property
    def signer(self) -> Signer | None:
        try:
            return only_signer(read_blob(self.reference)) if self.reference else None
        except (FormatError, OSError):
            return None

    @cached_property
    def _holds(self) -> Verifier | None:
        """None where image, certificate or library are not there: then nothing is known of a signature's truth."""
        if self.image is None or self.signer is None:
            return None
        try:
            from autokmod.observe.imagekeys import find_verifier  # slow to import, and seldom asked

            return find_verifier(kernel_text(self.image), self.signer)
        except (FormatError, OSError, ImportError):
            return None

    def judge(self, module: ModuleFacts) -> ModuleFacts:
        """With what is found out about its signature. Raises FormatError, OSError where it cannot be read again."""
        return judge_signature(module, self._verifier) if self.signer is not None else module

    def _verifier(self, signer: Signer) -> Verifier | None:
        return self._holds if self.signer is not None and signer.name == self.signer.name else None


def judge_signature(module: ModuleFacts, find: Callable[[Signer], Verifier | None]) -> ModuleFacts:
    """`find`: None where a signer's key is not known, which leaves the signature as it is.

    Raises FormatError, OSError where the module cannot be read again.
    """
    if module.signature is not Signature.PRESENT:
        return module
    data = read_blob(module.path)
    signer = only_signer(data)
    holds = find(signer) if signer is not None else None
    if signer is None or holds is None:
        return module
    is_true = holds(data[: read_signature(data)[1]], signer)
    return replace(module, signature=Signature.VERIFIED if is_true else Signature.DAMAGED)


def kernel_text(image: str) -> bytes:
    """The kernel itself. Raises FormatError, OSError."""
    data = read_bounded(image, limit=IMAGE_LIMIT)
    if data[BZIMAGE_AT : BZIMAGE_AT + len(BZIMAGE)] != BZIMAGE or len(data) < PAYLOAD_AT + 8:
        return decompress(data, image)
    offset, size = struct.unpack_from("<II", data, PAYLOAD_AT)
    start = (data[SETUP_SECTORS_AT] + 1) * 512 + offset
    payload = data[start : start + size]
    # The build appends the size to streams that do not end with it themselves.
    stream = payload if payload.startswith(b"\x1f\x8b") else payload[:-4]
    if stream.startswith(lz4legacy.MAGIC):
        return lz4legacy.unpack(stream, image, limit=LIMIT)
    return decompress(stream, image)
