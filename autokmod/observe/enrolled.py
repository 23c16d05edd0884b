"""Signatures by keys that the owner of the machine or its firmware trusts: kernels do, too, under Secure Boot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from autokmod.model import ModuleFacts, Signature
from autokmod.observe.trust import judge_signature


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
    return judge_signature(module, partial(find_verifier, b"".join(certificates)))
