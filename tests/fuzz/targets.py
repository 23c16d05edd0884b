"""What is fuzzed: each reader of foreign bytes, with what must hold whatever they are.

A target takes bytes. Whatever it raises is a finding; so is what takes long, or much memory.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Iterator

from autokmod.decide.compat import check_set
from autokmod.errors import FormatError
from autokmod.model import ElfIdent, Export, KernelAbi, Verdict
from autokmod.observe.abi import parse_config
from autokmod.observe.blob import decompress
from autokmod.observe.depmodconf import parse_depmod_conf
from autokmod.observe.ko import parse_module
from autokmod.observe.modtree import DepmodConfig, picked
from autokmod.observe.signature import is_signed_data, read_signature
from autokmod.observe.stablelist import parse_stablelist
from autokmod.observe.symvers import parse_symvers
from autokmod.observe.tomlfile import RecipeFile
from autokmod.tomllines import key_lines
from autokmod.tomltable import TomlError, parse_text
from tests.elfwriter import Exp, Sec, Sym, make_ko, write_elf

KREL = "6.1.0-56-amd64"
LIMIT = 4 << 20  # bytes that a compressed stream may unpack to
SECTIONS = (".modinfo", "__versions", "__version_ext_crcs", "__version_ext_names", "__ksymtab", "__ksymtab_gpl")
EXPORTS = {n: Export(n, i, "vmlinux", i % 2 == 1, None) for i, n in enumerate(("module_layout", "kfree", "printk"))}
ABI = KernelAbi(
    KREL, ElfIdent(64, "little", 62), f"{KREL} SMP ", 896, True, EXPORTS, "/symvers", "digest", "config", {}, ()
)
VERSIONS = {"module_layout": 0, "kfree": 1}
GOOD = make_ko(versions=VERSIONS, ext_versions=VERSIONS, exports=[Exp("one", 5, gpl=True, namespace="NS"), Exp("two")])


@contextlib.contextmanager
def refusal(pattern: str = "") -> Iterator[None]:
    """The one way to say no: what is wrong, and where."""
    said = None
    try:
        yield
    except FormatError as exc:
        said = exc
    if said is not None:
        assert said.what
        assert said.offset is not None or (pattern and re.search(pattern, said.what)), f"no place: {said}"


def ko(data: bytes) -> None:
    """What is read at all can be judged; only what is without a reason is compatible."""
    with refusal():
        facts = parse_module("fuzzed.ko", decompress(data, "fuzzed.ko", limit=LIMIT))
        (result,) = check_set([facts], ABI, {})
        assert result.verdict in Verdict
        assert (result.verdict is Verdict.COMPATIBLE) == (result.reasons == ())


def patched(data: bytes) -> None:
    """The sections' headers are where chance rarely gets: 8 bytes each say what to write where in a good module."""
    raw = bytearray(GOOD)
    for where, width, value in struct.iter_unpack("<HHI", data[: len(data) // 8 * 8]):
        at, size = where % len(raw), 1 << width % 4
        # Small values come up as they are, others as all ones with some bits gone.
        number = value if value < 1 << 16 else (1 << 64) - 1 - (value & 0xFFFF)
        raw[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, "little")[: len(raw) - at]
    ko(bytes(raw))


def sections(data: bytes) -> None:
    """The contents of a module's tables, without the ELF around them: length (16 bits), which, bytes."""
    parts: list[Sec] = []
    at = 0
    while at + 3 <= len(data) and len(parts) < 12:
        size, kind = struct.unpack_from("<HB", data, at)
        parts.append(Sec(SECTIONS[kind % len(SECTIONS)], data[at + 3 : at + 3 + size % 4096]))
        at += 3 + size % 4096
    ko(write_elf(parts, [Sym("__ksymtab_one", 1), Sym("kfree")]))


def compressed(data: bytes) -> None:
    with refusal():
        assert len(decompress(data, "file", limit=LIMIT)) <= LIMIT


def signature(data: bytes) -> None:
    is_signed_data(data)
    for whole in (data, data + b"~Module signature appended~\n"):
        assert 0 <= read_signature(whole)[1] <= len(whole)


def symvers(data: bytes) -> None:
    with refusal(r"^line \d+|^empty$"):
        found = parse_symvers(data, "Module.symvers")
        assert len(found) == data.count(b"\n")
        assert all(found[name].name == name for name in found)
        assert found.exporters()


def depmod_conf(data: bytes) -> None:
    config = parse_depmod_conf(data.decode("utf-8", "backslashreplace"), "a.conf", KREL, DepmodConfig(search=()))
    assert all(re.search(r"line \d+", p.text) for p in config.problems)
    candidates = [
        "kernel/a.ko",
        "updates/dkms/a.ko",
        "extra/a.ko.xz",
        "/opt/a.ko",
        *(f"{s}/a.ko" for s in config.search),
    ]
    assert picked(config, candidates) in candidates


def config(data: bytes) -> None:
    with refusal("sets no CONFIG_ option"):
        assert all(key.startswith("CONFIG_") for key in parse_config(data, "config"))


def stablelist(data: bytes) -> None:
    with refusal(r"^line \d+"):
        assert all(word.isascii() and " " not in word for word in parse_stablelist(data, "kabi_stablelist"))


def recipe(data: bytes) -> None:
    """An autokmod.toml is a value, or wrong with a sentence; and where each key stands is found in any text."""
    key_lines(data.decode("utf-8", "replace"))
    error = None
    try:
        parse_text(data).read(RecipeFile)
    except TomlError as exc:
        error = exc
    if error is not None:
        assert error.why
        assert error.line or len(error.key) <= 1, f"no line: {error.name}"


TARGETS: dict[str, Callable[[bytes], None]] = {
    "ko": ko,
    "patched": patched,
    "sections": sections,
    "compressed": compressed,
    "signature": signature,
    "symvers": symvers,
    "depmod_conf": depmod_conf,
    "config": config,
    "stablelist": stablelist,
    "recipe": recipe,
}
