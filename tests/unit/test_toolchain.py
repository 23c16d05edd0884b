"""Which compiler, by what the kernel's configuration says and what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokmod.model import Kernel, KernelAbi, KernelState
from autokmod.observe.toolchain import choose, compilers, exported, find_program, missing_tool, read_toolchain
from autokmod.paths import Paths

DEBIAN = {"CONFIG_CC_VERSION_TEXT": '"gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"', "CONFIG_CC_IS_GCC": "y"}
UBUNTU = {"CONFIG_CC_VERSION_TEXT": '"x86_64-linux-gnu-gcc-13 (Ubuntu 13.3.0-6ubuntu2) 13.3.0"'}
FEDORA = {"CONFIG_CC_VERSION_TEXT": '"gcc (GCC) 15.1.1 20250521 (Red Hat 15.1.1-2)"'}
CLANG = {
    "CONFIG_CC_VERSION_TEXT": '"Debian clang version 16.0.6 (15~deb12u1)"',
    "CONFIG_CC_IS_CLANG": "y",
    "CONFIG_CLANG_VERSION": "160006",
    "CONFIG_LD_IS_LLD": "y",
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DEBIAN, ("gcc-12", "gcc")),
        (UBUNTU, ("x86_64-linux-gnu-gcc-13", "gcc-13", "gcc")),
        (FEDORA, ("gcc",)),
        (CLANG, ("clang-16", "clang")),
        ({**CLANG, "CONFIG_CLANG_VERSION": "?"}, ("clang",)),
        ({}, ("gcc",)),
        ({"CONFIG_CC_VERSION_TEXT": '""'}, ("gcc",)),
        ({"CONFIG_CC_VERSION_TEXT": '"$(reboot)gcc x"'}, ("gcc",)),
    ],
)
def test_compilers_best_first(config: dict[str, str], expected: tuple[str, ...]) -> None:
    assert compilers(config) == expected


@pytest.mark.parametrize(
    ("config", "present", "forced", "cc", "overrides"),
    [
        (DEBIAN, {"gcc", "gcc-12"}, True, "gcc-12", ()),
        (DEBIAN, {"gcc"}, True, "gcc-12", ()),  # the headers take no other: it will be told that it is missing
        (DEBIAN, {"gcc"}, False, "gcc", ()),
        (UBUNTU, {"gcc", "gcc-13"}, False, "gcc-13", ("CC=gcc-13",)),
        (UBUNTU, {"gcc", "x86_64-linux-gnu-gcc-13"}, False, "x86_64-linux-gnu-gcc-13", ("CC=x86_64-linux-gnu-gcc-13",)),
        (FEDORA, {"gcc"}, False, "gcc", ()),
        (CLANG, {"clang", "gcc"}, False, "clang", ("LLVM=1", "CC=clang")),
        (CLANG, {"gcc"}, False, "clang-16", ("LLVM=1", "CC=clang-16")),
        ({**CLANG, "CONFIG_LD_IS_LLD": "n"}, {"clang"}, False, "clang", ("CC=clang",)),
    ],
)
def test_choice(config: dict[str, str], present: set[str], forced: bool, cc: str, overrides: tuple[str, ...]) -> None:
    chosen = choose(config, frozenset(present), forced=forced)
    assert (chosen.cc, chosen.overrides) == (cc, overrides)


def test_lld_brings_llvm_s_strip_and_is_exported() -> None:
    chosen = choose(CLANG, frozenset({"clang"}), forced=False)
    assert (chosen.ld, chosen.strip) == ("ld.lld", "llvm-strip")
    assert exported(chosen)["LD"] == "ld.lld"
    assert "LD" not in exported(choose(FEDORA, frozenset({"gcc"}), forced=False))


@pytest.mark.parametrize(
    ("tool", "package"),
    [
        ("gcc-12", "gcc-12"),
        ("x86_64-linux-gnu-gcc-13", "gcc-13"),
        ("ld", "binutils"),
        ("ld.lld", "lld"),
        ("make", "make"),
    ],
)
def test_the_hint_names_the_package(tool: str, package: str) -> None:
    reason = missing_tool(tool, "6.1.0")
    assert reason.hint is not None
    assert f"apt-get install {package}," in reason.hint
    assert tool in reason.text


def program(root: Path, path: str) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("#!/bin/sh\n")
    place.chmod(0o755)


def test_programs_are_found_through_the_root_s_alternatives(tmp_path: Path) -> None:
    program(tmp_path, "usr/bin/gcc-12")
    (tmp_path / "etc/alternatives").mkdir(parents=True)
    (tmp_path / "etc/alternatives/gcc").symlink_to("/usr/bin/gcc-12")
    (tmp_path / "usr/bin/gcc").symlink_to("/etc/alternatives/gcc")
    (tmp_path / "usr/bin/dangling").symlink_to("/usr/bin/gone")
    (tmp_path / "usr/bin/loop").symlink_to("loop")
    (tmp_path / "usr/bin/data").write_text("not executable")
    paths = Paths(tmp_path)
    assert find_program(paths, "gcc") == tmp_path / "usr/bin/gcc-12"
    assert [find_program(paths, name) for name in ("dangling", "loop", "data", "none")] == [None] * 4


@pytest.mark.parametrize("missing", ["make", "gcc-12", "ld", "strip"])
def test_the_first_missing_tool_is_told(tmp_path: Path, missing: str) -> None:
    for tool in {"make", "gcc-12", "gcc", "ld", "strip"} - {missing}:
        program(tmp_path, f"usr/bin/{tool}")
    kdir = tmp_path / "usr/src/linux-headers"
    kdir.mkdir(parents=True)
    (kdir / ".kernelvariables").write_text("override ARCH = x86\nCC = $(CROSS_COMPILE)gcc-12\n")
    kernel = Kernel("6.1", KernelState.COMPLETE, str(tmp_path), str(kdir), None, (), 0)
    abi = KernelAbi("6.1", None, None, None, True, {}, None, None, None, DEBIAN, ())
    toolchain, problem = read_toolchain(Paths(tmp_path), kernel, abi)
    assert problem is not None
    assert problem.kind == "tool-missing"
    assert problem.text.startswith(f"{missing} is not installed")
    assert toolchain.identity == ()
