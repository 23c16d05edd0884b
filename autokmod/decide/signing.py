"""Which modules are signed, with which key, and whether a kernel will trust it.

A module that its kernel would refuse for want of a signature is never placed without one: the package is blocked.
Where signatures are not enforced, a key that is there is used all the same, as DKMS does: the kernel then is not
tainted for it, and Secure Boot may be switched on one day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autokmod.config import SignConfig
from autokmod.decide.trust import CONFIGURED, CREATE
from autokmod.model import Reason, SignedBy
from autokmod.observe.enforcement import BootFacts
from autokmod.observe.keys import SigningKey
from autokmod.observe.secureboot import Firmware, SecureBoot

# Lockdown by Secure Boot is no part of Linux itself: distributions patch it in, under these names.
# The last is Linux' own: integrity policy of the architecture, which switches enforcement on (security/integrity/ima).
BY_SECURE_BOOT = ("CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT", "CONFIG_EFI_SECURE_BOOT_LOCK_DOWN", "CONFIG_IMA_ARCH_POLICY")
# kernel/params.c on booleans, security/lockdown/lockdown.c
ENFORCING = re.compile(r"module[._-]sig[_-]enforce(?:=(?:[yY1tT].*|[oO][nN].*))?")
LOCKING = re.compile(r"lockdown=(?:integrity|confidentiality)")
LOCKDOWNS = ("INTEGRITY", "CONFIDENTIALITY")
MAY_ENROLL = (SecureBoot.ON, SecureBoot.UNKNOWN)
NAME_ONE = "set sign.key and sign.cert to a key that this kernel knows"  # no list of enrolled keys is asked
DEFAULT_DIGEST = "sha256"


@dataclass(frozen=True, slots=True)
class Signing:
    """What is done about signatures in one kernel. `key` None: modules are placed as they are, unless `problem`."""

    key: SigningKey | None = None
    signed_by: SignedBy | None = None
    enforced: Reason | None = None  # why this kernel loads only signed modules
    problem: Reason | None = None  # why nothing may be placed
    unsigned: Reason | None = None  # why modules are placed without a signature


def find_enforcement(krel: str, config: Mapping[str, str], boot: BootFacts, firmware: Firmware) -> Reason | None:
    """Why this kernel loads only signed modules. Without a readable configuration it is taken for one that could."""
    if config and config.get("CONFIG_MODULE_SIG") != "y":
        return None
    options = boot.options | set(config.get("CONFIG_CMDLINE", "").strip('"').split())
    found = [
        ("sig-force", _set(config, "CONFIG_MODULE_SIG_FORCE")),
        ("lockdown-forced", _set(config, *(f"CONFIG_LOCK_DOWN_KERNEL_FORCE_{o}" for o in LOCKDOWNS))),
        ("secure-boot", "Secure Boot is on" if _is_locked_by(firmware, config) else ""),
        ("boot-option", _option(options)),
        ("enforces-now", "it is running, and does so" if boot.is_running and boot.enforces_now else ""),
        ("locked-down", "the running kernel is locked down" if boot.locked_down else ""),
    ]
    return next((Reason(kind, f"{krel} loads only signed modules ({why})") for kind, why in found if why), None)


def _set(config: Mapping[str, str], *options: str) -> str:
    return next((option for option in options if config.get(option) == "y"), "")


def _is_locked_by(firmware: Firmware, config: Mapping[str, str]) -> bool:
    return firmware.secure_boot is SecureBoot.ON and _set(config, *BY_SECURE_BOOT) != ""


def _option(options: Iterable[str]) -> str:
    found = sorted(o for o in options if ENFORCING.fullmatch(o) or LOCKING.fullmatch(o))
    return f"booted with {found[0]}" if found else ""


# ---- with which key ------------------------------------------------------------------------------


def decide_signing(
    sign: SignConfig,
    keys: Sequence[SigningKey],
    config: Mapping[str, str],
    enforced: Reason | None,
    firmware: Firmware,
    tool_problem: Reason | None = None,
) -> Signing:
    """`keys` in order of preference. `tool_problem`: what signs is not installed."""
    if config and config.get("CONFIG_MODULE_SIG") != "y":
        return Signing(unsigned=Reason("no-module-sig", "its kernel does not look at signatures (CONFIG_MODULE_SIG)"))
    if sign.mode == "never":
        off = Reason("signing-off", "signing is switched off (sign.mode)")
        return _unsigned(enforced, off, 'set sign.mode = "auto"')
    key = choose_key(keys, firmware)
    if key is None:
        return _without_key(keys, enforced, CREATE if firmware.secure_boot in MAY_ENROLL else NAME_ONE)
    if tool_problem is not None:
        return _unsigned(enforced, tool_problem, tool_problem.hint or "", asked=key.origin == CONFIGURED)
    digest = config.get("CONFIG_MODULE_SIG_HASH", "").strip('"') or DEFAULT_DIGEST
    return Signing(key, key.signed_by(digest), enforced)


def choose_key(keys: Sequence[SigningKey], firmware: Firmware) -> SigningKey | None:
    """The first that can be used; under Secure Boot, one that is enrolled before one that is not."""
    usable = [k for k in keys if k.problem is None and k.certificate is not None]
    if firmware.secure_boot is SecureBoot.ON:
        usable.sort(key=lambda k: k.certificate is not None and k.certificate.fingerprint not in firmware.enrolled)
    return usable[0] if usable else None


def _without_key(keys: Sequence[SigningKey], enforced: Reason | None, hint: str) -> Signing:
    broken = next((k.problem for k in keys if k.problem is not None), None)
    if broken is None:
        return _unsigned(enforced, Reason("no-signing-key", "there is no signing key"), hint)
    return _unsigned(enforced, broken, broken.hint or hint, asked=any(k.origin == CONFIGURED for k in keys))


def _unsigned(enforced: Reason | None, why: Reason, hint: str, *, asked: bool = False) -> Signing:
    """`asked`: the administrator named a key, and that is not silently left out."""
    if enforced is None and not asked:
        return Signing(unsigned=why)
    text = f"{enforced.text}; {why.text}" if enforced is not None else why.text
    return Signing(enforced=enforced, problem=Reason(why.kind, text, hint=hint))


# ---- what stands ---------------------------------------------------------------------------------


def fits_signing(signing: Signing | None, signed_by: SignedBy | None) -> bool:
    """May modules that carry this signature stand in that kernel, or are they to be signed anew?

    A kernel that enforces nothing takes what another hash was signed of: a link to it saves a copy.
    """
    if signing is None or signing.signed_by is None:
        return True
    wanted = signing.signed_by
    if signed_by is None or signed_by.fingerprint != wanted.fingerprint:
        return False
    return signing.enforced is None or signed_by.digest == wanted.digest
