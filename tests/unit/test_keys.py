"""Keys and firmware as they lie on disk: real certificates, EFI variables byte by byte."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from autokmod.config import SignConfig
from autokmod.errors import FormatError
from autokmod.observe.certificate import parse_certificate
from autokmod.observe.enforcement import names_kernel, parse_loader_entry, read_boot_facts
from autokmod.observe.keys import find_keys, parse_dkms_settings
from autokmod.observe.secureboot import GLOBAL, SECURITY, SHIM, X509, SecureBoot, parse_signature_lists, read_firmware
from autokmod.paths import Paths
from tests.realroot import let_others_in

KREL = "6.1.0-5-amd64"
NOTHING = SignConfig()


def openssl(*args: str) -> bytes:
    done = subprocess.run(("openssl", *args), check=True, capture_output=True, timeout=60)
    return done.stdout


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A private key, and its certificate in DER."""
    place = tmp_path_factory.mktemp("pair")
    new = (
        "req",
        "-new",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/O=Here/CN=A host's key",
        "-days",
        "36500",
    )
    openssl(*new, "-keyout", str(place / "key"), "-outform", "DER", "-out", str(place / "cert"))
    return (place / "key").read_bytes(), (place / "cert").read_bytes()


def put(paths: Paths, name: str, data: bytes, mode: int = 0o600) -> None:
    path = paths.at(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def put_pair(paths: Paths, pair: tuple[bytes, bytes], key: str, cert: str) -> None:
    put(paths, key, pair[0])
    put(paths, cert, pair[1], 0o644)


# ---- certificates ----


def test_a_certificate_says_what_openssl_says(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    found = parse_certificate(pair[1], "x")
    file = tmp_path / "cert"
    file.write_bytes(pair[1])
    show = ("x509", "-inform", "DER", "-in", str(file), "-noout")
    printed = openssl(*show, "-fingerprint", "-sha256").decode().strip().split("=")[1]
    assert found.fingerprint == printed.replace(":", "").lower()
    key_id = openssl(*show, "-ext", "subjectKeyIdentifier").decode().split()[-1]
    assert found.key_id == key_id.replace(":", "").lower()
    assert found.name == "A host's key"
    assert found.not_after[:2] == "21"
    assert openssl(*show, "-enddate").decode().split()[-2] == found.not_after[:4]


def test_pem_is_the_same_certificate(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    file = tmp_path / "cert"
    file.write_bytes(pair[1])
    pem = openssl("x509", "-inform", "DER", "-in", str(file))
    assert parse_certificate(pem, "x") == parse_certificate(pair[1], "x")
    file.write_bytes(parse_certificate(pair[1], "x").pem)
    assert openssl("x509", "-in", str(file), "-outform", "DER") == pair[1]


@pytest.mark.parametrize(
    "data", [b"", b"not a certificate", b"\x30\x03\x02\x01\x00", b"-----BEGIN CERTIFICATE-----\n!"]
)
def test_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"not an X\.509 certificate"):
        parse_certificate(data, "x")


def test_a_cut_certificate_never_passes(pair: tuple[bytes, bytes]) -> None:
    for size in range(0, len(pair[1]), 7):
        with pytest.raises(FormatError):
            parse_certificate(pair[1][:size], "x")


# ---- where keys are found ----

PLACES = [
    ("ubuntu", "var/lib/shim-signed/mok/MOK.priv", "var/lib/shim-signed/mok/MOK.der"),
    ("dkms", "var/lib/dkms/mok.key", "var/lib/dkms/mok.pub"),
    ("akmods", "etc/pki/akmods/private/private_key.priv", "etc/pki/akmods/certs/public_key.der"),
    ("autokmod", "var/lib/autokmod/keys/mok.key", "var/lib/autokmod/keys/mok.der"),
]


def test_found_in_order(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert find_keys(paths, NOTHING) == ()
    for _, key, cert in reversed(PLACES):
        put_pair(paths, pair, key, cert)
    found = find_keys(paths, NOTHING)
    assert [k.origin for k in found] == [origin for origin, _, _ in PLACES]
    assert [k.problem for k in found] == [None] * 4
    assert {k.certificate for k in found} == {parse_certificate(pair[1], "x")}


def test_a_configured_key_counts_alone(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    put_pair(paths, pair, *PLACES[0][1:])
    put_pair(paths, pair, "etc/keys/mine", "etc/keys/cert")
    (key,) = find_keys(paths, SignConfig(key="/etc/keys/mine", cert="/etc/keys/cert"))
    assert (key.origin, key.problem, key.key) == ("configured", None, str(tmp_path / "etc/keys/mine"))
    (key,) = find_keys(paths, SignConfig(key="/etc/keys/nowhere", cert="/etc/keys/neither"))
    assert key.problem is not None
    assert key.problem.kind == "key-missing"
    (key,) = find_keys(paths, SignConfig(key="/etc/keys/mine"))
    assert key.problem is not None
    assert key.problem.kind == "key-incomplete"


def test_akmods_leads_to_its_files_by_links(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Inside the root, wherever that is."""
    paths = Paths(tmp_path)
    put_pair(paths, pair, "etc/pki/akmods/private/host-1.priv", "etc/pki/akmods/certs/host-1.der")
    paths.at("etc/pki/akmods/private/private_key.priv").symlink_to("/etc/pki/akmods/private/host-1.priv")
    paths.at("etc/pki/akmods/certs/public_key.der").symlink_to("host-1.der")
    (key,) = find_keys(paths, NOTHING)
    assert (key.problem, key.key) == (None, str(tmp_path / "etc/pki/akmods/private/host-1.priv"))


def a_pipe(_: Path, cert: Path) -> None:
    """Opened, it would wait for a writer."""
    cert.unlink()
    os.mkfifo(cert)


@pytest.mark.parametrize(
    ("break_it", "kind"),
    [
        (lambda key, cert: cert.unlink(), "key-missing"),
        (lambda key, cert: key.unlink(), "key-missing"),
        (lambda key, cert: cert.write_bytes(b"garbage"), "key-unreadable"),
        (lambda key, cert: key.chmod(0o644), "key-exposed"),
        (lambda key, cert: (key.unlink(), key.mkdir()), "key-unreadable"),
        (a_pipe, "key-unreadable"),
    ],
)
def test_half_a_pair_is_told_and_not_used(
    pair: tuple[bytes, bytes], tmp_path: Path, break_it: object, kind: str
) -> None:
    let_others_in(tmp_path)
    tmp_path.chmod(0o755)
    paths = Paths(tmp_path)
    put_pair(paths, pair, *PLACES[1][1:])
    assert callable(break_it)
    break_it(paths.at(PLACES[1][1]), paths.at(PLACES[1][2]))
    (key,) = find_keys(paths, NOTHING)
    assert key.problem is not None
    assert key.problem.kind == kind


def test_a_readable_key_in_a_closed_directory_is_no_secret_told(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    put_pair(paths, pair, *PLACES[2][1:])
    paths.at(PLACES[2][1]).chmod(0o644)
    paths.at(PLACES[2][1]).parent.chmod(0o750)
    (key,) = find_keys(paths, NOTHING)
    assert key.problem is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('mok_signing_key="/a.key"\nmok_certificate=/b\n', {"mok_signing_key": "/a.key", "mok_certificate": "/b"}),
        ("  mok_signing_key='/a'  # mine\n", {"mok_signing_key": "/a"}),
        ('# mok_signing_key="/a"\n', {}),
        ('mok_signing_key="/keys/$(hostname)"\nmok_certificate=`x`\nmok_certificate="$HOME/x"\n', {}),
        ("sign_file=/x\nxmok_signing_key=/a\n", {}),
    ],
)  # fmt: skip
def test_what_dkms_was_told(text: str, found: dict[str, str]) -> None:
    assert parse_dkms_settings(text) == found


def test_dkms_drop_ins_win(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    put_pair(paths, pair, "k/a", "k/b")
    put(paths, "etc/dkms/framework.conf", b"mok_signing_key=/nowhere\nmok_certificate=/k/b\n")
    put(paths, "etc/dkms/framework.conf.d/mine.conf", b"mok_signing_key=/k/a\n")
    (key,) = find_keys(paths, NOTHING)
    assert (key.origin, key.problem, key.key) == ("dkms", None, str(tmp_path / "k/a"))


# ---- the firmware ----


def signature_list(kind: bytes, *entries: bytes, header: bytes = b"") -> bytes:
    size = 16 + len(entries[0])
    body = header + b"".join(bytes(16) + entry for entry in entries)
    return kind + struct.pack("<III", 28 + len(body), len(header), size) + body


def variable(paths: Paths, name: str, vendor: str, data: bytes) -> None:
    put(paths, f"sys/firmware/efi/efivars/{name}-{vendor}", b"\6\0\0\0" + data, 0o644)


def test_signature_lists() -> None:
    sha256 = bytes(16)  # a type that is not X.509
    data = signature_list(sha256, b"h" * 32, b"i" * 32) + signature_list(X509, b"cert one")
    data += signature_list(X509, b"cert two", b"cert 3!!", header=b"head")
    assert list(parse_signature_lists(data)) == [b"cert one", b"cert two", b"cert 3!!"]
    for size in range(len(data)):
        assert set(parse_signature_lists(data[:size])) <= {b"cert one", b"cert two", b"cert 3!!"}
    assert list(parse_signature_lists(signature_list(X509, b"x")[:16] + bytes(12) + b"rest")) == []


@pytest.mark.parametrize(
    ("variables", "state"),
    [
        ({"SecureBoot": b"\1", "SetupMode": b"\0"}, SecureBoot.ON),
        ({"SecureBoot": b"\1"}, SecureBoot.ON),
        ({"SecureBoot": b"\0"}, SecureBoot.OFF),
        ({"SecureBoot": b"\1", "SetupMode": b"\1"}, SecureBoot.OFF),
        ({"SecureBoot": b"\1", "MokSBStateRT": b"\1"}, SecureBoot.OFF),
        ({"SecureBoot": b"\1", "MokSBStateRT": b"\0"}, SecureBoot.ON),
        ({}, SecureBoot.UNKNOWN),
    ],
)
def test_secure_boot(tmp_path: Path, variables: dict[str, bytes], state: SecureBoot) -> None:
    paths = Paths(tmp_path)
    paths.at("sys/firmware/efi/efivars").mkdir(parents=True)
    for name, data in variables.items():
        variable(paths, name, SHIM if name.startswith("Mok") else GLOBAL, data)
    assert read_firmware(paths).secure_boot is state


def test_no_efi_and_nothing_known(tmp_path: Path) -> None:
    assert read_firmware(Paths(tmp_path)).secure_boot is SecureBoot.UNKNOWN
    (tmp_path / "sys/kernel").mkdir(parents=True)
    assert read_firmware(Paths(tmp_path)).secure_boot is SecureBoot.NO_EFI


def test_enrolled_requested_revoked(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    paths, mine = Paths(tmp_path), parse_certificate(pair[1], "x").fingerprint
    variable(paths, "SecureBoot", GLOBAL, b"\1")
    found = read_firmware(paths)
    assert (found.enrolled, found.requested, found.revoked) == (frozenset(),) * 3
    variable(paths, "MokNew", SHIM, signature_list(X509, pair[1]))
    assert read_firmware(paths).requested == {mine}
    variable(paths, "MokListRT", SHIM, signature_list(X509, b"shim's vendor"))
    variable(paths, "MokListRT1", SHIM, signature_list(X509, pair[1]))
    assert mine in read_firmware(paths).enrolled
    variable(paths, "dbx", SECURITY, signature_list(X509, pair[1]))
    assert read_firmware(paths).revoked == {mine}


def test_shims_lists_without_efivarfs(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    put(paths, "sys/firmware/efi/mok-variables/MokListRT", signature_list(X509, pair[1]))
    assert read_firmware(paths).enrolled == {parse_certificate(pair[1], "x").fingerprint}


def test_what_the_running_kernel_knows(tmp_path: Path) -> None:
    text = (
        "00a1 I------     1 perm 1f030000     0     0 asymmetri Debian Secure Boot CA: "
        "6ccece7e4c6c0d1f6149f3dd27dfcc5cbb419ea1: X509.rsa bb419ea1 []\n"
        "00a2 I------     1 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: 2\n"
    )
    put(Paths(tmp_path), "proc/keys", text.encode())
    assert read_firmware(Paths(tmp_path)).known_ids == {"6ccece7e4c6c0d1f6149f3dd27dfcc5cbb419ea1"}


# ---- how a kernel will be booted ----


@pytest.mark.parametrize(
    ("image", "is_its"),
    [
        (f"/boot/vmlinuz-{KREL}", True),
        (f"/vmlinuz-{KREL}", True),
        (f"/0123abcd/{KREL}/linux", True),
        (f"/EFI/Linux/0123abcd-{KREL}.efi", True),
        (f"/boot/vmlinuz-{KREL}.old", False),
        ("/boot/vmlinuz-6.1.0-55-amd64", False),
        ("/boot/vmlinuz-16.1.0-5-amd64", False),
    ],
)
def test_whose_image(image: str, *, is_its: bool) -> None:
    assert names_kernel(image, KREL) is is_its


def test_a_loader_entry() -> None:
    text = f"title X\nversion {KREL}\nlinux /a/b/linux\noptions root=/dev/x quiet\noptions  module.sig_enforce=1\n"
    assert parse_loader_entry(text, KREL) == ["root=/dev/x quiet module.sig_enforce=1"]
    assert parse_loader_entry(text, "6.1.0-55-amd64") == []


GRUB = f"""
menuentry 'a' {{
	linux	/boot/vmlinuz-{KREL} root=UUID=1 ro quiet lockdown=integrity
}}
menuentry 'b' {{
	linux	/boot/vmlinuz-6.1.0-55-amd64 root=UUID=1 ro single
}}
"""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, set()),
        ({"boot/grub/grub.cfg": GRUB}, {"root=UUID=1", "ro", "quiet", "lockdown=integrity"}),
        ({"boot/grub/grub.cfg": GRUB.replace(KREL, "6.1"), "proc/cmdline": "BOOT=x a=b\n"}, {"BOOT=x", "a=b"}),
        ({"boot/grub/grub.cfg": GRUB, "proc/cmdline": "module.sig_enforce=1"},
         {"root=UUID=1", "ro", "quiet", "lockdown=integrity"}),
        ({"boot/loader/entries/x.conf": f"linux /{KREL}/linux\noptions a \"b c\"\n"}, {"a", "b c"}),
        ({"boot/loader/entries/x.txt": f"linux /{KREL}/linux\noptions a\n"}, set()),
        ({"etc/kernel/cmdline": "x y\n", "etc/default/grub": "GRUB_CMDLINE_LINUX=z\n"}, {"x", "y"}),
        ({"etc/default/grub": 'GRUB_CMDLINE_LINUX="a b"\n#GRUB_CMDLINE_LINUX=no\nGRUB_CMDLINE_LINUX_DEFAULT=\'c\'\n'},
         {"a", "b", "c"}),
        ({"etc/default/grub": "GRUB_DEFAULT=0\n", "proc/cmdline": "x"}, {"x"}),
    ],
)  # fmt: skip
def test_command_lines(tmp_path: Path, files: dict[str, str], expected: set[str]) -> None:
    paths = Paths(tmp_path)
    for name, text in files.items():
        put(paths, name, text.encode())
    assert read_boot_facts(paths, KREL).options == expected


def test_the_running_kernel(tmp_path: Path) -> None:
    put(Paths(tmp_path), "sys/kernel/security/lockdown", b"none [integrity] confidentiality\n")
    put(Paths(tmp_path), "sys/module/module/parameters/sig_enforce", b"Y\n")
    found = read_boot_facts(Paths(tmp_path), KREL)
    assert (found.locked_down, found.enforces_now, found.is_running) == (True, True, False)
