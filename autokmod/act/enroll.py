"""Ask shim to trust a certificate: mokutil leaves the request, and a password, to MokManager at the next boot."""

from __future__ import annotations

from autokmod.act.scratch import scratch
from autokmod.errors import KeyProblem, ToolMissing
from autokmod.observe.certificate import Certificate
from autokmod.observe.secureboot import read_firmware
from autokmod.observe.tools import install_hint
from autokmod.paths import Paths
from autokmod.run import find_tool, interact


def request_enrolment(paths: Paths, certificate: Certificate) -> None:
    """On this terminal: mokutil asks for a password. Raises KeyProblem, OSError."""
    try:
        mokutil = find_tool("mokutil")
    except ToolMissing as exc:
        raise KeyProblem("mokutil is not installed", install_hint("mokutil")) from exc
    with scratch(paths.work) as place:
        file = place / "mok.der"
        file.write_bytes(certificate.der)
        code = interact([mokutil, "--import", str(file)])
    if code != 0:
        raise KeyProblem(f"mokutil ended with exit status {code}: nothing was asked for", "try it again")
    firmware = read_firmware(paths)
    if certificate.fingerprint not in firmware.requested | firmware.enrolled:
        raise KeyProblem("mokutil ended well, but the firmware has no request", "see 'mokutil --list-new'")
