"""Signatures behind modules, as the kernel's scripts/sign-file makes them (module_sig_check(), pkcs7_verify()).

    module | PKCS#7 | trailer | ~Module signature appended~\\n

The private key is read by one process only, which is started for one signature: openssl, without any capability but
that of reading a key which belongs to another user, without a core dump, without standard input. What is signed lies
in a file that was just written for it. Not the headers' own sign-file: it would run as root with the key in hand, and
headers may belong to whoever compiled that kernel.

PKCS#7 without attributes has no time in it, so that with RSA the same module signed twice is the same file. A key
behind a password or in a token cannot be used.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from autokmod.act.scratch import scratch
from autokmod.decide.signing import DEFAULT_DIGEST, Signing
from autokmod.errors import CommandFailed, SigningFailed, ToolMissing
from autokmod.model import Reason, Signature
from autokmod.observe.keys import SigningKey
from autokmod.observe.signature import MARKER, PKCS7, TRAILER, read_signature
from autokmod.observe.tools import install_hint
from autokmod.paths import Paths
from autokmod.run import find_tool, run

TIME_LIMIT_S = 60.0
TOOLS = ("setpriv", "prlimit", "openssl")
WORDS = (  # what openssl says → what it means here
    ("private key does not match certificate", "the certificate is not of this key"),
    ("key values mismatch", "the certificate is not of this key"),
    ("key type mismatch", "the certificate is not of this key"),
    ("pass phrase", "it is protected by a password, which nobody is there to type"),
    ("unknown option or message digest", "openssl does not know the hash that this kernel asks for"),
    ("could not open", "it is not there any more"),
    ("could not read signing key", "it is not a private key in PEM"),
    ("unable to load", "it is not a private key in PEM"),
)

Seal = Callable[[bytes], bytes]


@contextlib.contextmanager
def open_signer(paths: Paths, signing: Signing | None) -> Iterator[Seal]:
    """What makes a signed module of an unsigned one; where modules are not signed, what leaves it as it is.

    It raises SigningFailed, and OSError where nothing can be written.
    """
    key, by = (signing.key, signing.signed_by) if signing else (None, None)
    if key is None or key.certificate is None or by is None:
        yield lambda data: data
        return
    digest = by.digest
    with scratch(paths.work) as place:
        cert = place / "cert.pem"
        cert.write_bytes(key.certificate.pem)
        yield lambda data: _sign(place, key, cert, digest, data)


def try_key(paths: Paths, key: SigningKey) -> Reason | None:
    """What is wrong with it, found out by signing something. Raises OSError."""
    shown = paths.inside(key.key)
    try:
        with open_signer(paths, Signing(key, key.signed_by(DEFAULT_DIGEST))) as seal:
            seal(b"nothing that matters")
    except SigningFailed as exc:
        return Reason("key-unusable", f"the signing key {shown} cannot be used: {exc.why}", hint=exc.hint)
    return None


def _sign(place: Path, key: SigningKey, cert: Path, digest: str, data: bytes) -> bytes:
    module, target = place / "module", place / "signature"
    module.write_bytes(data)
    try:
        run(sign_cmd(key.key, cert, digest, module, target), timeout_s=TIME_LIMIT_S)
        signed = append_signature(data, target.read_bytes())
    except ToolMissing as exc:
        raise SigningFailed(key.key, f"{exc.tool} is not installed", install_hint(exc.tool)) from exc
    except CommandFailed as exc:
        raise SigningFailed(key.key, explain(exc)) from exc
    finally:
        for file in (module, target):
            file.unlink(missing_ok=True)
    if read_signature(signed) != (Signature.PRESENT, len(data)):
        raise SigningFailed(key.key, "openssl made a signature that no kernel would read")
    return signed


def sign_cmd(key: str, cert: Path, digest: str, module: Path, target: Path) -> list[str]:
    options = ["-binary", "-noattr", "-nosmimecap", "-nocerts", "-md", digest, "-outform", "DER"]
    files = ["-signer", str(cert), "-inkey", key, "-in", str(module), "-out", str(target)]
    return [*alone_cmd(), find_tool("openssl"), "cms", "-sign", *options, *files]


def alone_cmd() -> list[str]:
    """For who is to read a private key, and nothing else."""
    bounds = ["--bounding-set=-all,+dac_read_search"] if os.geteuid() == 0 else []
    return ["setpriv", *bounds, "--inh-caps=-all", "--no-new-privs", "prlimit", "--core=0", "--"]


def append_signature(data: bytes, pkcs7: bytes) -> bytes:
    return data + pkcs7 + TRAILER.pack(0, 0, PKCS7, 0, 0, bytes(3), len(pkcs7)) + MARKER


def explain(failure: CommandFailed) -> str:
    said = failure.tail.lower()
    return next((meaning for words, meaning in WORDS if words in said), str(failure))
