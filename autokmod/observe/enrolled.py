"""Signatures by keys that the owner of the machine or its firmware trusts: kernels do, too, under Secure Boot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autokmod.model import ModuleFacts, Signature
from autokmod.observe.blob import read_blob
from autokmod.observe.signature import only_signer, read_signature


def judge_by_enrolled(module: ModuleFacts, certificates: Sequence[bytes]) -> ModuleFacts:
    """With what is found out about its signature; nothing, where the library for that is not installed.

    `certificates` in DER. Raises FormatError, OSError where the module cannot be read again.
    """
    if module.signature is not Signature.PRESENT or not certificates:
        return module
    try:
        from autokmod.observe.imagekeys import find_verifier  # slow to import, and seldom asked
    except ImportError:
        return module
    data = read_blob(module.path)
    signer = only_signer(data)
    holds = find_verifier(b"".join(certificates), signer) if signer is not None else None
    if signer is None or holds is None:
        return module
    is_true = holds(data[: read_signature(data)[1]], signer)
    return replace(module, signature=Signature.VERIFIED if is_true else Signature.DAMAGED)
