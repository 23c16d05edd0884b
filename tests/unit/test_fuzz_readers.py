"""Readers under hostile input: a value or FormatError, whatever the bytes, and in bounded time."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import re

import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autokmod.decide.compat import check_set
from autokmod.errors import FormatError
from autokmod.model import Verdict
from autokmod.observe.abi import parse_config
from autokmod.observe.blob import decompress
from autokmod.observe.depmodconf import parse_depmod_conf
from autokmod.observe.ko import parse_module
from autokmod.observe.modtree import DepmodConfig
from autokmod.observe.signature import read_signature
from autokmod.observe.symvers import parse_symvers
from tests.elfwriter import EM_386, EM_PPC64, Exp, Format, Sec, make_ko, sign, write_elf
from tests.unit.test_compat import ABI

SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
VERSIONS = {"module_layout": 1, "kfree": 2, "a_longer_name_of_a_symbol": 3}
EXPORTS = [Exp("one", 5, gpl=True, namespace="NS"), Exp("two")]
SEEDS = [
    make_ko(versions=VERSIONS, ext_versions=VERSIONS, weak=["w"], exports=EXPORTS),
    make_ko(versions=VERSIONS, exports=EXPORTS, exports_as="kflagstab", form=Format(32, ">", EM_386)),
    make_ko(versions=VERSIONS, exports=EXPORTS, exports_as="absolute", form=Format(64, ">", EM_PPC64)),
    sign(make_ko(versions=VERSIONS)),
]
# Numbers that sit on edges of 16, 32 and 64 bits; and where a module's own structures begin.
EDGES = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0xFFF1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63, 2**64 - 1])
PATCHES = st.lists(
    st.tuples(st.integers(0, 1 << 16), EDGES | st.integers(0, 255), st.sampled_from([1, 2, 4, 8])), max_size=8
)
CHUNKS = st.tuples(st.integers(0, 1 << 16), st.integers(0, 400))


def patched(data: bytes, patches: list[tuple[int, int, int]], cut: tuple[int, int] | None) -> bytes:
    raw = bytearray(data)
    for where, value, width in patches:
        at = where % len(raw)
        raw[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")[: len(raw) - at]
    if cut is not None:
        start = cut[0] % len(raw)
        del raw[start : start + cut[1]]
    return bytes(raw)


def read_ko(data: bytes) -> None:
    """What is read at all can be judged, and what is damaged is not waved through for its symbols."""
    with contextlib.suppress(FormatError):
        facts = parse_module("fuzzed.ko", data)
        (result,) = check_set([facts], ABI, {})
        assert result.verdict in Verdict
        assert (result.verdict is Verdict.COMPATIBLE) == (result.reasons == ())


@SETTINGS
@given(seed=st.sampled_from(SEEDS), patches=PATCHES, cut=st.none() | CHUNKS)
def test_damaged_modules(seed: bytes, patches: list[tuple[int, int, int]], cut: tuple[int, int] | None) -> None:
    read_ko(patched(seed, patches, cut))


@SETTINGS
@given(seed=st.sampled_from(SEEDS), patches=PATCHES)
def test_damaged_section_headers(seed: bytes, patches: list[tuple[int, int, int]]) -> None:
    """They stand at the end, and decide on everything else."""
    size = 1400
    read_ko(seed[:-size] + patched(seed[-size:], patches, None))


@SETTINGS
@given(head=st.sampled_from([b"", b"\x7fELF\x02\x01\x01", b"\x7fELF\x01\x02\x01"]), rest=st.binary(max_size=300))
def test_any_bytes(head: bytes, rest: bytes) -> None:
    read_ko(head + rest)


@SETTINGS
@given(
    name=st.sampled_from(
        [
            ".modinfo",
            "__versions",
            "__version_ext_crcs",
            "__version_ext_names",
            "__ksymtab",
            ".gnu.linkonce.this_module",
        ]
    ),
    data=st.binary(max_size=200),
)
def test_any_section(name: str, data: bytes) -> None:
    read_ko(write_elf([Sec(name, data), Sec("__version_ext_names", b"a\0b\0")], []))


@SETTINGS
@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_signature(body: bytes, trailer: bytes) -> None:
    data = body + trailer + b"~Module signature appended~\n"
    assert 0 <= read_signature(data)[1] <= len(data)


@SETTINGS
@given(st.text(alphabet="0x12f\ta\nvmlinux EXPORT_SYMBOL_GPL\0\x7f", max_size=200))
def test_symvers(text: str) -> None:
    good = "0x12345678\ta\tvmlinux\tEXPORT_SYMBOL\t\n"
    for data in (text.encode(), (good + text).encode()):
        with contextlib.suppress(FormatError):
            found = parse_symvers(data, "Module.symvers")
            assert len(found) == data.count(b"\n")
            assert all(found[name].name == name for name in found)


@SETTINGS
@given(st.binary(max_size=200))
def test_config(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert all(key.startswith("CONFIG_") for key in parse_config(data, "config"))


@SETTINGS
@given(st.text(alphabet="search override*external\texclude \\\n#([{^$+.?", max_size=200))
def test_depmod_conf(text: str) -> None:
    config = parse_depmod_conf(text, "a.conf", "6.1.0", DepmodConfig(search=()))
    assert all(re.search(r"line \d+", p.text) for p in config.problems)


STREAMS = [gzip.compress(SEEDS[0]), lzma.compress(SEEDS[0]), zstandard.ZstdCompressor().compress(SEEDS[0])]


@SETTINGS
@given(seed=st.sampled_from(STREAMS), patches=PATCHES, cut=st.none() | CHUNKS, more=st.binary(max_size=20))
def test_streams(seed: bytes, patches: list[tuple[int, int, int]], cut: tuple[int, int] | None, more: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert len(decompress(patched(seed, patches, cut) + more, "file", limit=1 << 20)) <= 1 << 20
