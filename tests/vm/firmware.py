"""UEFI firmware (OVMF) with Secure Boot on, and in its variables whatever certificates a test wants trusted.

The variables are written into an empty store as edk2 lays it out (MdeModulePkg/Include/Guid/VariableFormat.h): what the
firmware finds there it takes for its own, and no key has to be enrolled by hand. Shim, which hands the owner's list to
the kernel, is left out: the list lies there as if it had.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from autokmod.observe.secureboot import GLOBAL, SECURITY, SHIM, X509

OVMF = Path("/usr/share/OVMF")
CODE, EMPTY = OVMF / "OVMF_CODE_4M.secboot.fd", OVMF / "OVMF_VARS_4M.fd"
STORE = UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le  # gEfiAuthenticatedVariableGuid
STORE_HEADER = 28
ENABLE = "f0a30bc7-af08-4556-99c4-001009c93a44"  # gEfiSecureBootEnableDisableGuid
KEPT, AUTHENTICATED = 0x07, 0x27  # attributes: non-volatile, boot and runtime; and by signed updates only
HEADER = struct.Struct("<HBBIQ16sIII16s")  # AUTHENTICATED_VARIABLE_HEADER
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def why_not() -> str | None:
    return None if CODE.exists() and EMPTY.exists() else "OVMF is not installed (ovmf)"


def secure_boot_options(place: Path, image: Path, owners: Sequence[bytes]) -> tuple[str, ...]:
    """QEMU's. The firmware trusts who signed `image`, and the machine's owner the certificates `owners` (MOK)."""
    variables = place / "variables"
    who = signature_list(*signers(image))
    variables.write_bytes(
        with_variables(
            EMPTY.read_bytes(),
            variable("db", SECURITY, who, AUTHENTICATED),
            variable("KEK", GLOBAL, who, AUTHENTICATED),
            variable("PK", GLOBAL, who, AUTHENTICATED),
            variable("SecureBootEnable", ENABLE, b"\1", 0x03),
            variable("MokListRT", SHIM, signature_list(*owners), KEPT),
        )
    )
    flash = "if=pflash,format=raw"
    return (
        *("-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-drive", f"{flash},unit=0,readonly=on,file={CODE}", "-drive", f"{flash},unit=1,file={variables}"),
    )


def signature_list(*certificates: bytes) -> bytes:
    """One EFI_SIGNATURE_LIST for each: they differ in size."""
    return b"".join(X509 + struct.pack("<III", 44 + len(c), 0, 16 + len(c)) + bytes(16) + c for c in certificates)


def variable(name: str, vendor: str, data: bytes, attributes: int) -> bytes:
    text = f"{name}\0".encode("utf-16-le")
    guid = UUID(vendor).bytes_le
    head = HEADER.pack(0x55AA, 0x3F, 0, attributes, 0, bytes(16), 0, len(text), len(data), guid)
    whole = head + text + data
    return whole + b"\xff" * (-len(whole) % 4)


def with_variables(store: bytes, *variables: bytes) -> bytes:
    start, content = store.index(STORE) + STORE_HEADER, b"".join(variables)
    assert set(store[start : start + len(content)]) == {0xFF}, "the store is not empty"
    return store[:start] + content + store[start + len(content) :]


def signers(image: Path) -> list[bytes]:
    """The certificates in a PE image's signatures."""
    data = image.read_bytes()
    optional = struct.unpack_from("<I", data, 0x3C)[0] + 24
    at, size = struct.unpack_from("<II", data, optional + 112 + 4 * 8)
    assert size, f"{image} is not signed"
    (length,) = struct.unpack_from("<I", data, at)
    shown = openssl(data[at + 8 : at + length], "pkcs7", "-inform", "DER", "-print_certs")
    return [openssl(pem, "x509", "-outform", "DER") for pem in PEM.findall(shown)]


def openssl(data: bytes, *args: str) -> bytes:
    return subprocess.run(("openssl", *args), input=data, check=True, capture_output=True, timeout=60).stdout
