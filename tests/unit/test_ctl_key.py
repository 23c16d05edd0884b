"""autokmodctl key, as it is typed, on hand-made systems."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autokmod.act.newkey import common_name, create_key
from autokmod.config import SignConfig
from autokmod.errors import KeyProblem
from autokmod.jobs.spool import Spool
from autokmod.observe.keys import find_keys
from autokmod.paths import Paths
from tests.realroot import let_others_in
from tests.unit.handmade import add_kernel
from tests.unit.test_ctl import NOBODY, ctl
from tests.unit.test_sign import new_pair, openssl, password

KREL = "6.1.0-1-amd64"
FORCE = 'CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_FORCE=y\nCONFIG_MODULE_SIG_HASH="sha512"\n'
TAKES_ALL = 'CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_HASH="sha256"\n'


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    add_kernel(paths, KREL, headers=False)
    set_config(paths, TAKES_ALL)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("my host\n")
    return paths


def set_config(paths: Paths, text: str) -> None:
    (paths.boot / f"config-{KREL}").write_text(text)


def status(paths: Paths, expect: int = 0) -> Any:
    done = ctl(paths, "key", "status", "--json=short")
    assert done.returncode == expect, done.stderr
    return json.loads(done.stdout)


def test_nothing_is_asked_and_nothing_is_there(paths: Paths) -> None:
    said = status(paths)
    assert (said["keys"], said["secure_boot"]) == ([], "unknown")
    (kernel,) = said["kernels"]
    assert (kernel["krel"], kernel["enforced"], kernel["problem"]) == (KREL, None, None)
    assert kernel["unsigned"]["kind"] == "no-signing-key"
    assert "not signed" in ctl(paths, "key").stdout


def test_enforced_and_nothing_is_there(paths: Paths) -> None:
    set_config(paths, FORCE)
    (kernel,) = status(paths, expect=3)["kernels"]
    assert (kernel["enforced"]["kind"], kernel["problem"]["kind"]) == ("sig-force", "no-signing-key")
    done = ctl(paths, "key")
    assert done.returncode == 3
    assert "blocked" in done.stdout
    assert "autokmodctl key create" in done.stdout


def test_create(paths: Paths) -> None:
    done = ctl(paths, "key", "create", "--json=short")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["key"]
    assert (made["key"], made["used"], made["problem"]) == ("/var/lib/autokmod/keys/mok.key", True, None)
    key, cert = paths.keys / "mok.key", paths.keys / "mok.der"
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (paths.keys, key, cert)]
    assert modes == [0o700, 0o600, 0o644]
    assert [job.name for job in Spool(paths).jobs()] == ["rescan-all"]
    assert sorted(os.listdir(paths.state)) == ["keys", "spool"]
    (shown,) = status(paths)["keys"]
    assert shown == made
    (kernel,) = status(paths)["kernels"]
    assert (kernel["signed_by"]["digest"], kernel["signed_by"]["name"]) == ("sha256", made["name"])


def test_the_certificate_is_for_modules_alone(paths: Paths) -> None:
    key = create_key(paths, "my host")
    text = os.fsdecode(_show(key.cert, "-text"))
    assert "CN = my-host module signing (autokmod)" in text
    assert "CA:FALSE" in text
    assert "Code Signing, 1.3.6.1.4.1.2312.16.1.2" in text
    assert "Public-Key: (2048 bit)" in text
    assert key.certificate is not None
    assert key.certificate.key_id
    assert int(key.certificate.not_after[:4]) > 2100


def _show(cert: str, *options: str) -> bytes:
    argv = ("openssl", "x509", "-inform", "DER", "-in", cert, "-noout", *options)
    return subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout


@pytest.mark.parametrize("host", ["", "h" * 300, 'a"b\\c$(d)\n[req]', "größe"])
def test_a_name_that_openssl_does_not_misread(host: str) -> None:
    name = common_name(host)
    assert len(name) <= 64
    assert name.endswith(" module signing (autokmod)")
    assert name.isascii()
    assert not set('"\\$\n[]') & set(name)


def test_a_key_is_never_replaced(paths: Paths) -> None:
    assert ctl(paths, "key", "create").returncode == 0
    before = (paths.keys / "mok.key").read_bytes()
    done = ctl(paths, "key", "create")
    assert done.returncode == 1
    assert "there is a signing key already, in /var/lib/autokmod/keys" in done.stderr
    assert (paths.keys / "mok.key").read_bytes() == before


@pytest.mark.parametrize("name", ["mok.key", "mok.der"])
def test_nor_is_half_of_one(paths: Paths, name: str) -> None:
    paths.keys.mkdir(parents=True)
    (paths.keys / name).write_text("precious")
    assert ctl(paths, "key", "create").returncode == 1
    assert {p.name: p.read_text() for p in paths.keys.iterdir()} == {name: "precious"}


def test_nor_what_else_lies_there(paths: Paths) -> None:
    paths.keys.mkdir(parents=True)
    (paths.keys / "other").write_text("precious")
    with pytest.raises(KeyProblem, match="is there already"):
        create_key(paths, "host")
    assert sorted(os.listdir(paths.state)) == ["keys"]


def test_anothers_key_is_used_and_none_is_made(paths: Paths) -> None:
    key, cert = new_pair(paths)
    for source, target in ((key, "var/lib/shim-signed/mok/MOK.priv"), (cert, "var/lib/shim-signed/mok/MOK.der")):
        paths.at(target).parent.mkdir(parents=True, exist_ok=True)
        source.rename(paths.at(target))
    paths.keys.rmdir()
    done = ctl(paths, "key", "create")
    assert done.returncode == 1
    assert "/var/lib/shim-signed/mok/MOK.priv, which is used" in done.stderr
    (shown,) = status(paths)["keys"]
    assert (shown["origin"], shown["used"]) == ("ubuntu", True)


def test_a_broken_key_is_shown_with_what_is_wrong(paths: Paths) -> None:
    new_pair(paths)
    (paths.keys / "mok.der").write_text("garbage")
    (shown,) = status(paths)["keys"]
    assert (shown["used"], shown["problem"]["kind"]) == (False, "key-unreadable")
    assert "not an X.509 certificate" in ctl(paths, "key").stdout


def test_a_key_that_is_of_no_use_does_not_keep_from_making_one(paths: Paths) -> None:
    key, cert = new_pair(paths)
    password(key, cert)
    for source, target in ((key, "var/lib/dkms/mok.key"), (cert, "var/lib/dkms/mok.pub")):
        paths.at(target).parent.mkdir(parents=True, exist_ok=True)
        source.rename(paths.at(target))
    paths.keys.rmdir()
    (shown,) = status(paths)["keys"]
    assert (shown["used"], shown["problem"]["kind"]) == (False, "key-unusable")
    assert ctl(paths, "key", "create").returncode == 0
    assert [k["used"] for k in status(paths)["keys"]] == [False, True]


def test_signed_but_no_kernel_will_know_the_key(paths: Paths) -> None:
    set_config(paths, FORCE)
    create_key(paths, "host")
    paths.at("sys/kernel").mkdir(parents=True)
    (kernel,) = status(paths, expect=3)["kernels"]
    assert kernel["problem"]["kind"] == "key-not-trusted"
    assert "signed, and not trusted" in ctl(paths, "key").stdout


def test_enrolling_is_for_this_machine(paths: Paths) -> None:
    done = ctl(paths, "key", "enroll")
    assert done.returncode == 2
    assert "--root" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("verb", ["create", "enroll"])
def test_only_root_may(paths: Paths, verb: str) -> None:
    done = ctl(Paths(Path("/")), "key", verb, before=NOBODY)
    assert done.returncode == 1
    assert "try it as root" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_others_see_that_there_is_a_key_but_not_which(paths: Paths) -> None:
    create_key(paths, "host")
    let_others_in(paths.root)
    paths.root.chmod(0o755)
    done = ctl(paths, "key", "status", "--json=short", before=NOBODY)
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout)["keys"]
    assert (shown["name"], shown["problem"]["kind"], shown["problem"]["hint"]) == (
        None,
        "key-unreadable",
        "try it as root",
    )


def test_a_wrong_configuration_is_told(paths: Paths) -> None:
    paths.etc.mkdir()
    (paths.etc / "autokmod.toml").write_text('[sign]\nkey = "/a"\n')
    (shown,) = status(paths, expect=3)["keys"]
    assert shown["problem"]["kind"] == "key-incomplete"
    (paths.etc / "autokmod.toml").write_text('[sign]\nmode = "sometimes"\n')
    done = ctl(paths, "key")
    assert done.returncode == 78
    assert 'one of "auto", "never" expected' in done.stderr


def test_mode_never(paths: Paths) -> None:
    create_key(paths, "host")
    paths.etc.mkdir()
    (paths.etc / "autokmod.toml").write_text('[sign]\nmode = "never"\n')
    assert [k["used"] for k in status(paths)["keys"]] == [False]
    set_config(paths, FORCE)
    assert status(paths, expect=3)["kernels"][0]["problem"]["kind"] == "signing-off"


def test_what_is_made_can_be_used(paths: Paths) -> None:
    create_key(paths, "host")
    (key,) = find_keys(paths, SignConfig())
    openssl("rsa", "-in", key.key, "-check", "-noout")
