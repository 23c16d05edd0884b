"""Modules made for the purpose: one or more for each rule of the loader.

Each case says what the checker has to answer: the kind of the reason for which it refuses or doubts, or none. Where the
loader may be of another mind, `why` says with what right; there is no other exception.
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import zstandard

from autokmod.model import KernelAbi
from tests.vm import craft
from tests.vm.made import (
    CHANCE,
    ENFORCE,
    FORCED,
    KMOD,
    LIVEPATCH,
    LOCKDOWN,
    SIZE,
    UNCOMPARED,
    UNKNOWN_KEY,
    UNREADABLE,
    Made,
    bad,
    doubtful,
    good,
)
from tests.vm.qemu import COMPRESSED_FILE

DUPLICATE = "vmt_a"  # what vmt_clash exports: to be renamed to exports of the same length
SHT_NOBITS = 8


def cases(built: Mapping[str, bytes], abi: KernelAbi) -> list[Made]:
    m = {name.removeprefix("vmt_"): Made("", name, data) for name, data in built.items()}
    m["giver"] = replace(m["giver"], id="giver")
    groups = (untouched(m), form(m, abi), identity(m, abi), licences(m), namespaces(m), tables(m), weak(m))
    more = (duplicates(m, abi), signatures(m), providers(m), compressed(m, abi), btf(m), damaged(m))
    return [case for group in (*groups, *more) for case in group]


def version(krel: str) -> tuple[int, ...]:
    return tuple(int(n) for n in krel.split("-")[0].split(".")[:2])


def untouched(m: Mapping[str, Made]) -> Iterator[Made]:
    for name in ("plain", "gplonly", "namespace", "weak", "giver", "clash"):
        yield good(f"untouched-{name}", m[name])


# ---- what it is


def form(m: Mapping[str, Made], abi: KernelAbi) -> Iterator[Made]:
    plain, this = m["plain"], ".gnu.linkonce.this_module"
    size = craft.section(plain.data, this).size
    older = SIZE if version(abi.krel) < (6, 4) else ""
    for delta in (-64, 64):
        case = bad(
            f"struct-module-{delta}", plain, craft.with_header(plain.data, this, sh_size=size + delta), "struct-size"
        )
        yield replace(case, doubt=True, why=older) if older else case
    yield bad("no-this-module", plain, craft.without(plain.data, this), "not-a-module")
    twice = craft.renamed_section(plain.data, ".exit.data", this)
    yield bad("two-this-modules", plain, twice, "not-a-module", older)
    yield bad(
        "this-module-nobits", plain, craft.with_header(plain.data, this, sh_type=SHT_NOBITS), "not-a-module", older
    )
    yield bad("this-module-not-loaded", plain, craft.with_header(plain.data, this, sh_flags=0), "not-a-module", older)
    for kind in (3, 9, 26, 42, 99):  # GOT32, GOTPCREL, GOTPC32, REX_GOTPCRELX, and none at all
        strange = craft.with_relocation(plain.data, ".init.text", kind)
        yield bad(f"relocation-{kind}", plain, strange, "unknown-relocation")
    yield bad("common-symbol", m["common"], m["common"].data, "common-symbol")
    yield doubtful("stripped", plain, craft.with_header(plain.data, ".symtab", sh_type=1), "unreadable", "")
    yield bad("32-bit", plain, compiled("-m32"), "other-machine")
    yield bad("x32", plain, compiled("-mx32"), "other-machine")
    yield doubtful("program", plain, craft.with_bytes(plain.data, 16, b"\2"), "unreadable", "")
    for name, machine in (("i386", 3), ("aarch64", 183), ("ppc64", 21)):
        yield bad(
            f"machine-{name}", plain, craft.with_bytes(plain.data, 18, machine.to_bytes(2, "little")), "other-machine"
        )
    for name, data in (("empty", b""), ("text", b"not a module\n"), ("zeros", bytes(4096))):
        yield doubtful(f"file-{name}", plain, data, "unreadable", "")


def compiled(*flags: str) -> bytes:
    """A relocatable object of another kind of machine, with a this_module section."""
    text = '__attribute__((section(".gnu.linkonce.this_module"))) char this_module[896] = "vmt_plain";\n'
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "object"
        argv = ["gcc", *flags, "-ffreestanding", "-x", "c", "-c", "-o", str(target), "-"]
        subprocess.run(argv, input=text.encode(), check=True, capture_output=True, timeout=60)
        return target.read_bytes()


def identity(m: Mapping[str, Made], abi: KernelAbi) -> Iterator[Made]:
    """vermagic: the release may differ, nothing else."""
    plain = m["plain"]
    release, _, flags = craft.modinfo(plain.data, "vermagic").partition(" ")

    def with_vermagic(vermagic: str | None) -> bytes:
        return craft.with_modinfo(plain.data, vermagic=vermagic)

    others = {f"without-{word}": flags.replace(f"{word} ", "") for word in flags.split()}
    others |= {f"with-{word}": f"{flags}{word} " for word in ("preempt_rt", "RANDSTRUCT_1234")}
    wrong = {name: f"{release} {text}" for name, text in others.items()}
    wrong |= {"without-last-space": f"{release} {flags.rstrip()}", "of-one-word": release, "empty": ""}
    for name, text in wrong.items():
        yield bad(f"vermagic-{name}", plain, with_vermagic(text), "vermagic-mismatch")
    yield good("vermagic-other-release", plain, with_vermagic(f"9.9.9-other {flags}"))
    yield doubtful("vermagic-missing", plain, with_vermagic(None), "no-vermagic", FORCED)
    livepatch = craft.with_modinfo(plain.data, livepatch="Y")
    yield good("livepatch-of-this-kernel", plain, livepatch)
    other = craft.with_modinfo(livepatch, vermagic=f"9.9.9-other {flags}")
    yield bad("livepatch-of-another", plain, other, "livepatch", LIVEPATCH)


def licences(m: Mapping[str, Made]) -> Iterator[Made]:
    free = ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
    user, plain = m["gplonly"], m["plain"]
    for licence in free:
        yield good(f"licence-{licence.replace(' ', '-')}", user, craft.with_modinfo(user.data, license=licence))
    for other in ("Proprietary", "GPLv2", "GPL v3", "BSD", "MIT", "Dual BSD", "gpl", None):
        name = str(other).replace(" ", "-")
        yield bad(f"licence-{name}", user, craft.with_modinfo(user.data, license=other), "gpl-only")
        yield good(f"licence-{name}-without-need", plain, craft.with_modinfo(plain.data, license=other))
    # Of two licences the loader takes the first.
    both = craft.with_modinfo(user.data, license="GPL\0license=Proprietary")
    yield good("licence-GPL-then-Proprietary", user, both)
    yield bad(
        "licence-Proprietary-then-GPL",
        user,
        craft.with_modinfo(user.data, license="Proprietary\0license=GPL"),
        "gpl-only",
    )


def namespaces(m: Mapping[str, Made]) -> Iterator[Made]:
    user = m["namespace"]
    for other in (None, "OTHER", "DMA_BU", "DMA_BUFF", "dma_buf", ""):
        yield bad(f"namespace-{other}", user, craft.with_modinfo(user.data, import_ns=other), "namespace-not-imported")
    yield good("namespace-second-of-two", user, craft.with_modinfo(user.data, import_ns="OTHER\0import_ns=DMA_BUF"))
    weak = craft.with_weak(craft.with_modinfo(user.data, import_ns=None), "dma_buf_put")
    yield bad("namespace-of-weak", user, weak, "namespace-not-imported")


# ---- CRCs


def tables(m: Mapping[str, Made]) -> Iterator[Made]:
    plain, user = m["plain"], m["gplonly"]
    for symbol in ("module_layout", "_printk"):
        yield bad(f"crc-{symbol}", plain, craft.with_versions(plain.data, **{symbol: 1}), "crc-mismatch")
        absent = craft.with_versions(plain.data, **{symbol: None})
        yield doubtful(f"crc-missing-{symbol}", plain, absent, "crc-missing", UNCOMPARED)
    yield bad("crc-two", user, craft.with_versions(user.data, _printk=1, kernel_kobj=2), "crc-mismatch")
    yield bad("crc-top-bit", plain, craft.with_versions(plain.data, _printk=0xFFFFFFFF), "crc-mismatch")
    yield bad("symbol-missing", user, craft.renamed_symbol(user.data, "kernel_kobj", "kernel_kobk"), "symbol-missing")
    yield good("crc-unused", plain, craft.with_versions(plain.data, kernel_kobj=1))
    yield doubtful("no-versions", plain, craft.without(plain.data, "__versions"), "no-versions", FORCED)
    yield doubtful(
        "no-entries",
        plain,
        craft.with_versions(plain.data, **dict.fromkeys(craft.versions(plain.data))),
        "crc-missing",
        UNCOMPARED,
    )
    release, _, flags = craft.modinfo(plain.data, "vermagic").partition(" ")
    foreign = craft.with_modinfo(craft.without(plain.data, "__versions"), vermagic=f"{release}x {flags}")
    yield bad("no-versions-other-release", plain, foreign, "release-mismatch")
    # Kernels before 6.14 do not know the extended tables; the ones below agree with the basic table.
    yield good("ext-too", plain, craft.with_ext_versions(plain.data))
    yield bad("ext-too-crc", plain, craft.with_ext_versions(craft.with_versions(plain.data, _printk=1)), "crc-mismatch")
    only = craft.without(craft.with_ext_versions(plain.data), "__versions")
    yield bad(
        "ext-only-other-release", plain, craft.with_modinfo(only, vermagic=f"{release}x {flags}"), "release-mismatch"
    )


def weak(m: Mapping[str, Made]) -> Iterator[Made]:
    user = m["weak"]
    yield bad("weak-present-crc", user, craft.with_versions(user.data, kernel_kobj=1), "crc-mismatch")
    yield doubtful(
        "weak-present-crc-missing", user, craft.with_versions(user.data, kernel_kobj=None), "crc-missing", UNCOMPARED
    )
    yield good("weak-absent-crc", user, craft.with_versions(user.data, vmt_nowhere=1))
    # GPL-only symbols are invisible to others, so to them they are absent.
    proprietary = craft.with_modinfo(user.data, license="Proprietary")
    yield good("weak-gplonly", user, proprietary)
    yield good("weak-gplonly-crc", user, craft.with_versions(proprietary, kernel_kobj=1))
    yield bad("weak-made-strong", user, craft.with_strong(user.data, "vmt_nowhere"), "symbol-missing")


# ---- exports


def duplicates(m: Mapping[str, Made], abi: KernelAbi) -> Iterator[Made]:
    clash, giver = replace(m["clash"], id="clash"), m["giver"]
    yield bad("export-of-vmlinux", clash, craft.renamed_symbol(clash.data, DUPLICATE, "kfree"), "duplicate-export")
    theirs = sorted(n for n in abi.exports if len(n) == len(DUPLICATE) and abi.exports[n].exporter != "vmlinux")
    data = craft.renamed_symbol(clash.data, DUPLICATE, theirs[0])
    for where, symbols in (("elsewhere", ()), ("loaded", (theirs[0],))):
        case = doubtful(f"export-of-module-{where}", clash, data, "duplicate-export", CHANCE)
        yield replace(case, symbols=symbols)
    twin = craft.renamed_module(clash.data, "vmt_clash", "vmt_crash")
    yield doubtful("two-exporters", replace(clash, name="vmt_crash", others=(clash,)), twin, "duplicate-export", CHANCE)
    bare = craft.without_crcs(giver.data)
    yield doubtful("exports-without-crc", giver, bare, "exports-without-crc", FORCED)


def providers(m: Mapping[str, Made]) -> Iterator[Made]:
    giver, taker, mixed = m["giver"], m["taker"], m["mixed"]
    both = replace(taker, others=(giver,)), replace(mixed, others=(giver,))
    yield good("taker", both[0])
    yield good("mixed", both[1])
    yield bad("taker-alone", taker, taker.data, "symbol-missing")
    yield bad("taker-crc", both[0], craft.with_versions(taker.data, vmt_first=1), "crc-mismatch")
    yield bad("mixed-namespace", both[1], craft.with_modinfo(mixed.data, import_ns=None), "namespace-not-imported")
    yield bad("mixed-licence", both[1], craft.with_modinfo(mixed.data, license="BSD"), "gpl-only")
    refused = bad("giver", giver, craft.with_versions(giver.data, _printk=1, module_layout=1), "crc-mismatch")
    yield bad("taker-of-refused", replace(taker, others=(refused,)), taker.data, "provider-incompatible")
    closed = good("giver", giver, craft.with_modinfo(giver.data, license="Proprietary"))
    yield good("taker-of-proprietary", replace(taker, others=(closed,)))
    yield bad("mixed-of-proprietary", replace(mixed, others=(closed,)), mixed.data, "proprietary-provider")


# ---- signatures and compression


def signatures(m: Mapping[str, Made]) -> Iterator[Made]:
    plain = m["plain"]
    blob = craft.signature(plain.data)
    whole = craft.with_signature(plain.data, blob)
    yield good("signed", plain, whole)
    yield good(
        "signed-then-changed", plain, craft.with_signature(craft.with_modinfo(plain.data, description="x"), blob)
    )
    yield from broken_signatures(plain, blob)
    # What stands before the marker is taken for a trailer, and here it says nothing of PKCS#7.
    yield good("signature-marker-only", plain, plain.data + craft.MARKER)
    overlapping = craft.with_signature(plain.data, blob, size=len(blob) + 1)
    yield doubtful("signature-size-too-large", plain, overlapping, "unreadable", "")
    yield good("signature-followed-by-more", plain, whole + b"\n")
    for name, options in (("enforced", ENFORCE), ("lockdown", LOCKDOWN)):
        strict = replace(plain, options=options)
        yield bad(f"unsigned-{name}", strict, plain.data, "unsigned")
        yield doubtful(f"signed-{name}", strict, whole, "signer-unverified", UNKNOWN_KEY)
        yield bad(f"signature-id-type-{name}", strict, craft.with_signature(plain.data, blob, id_type=0), "unsigned")
        yield bad(
            f"signature-size-{name}", strict, craft.with_signature(plain.data, blob, size=1 << 30), "signature-damaged"
        )


def broken_signatures(plain: Made, blob: bytes) -> Iterator[Made]:
    data = plain.data
    yield good("signature-id-type", plain, craft.with_signature(data, blob, id_type=0))
    for name, broken in (
        ("size-beyond-file", craft.with_signature(data, blob, size=1 << 30)),
        ("size-0", craft.with_signature(data, b"")),
        ("size-too-small", craft.with_signature(data, blob, size=len(blob) - 1)),
        ("algo", craft.with_signature(data, blob, algo=1)),
        ("zeros", craft.with_signature(data, bytes(len(blob)))),
        ("text", craft.with_signature(data, b"x" * 300)),
        ("half", craft.with_signature(data, blob[: len(blob) // 2])),
        ("sequence-of-nothing", craft.with_signature(data, b"\x30\x00")),
    ):
        yield bad(f"signature-{name}", plain, broken, "signature-damaged")


def compressed(m: Mapping[str, Made], abi: KernelAbi) -> Iterator[Made]:
    """As kmod unpacks them; and as the kernel itself does, where it can."""
    plain = m["plain"]
    by_kmod = replace(plain, tool=KMOD)
    xz, zst = lzma.compress(plain.data, check=lzma.CHECK_CRC32), zstandard.compress(plain.data)
    yield good("kmod-plain", by_kmod)
    yield replace(by_kmod, id="kmod-xz", data=xz, suffix=".ko.xz")
    yield replace(by_kmod, id="kmod-zst", data=zst, suffix=".ko.zst")
    wrong = lzma.compress(craft.with_versions(plain.data, _printk=1))
    yield bad("kmod-xz-crc", replace(by_kmod, suffix=".ko.xz"), wrong, "crc-mismatch")
    for name, data in (("xz", xz), ("zst", zst), ("gz", gzip.compress(plain.data))):
        packed = replace(by_kmod, suffix=f".ko.{name}")
        yield doubtful(f"{name}-truncated", packed, data[:-20], "unreadable", "")
        zeros = craft.with_bytes(data, len(data) // 2, bytes(64))
        yield doubtful(f"{name}-damaged", packed, zeros, "unreadable", "")
    if abi.config.get("CONFIG_MODULE_DECOMPRESS") == "y" and abi.config.get("CONFIG_MODULE_COMPRESS_XZ") == "y":
        yield replace(plain, id="kernel-xz", data=xz, flags=COMPRESSED_FILE)


# ---- type information


def btf(m: Mapping[str, Made]) -> Iterator[Made]:
    """Debian's kernels have CONFIG_MODULE_ALLOW_BTF_MISMATCH: whatever is wrong with it, the module loads without."""
    plain = m["plain"]
    if any(s.name == ".BTF" for s in craft.sections(plain.data)):
        foreign = craft.content(m["namespace"].data, ".BTF")
        for name, data in (("foreign", foreign), ("zeros", bytes(100)), ("half", foreign[: len(foreign) // 2])):
            yield good(f"btf-{name}", plain, craft.with_content(plain.data, ".BTF", data))


# ---- damage


def damaged(m: Mapping[str, Made]) -> Iterator[Made]:
    for where, data in craft.truncations(m["giver"].data):
        yield doubtful(f"truncated-{where}", m["giver"], data, "unreadable", UNREADABLE)


def scars(built: Mapping[str, bytes]) -> list[Made]:
    """Of these nothing is expected but that the checker is at least as strict as the loader."""
    giver, plain = (Made("", name, built[name]) for name in ("vmt_giver", "vmt_plain"))
    found = [good(label, giver, data) for label, data in craft.field_damages(giver.data)]
    signed = craft.signature_damages(plain.data, craft.signature(plain.data))
    return found + [good(label, plain, data) for label, data in signed]
