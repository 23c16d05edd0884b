"""What the firmware says of Secure Boot and of enrolled certificates, for every user, without any tool.

    SecureBoot, SetupMode    one byte each: enabled, and nobody may change the keys unasked
    MokSBStateRT             1: the owner switched shim's validation off, and kernels take that for Secure Boot off
    MokListRT, db            signature lists of what the owner enrolled (MOK) and of what the firmware trusts
    MokListXRT, dbx          signature lists of what was withdrawn
    MokNew                   what was asked to be enrolled, and is confirmed at the next boot in shim's MokManager

An EFI variable begins with four bytes of attributes. Where efivarfs is not mounted, the kernel (5.10) has shim's
lists in mok-variables/, without them. Large lists are split: MokListRT, MokListRT1, …
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autokmod.observe.certificate import fingerprint
from autokmod.paths import Paths

GLOBAL, SECURITY, SHIM = (
    "8be4df61-93ca-11d2-aa0d-00e098032b8c",
    "d719b2cb-3d96-4596-a3bc-dad00e67656f",
    "605dab50-e046-4300-abb6-3dd810dd8b23",
)
X509 = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")  # EFI_CERT_X509_GUID, as it lies in memory
LIST = struct.Struct("<16sIII")  # type, size of the list, of its header, of one signature
OWNER = 16  # bytes before each signature
ATTRIBUTES = 4
SIZE_LIMIT = 1 << 20
KEY = re.compile(r" asymmetri .*: ([0-9a-f]{8,}): X509\.")  # of /proc/keys


class SecureBoot(StrEnum):
    ON = "on"
    OFF = "off"
    NO_EFI = "no-efi"
    UNKNOWN = "unknown"  # another root's machine, or its firmware cannot be looked at


@dataclass(frozen=True, slots=True)
class Firmware:
    """Certificates by their fingerprints."""

    secure_boot: SecureBoot = SecureBoot.UNKNOWN
    enrolled: frozenset[str] = frozenset()
    requested: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    known_ids: frozenset[str] = frozenset()  # key identifiers of what the running kernel has in its keyrings


def read_firmware(paths: Paths) -> Firmware:
    efi = paths.at("sys/firmware/efi")
    ids = _running_keys(paths.at("proc/keys"))
    if not efi.is_dir():
        state = SecureBoot.NO_EFI if paths.at("sys/kernel").is_dir() else SecureBoot.UNKNOWN
        return Firmware(state, known_ids=ids)
    return Firmware(
        secure_boot=_secure_boot(efi),
        enrolled=_fingerprints(efi, "MokListRT", "db"),
        requested=_fingerprints(efi, "MokNew"),
        revoked=_fingerprints(efi, "MokListXRT", "dbx"),
        known_ids=ids,
    )


def _secure_boot(efi: Path) -> SecureBoot:
    enabled = _variable(efi, "SecureBoot", GLOBAL)
    if enabled is None:
        return SecureBoot.UNKNOWN
    is_setup = _variable(efi, "SetupMode", GLOBAL) == b"\1"
    is_ignored = _variable(efi, "MokSBStateRT", SHIM) == b"\1"
    return SecureBoot.ON if enabled == b"\1" and not is_setup and not is_ignored else SecureBoot.OFF


def read_enrolled(paths: Paths) -> tuple[bytes, ...]:
    """The certificates themselves, in DER, that kernels take over under Secure Boot."""
    return tuple(_certificates(paths.at("sys/firmware/efi"), "MokListRT", "db"))


def _fingerprints(efi: Path, *names: str) -> frozenset[str]:
    return frozenset(fingerprint(der) for der in _certificates(efi, *names))


def _certificates(efi: Path, *names: str) -> Iterator[bytes]:
    lists = (data for name in names for data in _lists(efi, name))
    return (der for data in lists for der in parse_signature_lists(data))


def _lists(efi: Path, name: str) -> Iterator[bytes]:
    if name in ("db", "dbx"):
        yield _variable(efi, name, SECURITY) or b""
        return
    for number in ("", *map(str, range(1, 100))):
        data = _variable(efi, f"{name}{number}", SHIM)
        data = _read(efi / "mok-variables" / f"{name}{number}") if data is None else data
        if data is None:
            return
        yield data


def _variable(efi: Path, name: str, vendor: str) -> bytes | None:
    data = _read(efi / "efivars" / f"{name}-{vendor}")
    return data[ATTRIBUTES:] if data is not None else None


def _read(path: Path) -> bytes | None:
    """None where it is not there, or not for this user."""
    try:
        with open(path, "rb") as f:
            return f.read(SIZE_LIMIT)
    except OSError:
        return None


def parse_signature_lists(data: bytes) -> Iterator[bytes]:
    """The X.509 certificates in EFI_SIGNATURE_LISTs (UEFI 2.10, 32.4.1). What is cut off ends it."""
    at = 0
    while at + LIST.size <= len(data):
        kind, size, header, each = LIST.unpack_from(data, at)
        if size < LIST.size or at + size > len(data):
            return
        if kind == X509 and each > OWNER:
            for start in range(at + LIST.size + header, at + size - each + 1, each):
                yield data[start + OWNER : start + each]
        at += size


def _running_keys(keys: Path) -> frozenset[str]:
    try:
        text = os.fsdecode(keys.read_bytes())
    except OSError:
        return frozenset()
    return frozenset(found[1] for line in text.splitlines() if (found := KEY.search(line)))
