"""The corpus to begin with: real modules, plain and compressed, real symvers and configurations, depmod.d files."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import random
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import zstandard

from autokmod.errors import FormatError
from autokmod.observe.ko import parse_module
from tests.corpus import CHECKOUT, Corpus
from tests.elfwriter import ext_sections, make_ko, pkcs7_message, sign, versions_section
from tests.fuzz.targets import SECTIONS, VERSIONS

LARGEST = 48 << 10
CONFS = (
    "search updates extra built-in weak-updates\noverride kfoo * extra\n",
    "# comment\nsearch updates/autokmod \\\n  updates built-in\nexternal * /opt/modules\nexclude build\n",
    "override hid-kye 6.1.* updates/dkms\nmake_map_files no\n",
)
PLACES = ("layers/linux-image-*/usr/lib/modules/*/kernel/**/*.ko", "vm/*/*.ko")
STABLE = "[rhel9_x86_64_stablelist]\n\t__kmalloc\n\tkfree\n"


def seed(corpus: Corpus, directory: Path) -> None:
    """directory/TARGET/…; what is there already stays."""
    modules = list(real_modules(corpus))
    symvers = sorted(corpus.directory.glob("layers/linux-headers-*/usr/src/*/Module.symvers"))
    configs = sorted(corpus.directory.glob("layers/linux-*/**/config-*"))
    confs = [f.read_bytes() for f in (CHECKOUT / "autokmod/data/depmod.d").glob("*.conf")]
    packed = [pack(m) for m in modules[:12] for pack in (gzip.compress, lzma.compress, zstandard.compress)]
    for target, contents in {
        "ko": [*modules, make_ko(versions=VERSIONS, ext_versions=VERSIONS), *packed[:6]],
        "patched": [struct.pack("<HHI", 24 + i, i, i) * 4 for i in range(64)],
        "sections": list(tables()),
        "compressed": packed,
        "signature": [pkcs7_message(), sign(b"module"), *(m[-2048:] for m in modules if m.endswith(b"appended~\n"))],
        "symvers": [b"".join(islice(f.open("rb"), 40 * i, 40 * i + 40)) for f in symvers[:4] for i in range(4)],
        "depmod_conf": [*confs, *(c.encode() for c in CONFS)],
        "config": [f.read_bytes()[:4096] for f in configs[:4]],
        "stablelist": [STABLE.encode()],
        "recipe": [f.read_bytes() for f in sorted((CHECKOUT / "tests/data").glob("*/autokmod.toml"))],
    }.items():
        write(directory / target, contents)


def real_modules(corpus: Corpus) -> Iterator[bytes]:
    """Small ones of the kernels and of external packages, those first that export something."""
    small = sorted(p for pattern in PLACES for p in corpus.directory.glob(pattern) if p.stat().st_size < LARGEST)
    random.Random(1).shuffle(small)
    exporting = [p for p in small[:400] if _exports(p.read_bytes())]
    yield from (p.read_bytes() for p in [*exporting[:20], *small[:20]])


def _exports(data: bytes) -> bool:
    try:
        return bool(parse_module("", data).exports)
    except FormatError:
        return False


def tables() -> Iterator[bytes]:
    """As target `sections` takes them apart."""
    crcs, names = ext_sections(VERSIONS)
    info = b"license=GPL\0vermagic=6.1.0-56-amd64 SMP \0name=x\0import_ns=NS\0"
    contents = {
        ".modinfo": info,
        "__versions": versions_section(VERSIONS),
        "__version_ext_crcs": crcs.data,
        "__version_ext_names": names.data,
    }
    whole = [struct.pack("<HB", len(data), SECTIONS.index(name)) + data for name, data in contents.items()]
    yield from whole
    yield b"".join(whole)


def write(directory: Path, contents: Iterable[bytes]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for data in contents:
        (directory / hashlib.sha1(data).hexdigest()).write_bytes(data)
