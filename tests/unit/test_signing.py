"""Which modules are signed and with which key, and which kernels would refuse them all the same: by tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from autokmod.config import SignConfig
from autokmod.decide.signing import Signing, choose_key, decide_signing, find_enforcement, fits_signing
from autokmod.decide.trust import find_distrust
from autokmod.model import Reason, SignedBy
from autokmod.observe.certificate import Certificate
from autokmod.observe.enforcement import BootFacts
from autokmod.observe.keys import SigningKey
from autokmod.observe.secureboot import Firmware, SecureBoot

KREL = "6.1.0-56-amd64"
SIG = {"CONFIG_MODULE_SIG": "y", "CONFIG_MODULE_SIG_HASH": '"sha512"'}
LOCKS = SIG | {"CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT": "y"}
FORCE = SIG | {"CONFIG_MODULE_SIG_FORCE": "y"}
ON, OFF, UNKNOWN = Firmware(SecureBoot.ON), Firmware(SecureBoot.OFF), Firmware()
NO_EFI = Firmware(SecureBoot.NO_EFI)
RUNNING = BootFacts(is_running=True, enforces_now=True)


def options(*words: str) -> BootFacts:
    return BootFacts(frozenset(words))


@pytest.mark.parametrize(
    ("config", "boot", "firmware", "kind"),
    [
        (SIG, BootFacts(), OFF, None),
        (SIG, BootFacts(), ON, None),  # Arch: signatures are looked at, Secure Boot locks nothing down
        (LOCKS, BootFacts(), OFF, None),
        (LOCKS, BootFacts(), UNKNOWN, None),
        (LOCKS, BootFacts(), Firmware(SecureBoot.NO_EFI), None),
        (LOCKS, BootFacts(), ON, "secure-boot"),
        (SIG | {"CONFIG_EFI_SECURE_BOOT_LOCK_DOWN": "y"}, BootFacts(), ON, "secure-boot"),
        (SIG | {"CONFIG_IMA_ARCH_POLICY": "y"}, BootFacts(), ON, "secure-boot"),
        (FORCE, BootFacts(), OFF, "sig-force"),
        (SIG | {"CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY": "y"}, BootFacts(), OFF, "lockdown-forced"),
        (SIG | {"CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY": "y"}, BootFacts(), OFF, "lockdown-forced"),
        (SIG, options("quiet", "module.sig_enforce=1"), OFF, "boot-option"),
        (SIG, options("module.sig_enforce"), OFF, "boot-option"),
        (SIG, options("module.sig-enforce=Y"), OFF, "boot-option"),
        (SIG, options("module.sig_enforce=on"), OFF, "boot-option"),
        (SIG, options("module.sig_enforce=0"), OFF, None),
        (SIG, options("module.sig_enforce=off", "xmodule.sig_enforce=1"), OFF, None),
        (SIG, options("lockdown=integrity"), OFF, "boot-option"),
        (SIG, options("lockdown=confidentiality"), OFF, "boot-option"),
        (SIG, options("lockdown=none", "lsm=lockdown,integrity"), OFF, None),
        (SIG | {"CONFIG_CMDLINE": '"quiet module.sig_enforce=1"'}, BootFacts(), OFF, "boot-option"),
        (SIG, RUNNING, OFF, "enforces-now"),
        (SIG, replace(RUNNING, is_running=False), OFF, None),
        (SIG, BootFacts(locked_down=True), OFF, "locked-down"),
        # a kernel that does not look at signatures enforces nothing
        ({"CONFIG_MODULES": "y"}, options("module.sig_enforce=1"), ON, None),
        # of one whose configuration cannot be read, options and lockdown are believed
        ({}, options("module.sig_enforce=1"), OFF, "boot-option"),
        ({}, BootFacts(locked_down=True), OFF, "locked-down"),
    ],
)
def test_enforcement(config: Mapping[str, str], boot: BootFacts, firmware: Firmware, kind: str | None) -> None:
    found = find_enforcement(KREL, config, boot, firmware)
    assert (found.kind if found else None) == kind
    assert found is None or found.text.startswith(f"{KREL} loads only signed modules (")


# ---- with which key ----


def key(origin: str = "dkms", name: str = "one", problem: Reason | None = None) -> SigningKey:
    return SigningKey(origin, f"/{name}.key", f"/{name}.der", Certificate(name.encode(), name, "aa", "2126"), problem)


ONE, TWO = key(), key("autokmod", "two")
BROKEN = key("akmods", "broken", Reason("key-exposed", "every user can read it", hint="chmod"))
WANTED = key("configured", "mine")
WANTED_BROKEN = replace(WANTED, problem=Reason("key-missing", "/mine.key is not there", hint="mend"))
MUST = Reason("sig-force", "K loads only signed modules (CONFIG_MODULE_SIG_FORCE)")
NO_TOOL = Reason("tool-missing", "openssl is not installed", hint="'apt install openssl'")
AUTO, NEVER = SignConfig(), SignConfig(mode="never")


@pytest.mark.parametrize("enforced", [None, MUST])
@pytest.mark.parametrize(
    ("sign", "keys", "tool", "signed_with", "why"),
    [
        (AUTO, (ONE,), None, ONE, ""),
        (AUTO, (ONE, TWO), None, ONE, ""),
        (AUTO, (BROKEN, TWO), None, TWO, ""),
        (AUTO, (), None, None, "no-signing-key"),
        (AUTO, (BROKEN,), None, None, "key-exposed"),
        (AUTO, (ONE,), NO_TOOL, None, "tool-missing"),
        (AUTO, (), NO_TOOL, None, "no-signing-key"),
        (NEVER, (ONE,), None, None, "signing-off"),
    ],
)
def test_sign_or_leave_unsigned_or_block(
    sign: SignConfig,
    keys: tuple[SigningKey, ...],
    tool: Reason | None,
    signed_with: SigningKey | None,
    why: str,
    enforced: Reason | None,
) -> None:
    """Signed if that is possible; if not: unsigned where the kernel does not mind, else nothing is placed."""
    found = decide_signing(sign, keys, SIG, enforced, OFF, tool)
    assert (found.key, found.enforced) == (signed_with, enforced)
    blocked, said = (found.problem, found.unsigned) if enforced else (found.unsigned, found.problem)
    assert said is None
    assert (blocked.kind if blocked else "") == why
    if found.problem is not None:
        assert found.problem.text.startswith(MUST.text)
        assert found.problem.hint


@pytest.mark.parametrize(
    ("keys", "tool", "kind"), [((WANTED_BROKEN,), None, "key-missing"), ((WANTED,), NO_TOOL, "tool-missing")]
)
def test_a_configured_key_is_never_silently_left_out(
    keys: tuple[SigningKey, ...], tool: Reason | None, kind: str
) -> None:
    found = decide_signing(AUTO, keys, SIG, None, OFF, tool)
    assert found.problem is not None
    assert (found.problem.kind, found.key, found.enforced) == (kind, None, None)


@pytest.mark.parametrize(
    ("machine", "hint"),
    [(ON, "autokmodctl key create"), (UNKNOWN, "autokmodctl key create"), (OFF, "sign.key"), (NO_EFI, "sign.key")],
)
def test_what_helps_without_a_key(machine: Firmware, hint: str) -> None:
    """A new key can only be enrolled where the list of such keys will be asked."""
    found = decide_signing(AUTO, (), SIG, MUST, machine)
    assert found.problem is not None
    assert hint in str(found.problem.hint)


def test_the_hash_is_the_kernels() -> None:
    found = decide_signing(AUTO, (ONE,), SIG, None, OFF)
    assert found.signed_by == SignedBy(
        "one", ONE.certificate.fingerprint if ONE.certificate else "", "aa", "sha512", "dkms"
    )
    found = decide_signing(AUTO, (ONE,), {}, None, OFF)
    assert found.signed_by is not None
    assert found.signed_by.digest == "sha256"


def test_a_kernel_without_signatures_gets_none() -> None:
    found = decide_signing(AUTO, (ONE,), {"CONFIG_MODULES": "y"}, None, ON)
    assert (found.key, found.unsigned and found.unsigned.kind) == (None, "no-module-sig")


def test_under_secure_boot_an_enrolled_key_comes_first() -> None:
    assert TWO.certificate is not None
    enrolled = frozenset({TWO.certificate.fingerprint})
    assert choose_key((ONE, TWO), Firmware(SecureBoot.ON, enrolled)) is TWO
    assert choose_key((ONE, TWO), Firmware(SecureBoot.OFF, enrolled)) is ONE
    assert choose_key((ONE, TWO), ON) is ONE


# ---- what stands ----


BY_ONE = SignedBy("one", "f1", "aa", "sha256", "dkms")
BY_TWO = SignedBy("two", "f2", "bb", "sha256", "autokmod")
SAME_KEY_ELSEWHERE = replace(BY_ONE, digest="sha512", origin="configured")


@pytest.mark.parametrize(
    ("signing", "stands", "fits"),
    [
        (None, None, True),
        (None, BY_ONE, True),
        (Signing(), None, True),
        (Signing(), BY_ONE, True),  # the key is gone, and nobody asks for it: no reason to touch anything
        (Signing(ONE, BY_ONE), None, False),
        (Signing(ONE, BY_ONE), BY_ONE, True),
        (Signing(ONE, BY_ONE), BY_TWO, False),
        (Signing(ONE, BY_ONE), SAME_KEY_ELSEWHERE, True),
        (Signing(ONE, BY_ONE, MUST), None, False),
        (Signing(ONE, BY_ONE, MUST), BY_ONE, True),
        (Signing(ONE, BY_ONE, MUST), SAME_KEY_ELSEWHERE, False),  # the other hash may be a module itself
    ],
)
def test_what_is_signed_anew(signing: Signing | None, stands: SignedBy | None, *, fits: bool) -> None:
    assert fits_signing(signing, stands) is fits


def firmware(state: SecureBoot, **more: str) -> Firmware:
    return Firmware(state, **{name: frozenset({value}) for name, value in more.items()})


@pytest.mark.parametrize(
    ("signed_by", "machine", "kind"),
    [
        (BY_ONE, firmware(SecureBoot.ON, enrolled="f1"), None),
        (BY_ONE, firmware(SecureBoot.ON, enrolled="f2"), "key-not-enrolled"),
        (BY_ONE, firmware(SecureBoot.ON), "key-not-enrolled"),
        (BY_ONE, firmware(SecureBoot.ON, requested="f1"), "key-requested"),
        (BY_ONE, firmware(SecureBoot.ON, enrolled="f1", requested="f1"), None),
        (BY_ONE, firmware(SecureBoot.ON, enrolled="f1", revoked="f1"), "key-revoked"),
        (BY_ONE, firmware(SecureBoot.ON, known_ids="aa"), None),
        (SAME_KEY_ELSEWHERE, firmware(SecureBoot.ON), "key-not-enrolled"),
        # without Secure Boot the list of enrolled keys is not taken over
        (BY_ONE, firmware(SecureBoot.OFF, enrolled="f1"), "key-not-trusted"),
        (BY_ONE, firmware(SecureBoot.OFF, requested="f1"), "key-not-trusted"),
        (BY_ONE, firmware(SecureBoot.NO_EFI), "key-not-trusted"),
        (BY_ONE, firmware(SecureBoot.NO_EFI, known_ids="aa"), None),
        (SAME_KEY_ELSEWHERE, firmware(SecureBoot.OFF), None),  # the administrator named it
        (BY_ONE, firmware(SecureBoot.UNKNOWN), None),
        (replace(BY_ONE, key_id=""), firmware(SecureBoot.NO_EFI, known_ids=""), "key-not-trusted"),
    ],
)
def test_signed_and_yet_refused(signed_by: SignedBy, machine: Firmware, kind: str | None) -> None:
    found = find_distrust(KREL, MUST, signed_by, machine)
    assert (found.kind if found else None) == kind
    assert found is None or (found.hint and found.text.startswith('signed with "one", '))
