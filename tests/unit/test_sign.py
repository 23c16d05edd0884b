"""Modules really signed: by openssl, as the kernels' own sign-file does it, and judged by others than the signer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from autokmod.act.sign import TOOLS, append_signature, open_signer, sign_cmd
from autokmod.config import SignConfig
from autokmod.decide.signing import Signing, decide_signing
from autokmod.errors import SigningFailed
from autokmod.model import Signature
from autokmod.observe.keys import find_keys
from autokmod.observe.ko import parse_module
from autokmod.observe.secureboot import Firmware
from autokmod.observe.signature import MARKER, TRAILER, read_signature
from autokmod.paths import Paths
from autokmod.run import run
from tests.elfwriter import make_ko

MODULE = make_ko(name="drv", krel="6.1.0-1-test", modinfo=(("license", "GPL"),))
RSA, EC = ("-newkey", "rsa:2048"), ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384")


def openssl(*args: str) -> None:
    subprocess.run(("openssl", *args), check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)


def new_pair(paths: Paths, kind: tuple[str, ...] = RSA) -> tuple[Path, Path]:
    paths.keys.mkdir(parents=True, mode=0o700)
    key, cert = paths.keys / "mok.key", paths.keys / "mok.der"
    openssl("req", "-new", "-x509", *kind, "-nodes", "-subj", "/CN=test/", "-keyout", str(key), "-outform", "DER",
            "-out", str(cert))  # fmt: skip
    return key, cert


def signing(paths: Paths, digest: str = "sha256") -> Signing:
    config = {"CONFIG_MODULE_SIG": "y", "CONFIG_MODULE_SIG_HASH": f'"{digest}"'}
    found = decide_signing(SignConfig(), find_keys(paths, SignConfig()), config, None, Firmware())
    assert found.key is not None
    return found


def sign(paths: Paths, data: bytes = MODULE, digest: str = "sha256") -> bytes:
    with open_signer(paths, signing(paths, digest)) as seal:
        return seal(data)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def check_by_openssl(signed: bytes, module: bytes, cert: Path, place: Path) -> bool:
    """The signature alone, over the module alone, against the certificate: as the kernel does it."""
    size = TRAILER.unpack(signed[: -len(MARKER)][-TRAILER.size :])[-1]
    (place / "p7").write_bytes(signed[len(module) : len(module) + size])
    (place / "content").write_bytes(module)
    openssl("x509", "-inform", "DER", "-in", str(cert), "-out", str(place / "pem"))
    files = ("-in", str(place / "p7"), "-content", str(place / "content"), "-certfile", str(place / "pem"))
    argv = ("openssl", "cms", "-verify", "-inform", "DER", "-binary", "-noverify", *files, "-out", "/dev/null")
    return subprocess.run(argv, capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("kind", [RSA, EC], ids=["rsa", "ec"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_signed_and_verified(paths: Paths, kind: tuple[str, ...], digest: str) -> None:
    _, cert = new_pair(paths, kind)
    signed = sign(paths, digest=digest)
    assert signed.startswith(MODULE)
    assert read_signature(signed) == (Signature.PRESENT, len(MODULE))
    assert parse_module("drv.ko", signed).signature is Signature.PRESENT
    assert parse_module("drv.ko", signed).name == "drv"
    assert check_by_openssl(signed, MODULE, cert, paths.root)
    changed = MODULE.replace(b"license=GPL", b"license=BSD")
    assert not check_by_openssl(changed + signed[len(MODULE) :], changed, cert, paths.root)


def test_the_hash_is_the_one_that_was_asked_for(paths: Paths) -> None:
    new_pair(paths)
    by_name = {"sha256": "0201", "sha384": "0202", "sha512": "0203"}
    for digest, end in by_name.items():
        oid = bytes.fromhex(f"060960864801650304{end}")
        assert oid in sign(paths, digest=digest)[len(MODULE) :]


def test_twice_the_same_file(paths: Paths) -> None:
    new_pair(paths)
    assert sign(paths) == sign(paths)


def test_without_a_key_nothing_changes(paths: Paths) -> None:
    for nothing in (None, Signing()):
        with open_signer(paths, nothing) as seal:
            assert seal(MODULE) is MODULE
    assert not paths.work.exists()


def test_nothing_is_left_behind(paths: Paths) -> None:
    new_pair(paths)
    with open_signer(paths, signing(paths)) as seal:
        seal(MODULE)
        seal(MODULE + b"more")
    assert list(paths.work.iterdir()) == []


# ---- what cannot be signed ----


def password(key: Path, cert: Path) -> None:
    openssl("rsa", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(key))


def other_key(key: Path, cert: Path) -> None:
    openssl("genrsa", "-out", str(key), "2048")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda key, cert: key.write_bytes(b"garbage"), "it is not a private key in PEM"),
        (lambda key, cert: key.write_bytes(b""), "it is not a private key in PEM"),
        (lambda key, cert: key.write_bytes(cert.read_bytes()), "it is not a private key in PEM"),
        (password, "it is protected by a password"),
        (other_key, "the certificate is not of this key"),
        (lambda key, cert: key.unlink(), "it is not there any more"),
    ],
)
def test_a_key_that_cannot_be_used(paths: Paths, spoil: object, words: str) -> None:
    key, cert = new_pair(paths)
    known = signing(paths)
    assert callable(spoil)
    spoil(key, cert)
    with pytest.raises(SigningFailed, match=words), open_signer(paths, known) as seal:
        seal(MODULE)
    assert list(paths.work.iterdir()) == []


def test_a_hash_that_nobody_knows(paths: Paths) -> None:
    new_pair(paths)
    with pytest.raises(SigningFailed, match="does not know the hash"):
        sign(paths, digest="sha3141")


def test_openssl_is_missing(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    new_pair(paths)
    known, empty = signing(paths), paths.root / "bin"
    empty.mkdir()
    for tool in ("rm", "setpriv", "prlimit"):
        (empty / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setattr("autokmod.run.ENV", {"PATH": str(empty)})
    with pytest.raises(SigningFailed, match="openssl is not installed") as failure, open_signer(paths, known) as seal:
        seal(MODULE)
    assert failure.value.hint is not None
    assert "apt install openssl" in failure.value.hint


# ---- who reads the key ----


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give something up")
def test_the_signer_has_nothing_but_the_right_to_read(paths: Paths) -> None:
    """The process that openssl runs in, asked by one that looks at itself instead."""
    argv = sign_cmd("/key", Path("/cert"), "sha256", Path("/module"), Path("/target"))
    before = argv[: argv.index("cms") - 1]
    assert before[0] in TOOLS
    look = (
        "import json,resource;s=dict(l.split(':\\t') for l in open('/proc/self/status') if ':\\t' in l);"
        "print(json.dumps([s[k].strip() for k in ('CapEff','CapBnd','CapInh','NoNewPrivs')]"
        "+[resource.getrlimit(resource.RLIMIT_CORE)[0]]))"
    )
    said = json.loads(run([*before, "/usr/bin/python3", "-c", look], timeout_s=60).output)
    read_search = f"{1 << 2:016x}"
    assert said == [read_search, read_search, f"{0:016x}", "1", 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the key to another user")
def test_a_key_of_another_user_is_read_all_the_same(paths: Paths) -> None:
    """akmods' belongs to root and its own group, older ones to its user."""
    key, _ = new_pair(paths)
    os.chown(key, 65534, 65534)
    assert read_signature(sign(paths))[0] is Signature.PRESENT


def test_a_shape_that_no_kernel_reads_is_not_believed() -> None:
    assert read_signature(append_signature(MODULE, b"\x30\x03\x02\x01\x00"))[0] is Signature.DAMAGED
