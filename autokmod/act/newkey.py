"""A signing key for this machine: RSA, in a certificate that is good for signing modules and for nothing else.

    keys/mok.key   private, PEM, for root alone
    keys/mok.der   certificate

The directory appears whole, by rename, or not at all; one that is there is never replaced. The certificate is shaped
like those that Ubuntu makes: shim refuses to start programs that are signed with such a key (1.3.6.1.4.1.2312.16.1.2).
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from autokmod.act.scratch import scratch
from autokmod.act.sign import alone_cmd
from autokmod.config import SignConfig
from autokmod.errors import CommandFailed, KeyProblem, ToolMissing
from autokmod.files import fsync_dir
from autokmod.observe.keys import OWN, SigningKey, find_keys, own_key
from autokmod.observe.tools import install_hint
from autokmod.paths import Paths
from autokmod.run import find_tool, run

TIME_LIMIT_S = 300.0  # slow machines look for primes for long
DAYS = 36500
NAME_LIMIT = 64  # characters: RFC 5280, ub-common-name
PURPOSE = " module signing (autokmod)"
CONFIG = """\
[req]
prompt = no
string_mask = utf8only
distinguished_name = name
x509_extensions = extensions
[name]
CN = {name}
[extensions]
basicConstraints = critical,CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = codeSigning,1.3.6.1.4.1.2312.16.1.2
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def create_key(paths: Paths, host: str) -> SigningKey:
    """Raises KeyProblem, OSError."""
    _refuse_second(paths)
    with scratch(paths.state) as place:
        made = place / "keys"
        made.mkdir(mode=0o700)
        _make(made, place / "config", host)
        _publish(paths, made)
    found = next(k for k in find_keys(paths, SignConfig()) if k.origin == OWN)
    if found.problem is not None:
        raise KeyProblem(found.problem.text, found.problem.hint or "")
    return found


def _refuse_second(paths: Paths) -> None:
    if any(os.path.lexists(path) for path in own_key(paths)):
        hint = "to have another one, move that directory away"
        raise KeyProblem(f"there is a signing key already, in {paths.inside(paths.keys)}", hint)


def _make(directory: Path, config: Path, host: str) -> None:
    key, cert = directory / "mok.key", directory / "mok.der"
    config.write_text(CONFIG.format(name=common_name(host)), encoding="ascii")
    new = ["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", str(DAYS), "-batch"]
    files = ["-config", str(config), "-keyout", str(key), "-outform", "DER", "-out", str(cert)]
    try:
        run([*alone_cmd(), find_tool("openssl"), *new, *files], timeout_s=TIME_LIMIT_S)
    except ToolMissing as exc:
        raise KeyProblem(f"{exc.tool} is not installed", install_hint(exc.tool)) from exc
    except CommandFailed as exc:
        raise KeyProblem(f"no key was made: {exc}") from exc
    key.chmod(0o600)
    cert.chmod(0o644)


def common_name(host: str) -> str:
    """Nothing that openssl's configuration would take for more than text."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", host)[: NAME_LIMIT - len(PURPOSE)] + PURPOSE


def _publish(paths: Paths, made: Path) -> None:
    for file in made.iterdir():
        with open(file, "rb") as f:
            os.fsync(f.fileno())
    fsync_dir(made)
    try:
        os.rename(made, paths.keys)  # onto an empty directory at most
    except OSError as exc:
        if exc.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise KeyProblem(f"{paths.inside(paths.keys)} is there already", "move it away") from exc
        raise
    fsync_dir(paths.state)
