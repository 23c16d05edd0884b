"""Which compiler a kernel wants, and what is there.

A module has to be built with the compiler family of its kernel, and better with its very version: the kernel's flags
are those that its compiler knew. CONFIG_CC_VERSION_TEXT begins with the name of the program (gcc-12, or Ubuntu's
x86_64-linux-gnu-gcc-13), but clang's with the vendor. Debian's headers choose the compiler themselves, in
.kernelvariables, and take no other.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autokmod.config import Config
from autokmod.errors import FormatError, SandboxUnavailable
from autokmod.files import read_json, read_regular, write_json
from autokmod.jsonvalue import from_json, to_json
from autokmod.model import Kernel, KernelAbi, Reason
from autokmod.paths import Paths
from autokmod.run import ENV
from autokmod.sandbox import open_sandbox, run_boxed

FORMAT = 1
VERSION_LIMIT_S = 30
PACKAGES = {"ld": "binutils", "strip": "binutils", "ld.lld": "lld", "llvm-strip": "llvm"}
_TRIPLET = re.compile(r"^\w+-linux-gnu\w*-(?=gcc)")


@dataclass(frozen=True, slots=True)
class Toolchain:
    cc: str  # program names
    ld: str
    strip: str
    overrides: tuple[str, ...]  # make variables that have to win over kbuild's own: LLVM=1, CC=gcc-12
    identity: tuple[str, ...]  # what --version says of compiler and linker


@dataclass(frozen=True, slots=True)
class Versions:
    """Cache: what stat says of a program → the first line of its --version."""

    format: int
    programs: Mapping[str, str]


def read_toolchain(
    paths: Paths, kernel: Kernel, abi: KernelAbi, config: Config | None = None
) -> tuple[Toolchain, Reason | None]:
    """The reason says what is missing; the toolchain is then as far as it is known."""
    names = ("make", "ld", "strip", "ld.lld", "llvm-strip", *compilers(abi.config))
    present = {name: program for name in names if (program := find_program(paths, name)) is not None}
    chosen = choose(abi.config, frozenset(present), forced=_is_forced(kernel))
    for tool in ("make", chosen.cc, chosen.ld, chosen.strip):
        if tool not in present:
            return chosen, missing_tool(tool, kernel.krel)
    try:
        pair = (chosen.cc, chosen.ld)
        identity = tuple(_version(paths, config or Config(), tool, present[tool]) for tool in pair)
    except SandboxUnavailable as exc:
        return chosen, Reason("sandbox-unavailable", str(exc), hint=exc.hint)
    return Toolchain(chosen.cc, chosen.ld, chosen.strip, chosen.overrides, identity), None


# ---- the choice: pure ----------------------------------------------------------------------------


def compilers(config: Mapping[str, str]) -> tuple[str, ...]:
    """Program names, best first."""
    if config.get("CONFIG_CC_IS_CLANG") == "y":
        version = config.get("CONFIG_CLANG_VERSION", "")
        major = f"clang-{int(version) // 10000}" if version.isdecimal() else "clang"
        return tuple(dict.fromkeys((major, "clang")))
    words = config.get("CONFIG_CC_VERSION_TEXT", "").strip('"').split()
    built_with = words[0] if words and re.fullmatch(r"[\w.+-]*gcc[\w.+-]*", words[0]) else "gcc"
    short = _TRIPLET.sub("", built_with)
    return tuple(dict.fromkeys((built_with, short, "gcc")))


def choose(config: Mapping[str, str], present: frozenset[str], *, forced: bool) -> Toolchain:
    """The compiler that built the kernel where it is there, or else another version of it, unless `forced`.

    kbuild's Makefile sets CC, so an exported CC alone never reaches it: what differs from its default has to be
    an override. Where the headers choose for themselves there is nothing to override.
    """
    wanted = compilers(config)
    cc = next((name for name in wanted if name in present), wanted[0]) if not forced else wanted[0]
    if config.get("CONFIG_CC_IS_CLANG") == "y":
        return _clang(cc, config)
    overrides = () if forced or cc == "gcc" else (f"CC={cc}",)
    return Toolchain(cc, "ld", "strip", overrides, ())


def _clang(cc: str, config: Mapping[str, str]) -> Toolchain:
    if config.get("CONFIG_LD_IS_LLD") != "y":
        return Toolchain(cc, "ld", "strip", (f"CC={cc}",), ())
    return Toolchain(cc, "ld.lld", "llvm-strip", ("LLVM=1", f"CC={cc}"), ())


def missing_tool(tool: str, krel: str) -> Reason:
    package = PACKAGES.get(tool, _TRIPLET.sub("", tool))
    text = f"{tool} is not installed, and modules for {krel} cannot be built without it"
    return Reason("tool-missing", text, hint=f"apt-get install {package}, or dnf install {package}")


# ---- what is there -------------------------------------------------------------------------------


def _is_forced(kernel: Kernel) -> bool:
    with contextlib.suppress(OSError):
        text = read_regular(Path(kernel.kdir or "", ".kernelvariables")).decode("utf-8", "replace")
        return re.search(r"^(override )?CC\s*[:?]?=", text, re.MULTILINE) is not None
    return False


def find_program(paths: Paths, name: str) -> Path | None:
    """In the root, links followed as inside it (/etc/alternatives)."""
    for directory in ENV["PATH"].split(":"):
        with contextlib.suppress(FormatError, OSError):
            program = paths.resolve(paths.at(f"{directory}/{name}"))
            if program.is_file() and program.stat().st_mode & 0o111:
                return program
    return None


def _version(paths: Paths, config: Config, tool: str, program: Path) -> str:
    """`gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0`. Raises SandboxUnavailable."""
    cache = paths.cache / "toolchain.json"
    seen = program.stat()
    identity = f"{tool} {paths.inside(program)} {seen.st_ino}:{seen.st_size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}"
    known = _read_cache(cache)
    if identity in known:
        return known[identity]
    version = _ask(paths, config, tool)
    with contextlib.suppress(OSError):  # a read-only or full disk only costs time
        cache.parent.mkdir(parents=True, exist_ok=True)
        others = {k: v for k, v in known.items() if k.split()[:2] != identity.split()[:2]}
        write_json(cache, to_json(Versions(FORMAT, {**others, identity: version})))
    return version


def _read_cache(path: Path) -> Mapping[str, str]:
    """Whatever is wrong with a cache, the answer is to do without."""
    try:
        versions = from_json(Versions, read_json(path), str(path))
    except (OSError, FormatError):
        return {}
    return versions.programs if versions.format == FORMAT else {}


def _ask(paths: Paths, config: Config, tool: str) -> str:
    """The root's programs are run in the sandbox: with another root, that is also where their libraries are."""
    box = open_sandbox(paths, config, cwd="/")
    result = run_boxed(box, [tool, "--version"], timeout_s=VERSION_LIMIT_S)
    first = result.output.partition("\n")[0].strip()
    if result.returncode != 0:
        raise SandboxUnavailable(f"'{tool} --version' fails: {first}", "see 'autokmodctl status'")
    return first


def exported(toolchain: Toolchain) -> dict[str, str]:
    """As DKMS exports them, for the Makefiles of packages."""
    found = {"CC": toolchain.cc, "KERNEL_CC": toolchain.cc}
    if toolchain.ld != "ld":
        found |= {"LD": toolchain.ld, "KERNEL_LD": toolchain.ld}
    return found
