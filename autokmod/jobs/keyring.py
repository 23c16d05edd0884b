"""Which keys modules are signed with, what the firmware trusts, and what each kernel makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from autokmod.act.sign import TOOLS
from autokmod.config import Config
from autokmod.decide.signing import Signing, choose_key, decide_signing, find_enforcement
from autokmod.decide.trust import find_distrust
from autokmod.jsonvalue import to_json
from autokmod.model import KernelState, Reason
from autokmod.observe.abi import read_config
from autokmod.observe.enforcement import read_boot_facts
from autokmod.observe.kernels import find_kernels
from autokmod.observe.keys import SigningKey
from autokmod.observe.secureboot import Firmware, SecureBoot, read_firmware
from autokmod.observe.tools import tool_problem
from autokmod.paths import Paths


@dataclass(frozen=True, slots=True)
class KernelView:
    krel: str
    signing: Signing
    distrust: Reason | None  # signed, and yet it would be refused

    @property
    def is_fine(self) -> bool:
        return self.signing.problem is None and self.distrust is None


@dataclass(frozen=True, slots=True)
class KeyView:
    key: SigningKey
    used: bool
    enrolment: str


@dataclass(frozen=True, slots=True)
class Keyring:
    firmware: Firmware
    keys: tuple[KeyView, ...]
    kernels: tuple[KernelView, ...]


def read_keyring(paths: Paths, config: Config, keys: Sequence[SigningKey]) -> Keyring:
    firmware = read_firmware(paths)
    chosen = choose_key(keys, firmware) if config.sign.mode != "never" else None
    views = tuple(KeyView(k, k is chosen, enrolment(k, firmware)) for k in keys)
    return Keyring(firmware, views, tuple(_kernels(paths, config, keys, firmware)))


def enrolment(key: SigningKey, firmware: Firmware) -> str:
    """Of its certificate, in the firmware's lists."""
    print_ = key.certificate.fingerprint if key.certificate is not None else ""
    found = (
        ("withdrawn", firmware.revoked),
        ("enrolled", firmware.enrolled),
        ("requested", firmware.requested),
    )
    if firmware.secure_boot in (SecureBoot.NO_EFI, SecureBoot.UNKNOWN) or key.certificate is None:
        return "-"
    return next((word for word, those in found if print_ in those), "not enrolled")


def _kernels(paths: Paths, config: Config, keys: Sequence[SigningKey], firmware: Firmware) -> Iterator[KernelView]:
    missing = tool_problem(*TOOLS)
    for kernel in find_kernels(paths):
        if kernel.state in (KernelState.HEADERS_ONLY, KernelState.INCOMPLETE):
            continue
        options = read_config(paths, kernel) or {}
        enforced = find_enforcement(kernel.krel, options, read_boot_facts(paths, kernel.krel), firmware)
        signing = decide_signing(config.sign, keys, options, enforced, firmware, missing)
        by = signing.signed_by
        distrust = find_distrust(kernel.krel, enforced, by, firmware) if enforced and by else None
        yield KernelView(kernel.krel, signing, distrust)


def keyring_to_json(paths: Paths, keyring: Keyring) -> dict[str, Any]:
    return {
        "secure_boot": str(keyring.firmware.secure_boot),
        "keys": [key_to_json(paths, view) for view in keyring.keys],
        "kernels": [
            {
                "krel": k.krel,
                "enforced": to_json(k.signing.enforced),
                "signed_by": to_json(k.signing.signed_by),
                "unsigned": to_json(k.signing.unsigned),
                "problem": to_json(k.signing.problem or k.distrust),
            }
            for k in keyring.kernels
        ],
    }


def key_to_json(paths: Paths, view: KeyView) -> dict[str, Any]:
    key, certificate = view.key, view.key.certificate
    return {
        "origin": key.origin,
        "key": shown(paths, key.key),
        "certificate": shown(paths, key.cert),
        "used": view.used,
        "enrolment": view.enrolment,
        "name": certificate.name if certificate else None,
        "fingerprint": certificate.fingerprint if certificate else None,
        "not_after": certificate.not_after if certificate else None,
        "problem": to_json(key.problem),
    }


def shown(paths: Paths, path: str) -> str | None:
    """As a program inside the root would name it; None for what the configuration leaves out."""
    return paths.inside(path) if path else None
