"""autokmodctl check: verdicts, words, JSON and exit codes, with the files of a made-up kernel."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from autokmod.ctl.main import main
from autokmod.paths import Paths
from tests.elfwriter import Exp, make_ko

KREL, OTHER = "6.1.0-56-amd64", "6.1.0-55-amd64"
SYMVERS_PATH = f"/usr/src/linux-headers-{KREL}/Module.symvers"
SYMVERS = """\
0xa351f379\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t
0x00000002\tkfree\tvmlinux\tEXPORT_SYMBOL\t
0x00000003\tdevice_create\tvmlinux\tEXPORT_SYMBOL_GPL\t
"""
LAYOUT = {"module_layout": 0xA351F379}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    modulesd = Paths(root).at(f"usr/lib/modules/{KREL}")
    reference = make_ko(name="ref", krel=KREL, modinfo=[("license", "GPL"), ("intree", "Y")])
    for path, data in {
        f"usr/src/linux-headers-{KREL}/Module.symvers": SYMVERS.encode(),
        f"usr/src/linux-headers-{KREL}/Makefile": b"x",
        f"usr/src/linux-headers-{KREL}/include/config/auto.conf": b"x",
        f"usr/src/linux-headers-{KREL}/include/generated/autoconf.h": b"x",
        f"usr/src/linux-headers-{KREL}/scripts/mod/modpost": b"x",
        f"boot/config-{KREL}": b"CONFIG_MODVERSIONS=y\n",
        f"usr/lib/modules/{KREL}/kernel/ref.ko": reference,
        f"usr/lib/modules/{OTHER}/config": b"CONFIG_MODVERSIONS=y\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    (modulesd / "build").symlink_to(f"/usr/src/linux-headers-{KREL}")
    (root / "lib").symlink_to("usr/lib")
    return root


def put(
    directory: Path, name: str, *, versions: dict[str, int], exports: tuple[Exp, ...] = (), krel: str = OTHER
) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}.ko"
    file.write_bytes(make_ko(name=name, krel=krel, versions={**LAYOUT, **versions}, exports=exports))
    return str(file)


def check(root: Path, *files: str) -> int:
    return main(["check", *files, "--kernel", KREL, "--root", str(root)])


def results(root: Path, capsys: pytest.CaptureFixture[str], *files: str) -> tuple[int, list[dict[str, Any]]]:
    code = main(["check", "--json", *files, "--kernel", KREL, "--root", str(root)])
    value = json.loads(capsys.readouterr().out)
    assert (value["version"], value["kernel"]) == (1, KREL)
    assert set(value) == {"version", "kernel", "results"}
    return code, value["results"]


def test_compatible(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, "good", versions={"kfree": 2})
    assert check(root, file) == 0
    assert capsys.readouterr().out == f"{file}: compatible with {KREL}, 2 symbols compared with {SYMVERS_PATH}\n"


def test_incompatible(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, "bad", versions={"kfree": 9, "device_create": 9})
    assert check(root, file) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: incompatible with {KREL}, 3 symbols compared with {SYMVERS_PATH}",
        "    `device_create` and 1 more symbol changed",
        "    SYMBOL         WANTED      OFFERED     EXPORTER  WHAT",
        "    device_create  0x00000009  0x00000003  vmlinux   crc-mismatch",
        "    kfree          0x00000009  0x00000002  vmlinux   crc-mismatch",
    ]


def test_one_symbol_is_one_sentence(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(root, put(tmp_path, "bad", versions={"gone": 9}))
    assert capsys.readouterr().out.splitlines()[1:] == [f"    `gone` is not exported on {KREL}"]


def test_json(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, "bad", versions={"kfree": 9})
    code, (result,) = results(root, capsys, file)
    assert code == 1
    text = "`kfree` changed: the module wants 0x00000009, vmlinux has 0x00000002"
    reason: dict[str, Any] = {"kind": "crc-mismatch", "text": text, "symbol": "kfree"}
    reason |= {"wanted_crc": 9, "offered_crc": 2, "exporter": "vmlinux"}
    assert result == {"path": file, "verdict": "incompatible", "symbols_compared": 2, "reasons": [reason]}


def test_what_cannot_be_read(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = put(tmp_path, "good", versions={})
    (tmp_path / "no-elf.ko").write_text("hello")
    os.mkfifo(tmp_path / "pipe.ko")
    files = [str(tmp_path / name) for name in ("no-elf.ko", "pipe.ko", "gone.ko")]
    code, found = results(root, capsys, good, *files)
    assert code == 2
    assert [r["verdict"] for r in found] == ["compatible", "unknown", "unknown", "unknown"]
    assert [r["reasons"][0]["text"] for r in found[1:]] == [
        "it cannot be read: not an ELF file at offset 0",
        "it cannot be read: not a regular file",
        "it cannot be read: No such file or directory",
    ]


def test_incompatible_outranks_unknown(root: Path, tmp_path: Path) -> None:
    assert check(root, str(tmp_path / "gone.ko"), put(tmp_path, "bad", versions={"kfree": 9})) == 1


def test_files_are_a_set(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = put(tmp_path, "base", versions={}, exports=(Exp("base_fn", 7),))
    user = put(tmp_path, "user", versions={"base_fn": 7})
    assert check(root, user) == 1
    capsys.readouterr()
    assert results(root, capsys, user, base)[0] == 0
    assert results(root, capsys, user, base, user)[0] == 0


def test_what_stands_in_the_kernel_provides_too(root: Path, tmp_path: Path) -> None:
    """But only where depmod would pick it, and only as good as it is itself."""
    modulesd = root / "usr/lib/modules" / KREL
    user = put(tmp_path, "user", versions={"base_fn": 7})
    put(modulesd / "updates/dkms", "base", versions={}, exports=(Exp("base_fn", 7),))
    assert check(root, user) == 0
    put(modulesd / "override", "base", versions={}, exports=(Exp("base_fn", 8),))
    assert check(root, user) == 0
    (root / "etc/depmod.d").mkdir(parents=True)
    (root / "etc/depmod.d/a.conf").write_text("override base * override\n")
    assert check(root, user) == 1
    put(modulesd / "override", "base", versions={"kfree": 9}, exports=(Exp("base_fn", 7),))
    assert check(root, user) == 1


def test_a_broken_neighbour_provides_nothing(root: Path, tmp_path: Path) -> None:
    user = put(tmp_path, "user", versions={"base_fn": 7})
    (root / "usr/lib/modules" / KREL / "updates").mkdir()
    (root / "usr/lib/modules" / KREL / "updates/base.ko").write_text("broken")
    assert check(root, user) == 1


def test_a_kernel_that_cannot_be_read(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / f"usr/src/linux-headers-{KREL}/Module.symvers").write_text("0x0001")
    code, (result,) = results(root, capsys, put(tmp_path, "good", versions={}))
    assert (code, result["verdict"]) == (2, "unknown")
    assert "line 1 is truncated" in result["reasons"][0]["text"]


def test_no_such_kernel(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, "good", versions={})
    assert main(["check", file, "--kernel", "9.9", "--root", str(root)]) == 2
    assert "no kernel 9.9" in capsys.readouterr().err


def test_usage(root: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "--kernel", KREL, "--root", str(root)])
    assert caught.value.code == 2


# ---- policy --------------------------------------------------------------------------------------


def test_policy_is_named_as_such(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, "good", versions={"kfree": 2}, krel="6.1.0-56-cloud-amd64")
    code, (result,) = results(root, capsys, file)
    assert (code, result["verdict"], result["symbols_compared"]) == (1, "incompatible", 2)
    flavour, features = result["reasons"]
    assert (flavour["kind"], features["kind"]) == ("policy-flavour", "policy-features-unknown")
    assert "link.same_flavour" in flavour["text"]
    assert results(root, capsys, "--no-policy", file) == (0, [{**result, "verdict": "compatible", "reasons": []}])


def test_policy_is_configured(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, "good", versions={"kfree": 2}, krel="6.1.0-56-cloud-amd64")
    (root / "etc/autokmod").mkdir(parents=True)
    (root / "etc/autokmod/autokmod.toml").write_text("[link]\nsame_flavour = false\nsame_features = []\n")
    code, (result,) = results(root, capsys, file)
    assert (code, result["verdict"], result["reasons"]) == (0, "compatible", [])
    (root / "etc/autokmod/autokmod.toml").write_text('[link]\nsame_features = ["flavor"]\n')
    assert check(root, file) == 78
    assert 'one of "compiler"' in capsys.readouterr().err
    assert check(root, "--no-policy", file) == 0


def test_what_is_not_known_of_the_other_kernel_is_said(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = put(tmp_path, "good", versions={"kfree": 2}, krel="6.1.0-54-amd64")
    code, (result,) = results(root, capsys, file)
    assert (code, result["verdict"]) == (0, "compatible")
    assert [r["kind"] for r in result["reasons"]] == ["policy-features-unknown"]


def test_the_loaders_reasons_come_before_policy(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / f"usr/lib/modules/{OTHER}/config").write_text("CONFIG_KASAN=y\n")
    code, (result,) = results(root, capsys, put(tmp_path, "bad", versions={"kfree": 9}))
    assert (code, [r["kind"] for r in result["reasons"]]) == (1, ["crc-mismatch", "policy-kasan"])
