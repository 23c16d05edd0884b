"""The signing keys of this machine, where their makers put them. No private key is ever opened here: act/sign.py says
who reads it.

In order: what the configuration names; what shim's package on Debian and Ubuntu made (update-secureboot-policy); what
DKMS was told to use, or made; what akmods made (kmodgenca); autokmod's own.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autokmod.config import SignConfig
from autokmod.errors import FormatError
from autokmod.model import Reason, SignedBy
from autokmod.observe.blob import read_bounded
from autokmod.observe.certificate import LIMIT, Certificate, parse_certificate
from autokmod.paths import Paths

CONFIGURED, OWN = "configured", "autokmod"
UBUNTU = ("var/lib/shim-signed/mok/MOK.priv", "var/lib/shim-signed/mok/MOK.der")
DKMS = ("var/lib/dkms/mok.key", "var/lib/dkms/mok.pub")
AKMODS = ("etc/pki/akmods/private/private_key.priv", "etc/pki/akmods/certs/public_key.der")
DKMS_CONF = "etc/dkms/framework.conf"
DKMS_SETTING = re.compile(r"""^\s*(mok_signing_key|mok_certificate)=(["']?)([^"'$`#\s]+)\2\s*(?:#.*)?$""", re.MULTILINE)
ABSENT = (errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class SigningKey:
    origin: str  # configured, ubuntu, dkms, akmods, autokmod
    key: str  # host paths
    cert: str
    certificate: Certificate | None
    problem: Reason | None = None  # why it cannot be used

    def signed_by(self, digest: str) -> SignedBy | None:
        """What its signatures are known by; `digest` is the hash that is signed."""
        c = self.certificate
        return SignedBy(c.name, c.fingerprint, c.key_id, digest, self.origin) if c is not None else None


def own_key(paths: Paths) -> tuple[Path, Path]:
    return paths.keys / "mok.key", paths.keys / "mok.der"


def find_keys(paths: Paths, config: SignConfig) -> tuple[SigningKey, ...]:
    """Those of which at least a part is there. One that is configured alone counts, there or not."""
    if config.key or config.cert:
        return (_configured(paths, config),)
    found = (_key(paths, origin, key, cert) for origin, key, cert in _places(paths))
    return tuple(key for key in found if key is not None)


def _configured(paths: Paths, config: SignConfig) -> SigningKey:
    key, cert = (str(paths.at(text)) if text else "" for text in (config.key, config.cert))
    if not (config.key and config.cert):
        name, other = ("key", "cert") if config.key else ("cert", "key")
        why = Reason("key-incomplete", f"sign.{name} is set, and sign.{other} is not", hint=f"set sign.{other}, too")
        return SigningKey(CONFIGURED, key, cert, None, why)
    found = _key(paths, CONFIGURED, Path(key), Path(cert))
    why = Reason("key-missing", f"{config.key}, which sign.key names, is not there", hint="mend sign.key and sign.cert")
    return found or SigningKey(CONFIGURED, key, cert, None, why)


def _places(paths: Paths) -> Iterator[tuple[str, Path, Path]]:
    yield "ubuntu", paths.at(UBUNTU[0]), paths.at(UBUNTU[1])
    key, cert = _dkms_setting(paths)
    yield "dkms", paths.at(key), paths.at(cert)
    yield "akmods", paths.at(AKMODS[0]), paths.at(AKMODS[1])
    yield OWN, *own_key(paths)


def _dkms_setting(paths: Paths) -> tuple[str, str]:
    """Later files win. A value that bash would have to compute is not taken."""
    directory = paths.at(DKMS_CONF + ".d")
    drop_ins = sorted(directory.glob("*.conf")) if directory.is_dir() else []
    found: dict[str, str] = {}
    for file in (paths.at(DKMS_CONF), *drop_ins):
        found.update(parse_dkms_settings(_text(paths, file)))
    return found.get("mok_signing_key", DKMS[0]), found.get("mok_certificate", DKMS[1])


def parse_dkms_settings(text: str) -> dict[str, str]:
    return {name: value for name, _, value in DKMS_SETTING.findall(text)}


def _text(paths: Paths, file: Path) -> str:
    try:
        return read_bounded(str(paths.resolve(file)), limit=LIMIT).decode("utf-8", "replace")
    except (OSError, FormatError):
        return ""


def _key(paths: Paths, origin: str, key: Path, cert: Path) -> SigningKey | None:
    """None where neither half is there."""
    problem = _key_problem(paths, key)
    certificate, cert_problem = _certificate(paths, cert)
    missing = [p for p in (problem, cert_problem) if p is not None and p.kind == "key-missing"]
    if len(missing) == 2:
        return None
    where = [_resolved(paths, path) for path in (key, cert)]
    return SigningKey(origin, where[0], where[1], certificate, problem or cert_problem)


def _resolved(paths: Paths, path: Path) -> str:
    try:
        return str(paths.resolve(path))
    except (OSError, FormatError):
        return str(path)


def _key_problem(paths: Paths, key: Path) -> Reason | None:
    """By what stat says. Whether it fits its certificate is seen when something is signed with it."""
    shown = paths.inside(key)
    try:
        real = paths.resolve(key)
        info = os.stat(real)
    except (OSError, FormatError) as exc:
        return _unreadable(shown, exc)
    if not stat.S_ISREG(info.st_mode):
        return Reason("key-unreadable", f"the signing key {shown} is not a file")
    if info.st_mode & (stat.S_IROTH | stat.S_IWOTH) and all(d.stat().st_mode & stat.S_IXOTH for d in real.parents):
        text = f"every user can read or change the signing key {shown}: it proves nothing"
        return Reason("key-exposed", text, hint=f"chmod 600 {shown}, and consider it known")
    return None


def _certificate(paths: Paths, cert: Path) -> tuple[Certificate | None, Reason | None]:
    shown = paths.inside(cert)
    try:
        return parse_certificate(read_bounded(str(paths.resolve(cert)), limit=LIMIT), shown), None
    except (OSError, FormatError) as exc:
        return None, _unreadable(shown, exc)


def _unreadable(shown: str, exc: OSError | FormatError) -> Reason:
    if isinstance(exc, FormatError):
        return Reason("key-unreadable", f"{shown}: {exc.what}")
    if exc.errno in ABSENT:
        return Reason("key-missing", f"{shown} is not there")
    hint = "try it as root" if exc.errno in (errno.EACCES, errno.EPERM) else None
    return Reason("key-unreadable", f"{shown} cannot be read: {exc.strerror}", hint=hint)
