"""autokmodctl check where signatures are enforced: by the boot entry, or by Secure Boot with its enrolled keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokmod.act.newkey import create_key
from autokmod.observe.secureboot import GLOBAL, SHIM, X509
from autokmod.paths import Paths
from tests.unit.test_check import KREL, check, put, results, root
from tests.unit.test_keys import signature_list, variable
from tests.unit.test_sign import sign

__all__ = ["root"]

DEBIANS = "CONFIG_MODVERSIONS=y\nCONFIG_MODULE_SIG=y\nCONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y\n"


@pytest.fixture
def paths(root: Path) -> Paths:
    paths = Paths(root)
    (paths.boot / f"config-{KREL}").write_text(DEBIANS)
    return paths


def secure_boot(paths: Paths, *enrolled: bytes) -> None:
    variable(paths, "SecureBoot", GLOBAL, b"\1")
    variable(paths, "MokListRT", SHIM, b"".join(signature_list(X509, der) for der in enrolled))


def signed(paths: Paths, file: str) -> str:
    target = file.replace(".ko", "-signed.ko")
    Path(target).write_bytes(sign(paths, Path(file).read_bytes()))
    return target


def test_unsigned(paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, "good", versions={"kfree": 2})
    assert check(paths.root, file) == 0
    secure_boot(paths)
    capsys.readouterr()
    code, (said,) = results(paths.root, capsys, file)
    assert (code, said["reasons"][0]["kind"]) == (1, "unsigned")


def test_by_the_boot_entry(paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths.at("etc/kernel").mkdir(parents=True)
    paths.at("etc/kernel/cmdline").write_text("quiet module.sig_enforce=1\n")
    code, (said,) = results(paths.root, capsys, put(tmp_path, "good", versions={"kfree": 2}))
    assert (code, said["reasons"][0]["kind"]) == (1, "unsigned")


def test_signed_with_an_enrolled_key_and_with_another(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = create_key(paths, "here")
    assert key.certificate is not None
    file = signed(paths, put(tmp_path, "good", versions={"kfree": 2}))
    secure_boot(paths)
    code, (said,) = results(paths.root, capsys, file)
    assert (code, said["reasons"][0]["kind"]) == (2, "signer-unverified")
    secure_boot(paths, key.certificate.der)
    assert check(paths.root, file) == 0


def test_changed_after_it_was_signed(paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = create_key(paths, "here")
    assert key.certificate is not None
    secure_boot(paths, b"another certificate", key.certificate.der)
    file = Path(signed(paths, put(tmp_path, "good", versions={"kfree": 2})))
    file.write_bytes(file.read_bytes().replace(b"license=GPL", b"license=gpl"))
    code, (said,) = results(paths.root, capsys, str(file))
    assert (code, said["reasons"][0]["kind"]) == (1, "signature-damaged")
