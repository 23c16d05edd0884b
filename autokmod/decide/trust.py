"""Will a kernel that loads only signed modules know the key that they are signed with?

Owners' keys (MOK) count under Secure Boot alone: without it kernels do not take over the list
(security/integrity/platform_certs/load_uefi.c). Which keys a kernel has built in is only seen when it runs.
"""

from __future__ import annotations

from autokmod.model import Reason, SignedBy
from autokmod.observe.secureboot import Firmware, SecureBoot

CONFIGURED = "configured"  # SignedBy.origin of a key that the administrator named
CREATE = "autokmodctl key create, then autokmodctl key enroll"
ENROLL = "autokmodctl key enroll"


def find_distrust(krel: str, enforced: Reason, signed_by: SignedBy, firmware: Firmware) -> Reason | None:
    """Signed, and yet it may be refused; a sentence without its subject. None where nothing speaks against it.

    Of another root's machine nothing is known, and of a key that the administrator named its trust is believed.
    """
    name = f'signed with "{signed_by.name}"'
    if signed_by.fingerprint in firmware.revoked:
        return Reason("key-revoked", f"{name}, which this machine's firmware withdrew", hint=CREATE)
    if signed_by.key_id and signed_by.key_id in firmware.known_ids:
        return None
    if firmware.secure_boot is SecureBoot.ON:
        return _not_enrolled(name, enforced, signed_by, firmware)
    if firmware.secure_boot is SecureBoot.UNKNOWN or signed_by.origin == CONFIGURED:
        return None
    text = f"{name}, and without Secure Boot {krel} asks no list of enrolled keys: {enforced.text}"
    return Reason("key-not-trusted", text, hint="switch Secure Boot on; or name a key that it has built in: sign.key")


def _not_enrolled(name: str, enforced: Reason, signed_by: SignedBy, firmware: Firmware) -> Reason | None:
    if signed_by.fingerprint in firmware.enrolled:
        return None
    if signed_by.fingerprint in firmware.requested:
        text = f"{name}, whose enrolment is to be confirmed at the next boot"
        return Reason("key-requested", text, hint='reboot, and choose "Enroll MOK" on the blue screen')
    return Reason("key-not-enrolled", f"{name}, which is not enrolled: {enforced.text}", hint=ENROLL)
