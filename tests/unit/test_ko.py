"""What is read from a module: every table and layout, and what is wrong with damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from autokmod.errors import FormatError
from autokmod.model import ElfIdent, Export, Import, ModuleFacts, Signature
from autokmod.observe import elf
from autokmod.observe.elf import Elf
from autokmod.observe.ko import parse_module, read_module
from tests.elfwriter import (
    DATA,
    EM_386,
    EM_PPC64,
    EM_S390,
    SHN_ABS,
    SHN_COMMON,
    SHN_UNDEF,
    SHT_NOBITS,
    SIGNATURE_MARK,
    STB_WEAK,
    Exp,
    Format,
    Sec,
    Sym,
    der,
    ext_sections,
    make_ko,
    pkcs7_message,
    sign,
    versions_section,
    write_elf,
)

FORMS = [Format(), Format(32, "<", EM_386), Format(64, ">", EM_S390), Format(32, ">", 20), Format(64, "<", 183)]


def text_only(value: object) -> str:
    """Names of cases: not a whole module."""
    return value if isinstance(value, str) else ""


def facts(ko: bytes) -> ModuleFacts:
    return parse_module("dir/sample.ko", ko)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_class_and_byte_order(form: Format) -> None:
    versions = {"module_layout": 0x01020304, "kfree": 0xFFFFFFFF}
    exports = (Exp("one", 5, gpl=True, namespace="NS"), Exp("two", 0))
    found = facts(make_ko(versions=versions, ext_versions=versions, weak=["w"], exports=exports, form=form))
    assert found.ident == ElfIdent(form.bits, "little" if form.order == "<" else "big", form.machine)
    assert (found.versions, found.ext_versions) == (versions, versions)
    assert found.imports == (Import("kfree", weak=False), Import("w", weak=True))
    assert found.exports == (Export("one", 5, "sample", True, "NS"), Export("two", 0, "sample", False, None))
    assert found.struct_size == 896
    assert found.problems == ()


def test_modinfo() -> None:
    info = [
        ("license", "GPL"), ("license", "MIT"), ("depends", "usbcore,snd-pcm"), ("import_ns", "A"), ("import_ns", "B"),
        ("srcversion", "ABC"), ("version", "1=2"), ("intree", "Y"), ("livepatch", "Y"), ("name", "ignored"),
    ]  # fmt: skip
    found = facts(make_ko(name="with-dash", modinfo=info))
    assert found.name == "with_dash"
    assert found.licenses == ("GPL", "MIT")
    assert found.depends == ("usbcore", "snd-pcm")
    assert found.import_ns == ("A", "B")
    assert (found.srcversion, found.version, found.intree, found.livepatch) == ("ABC", "1=2", True, True)
    assert found.release == "6.1.0-55-cloud-amd64"
    assert (found.has_btf, found.has_btf_base) == (False, False)


def test_modinfo_that_says_nothing() -> None:
    this = Sec(".gnu.linkonce.this_module", b"x")
    for section in (Sec(".modinfo", b"no equals sign\0\0\0x"), Sec(".modinfo", bytes(9), SHT_NOBITS)):
        assert facts(write_elf([this, section], [])).licenses == ()


def test_no_modinfo_and_no_tables() -> None:
    found = parse_module("a/my-own.ko.xz", write_elf([Sec(".gnu.linkonce.this_module", bytes(10))], []))
    assert found.name == "my_own"
    assert (found.vermagic, found.release, found.versions, found.ext_versions) == (None, None, None, None)
    assert (found.licenses, found.exports, found.imports) == ((), (), ())


@pytest.mark.parametrize("style", ["kcrctab", "absolute", "kflagstab"])
def test_layouts_of_exports(style: str) -> None:
    exports = [Exp("a", 0xDEADBEEF, gpl=True), Exp("b", 7), Exp("c", None), Exp("d", 9, gpl=True, namespace="N")]
    found = {e.name: e for e in facts(make_ko(exports=exports, exports_as=style)).exports}
    assert found == {
        "a": Export("a", 0xDEADBEEF, "sample", True, None),
        "b": Export("b", 7, "sample", False, None),
        "c": Export("c", None, "sample", False, None),
        "d": Export("d", 9, "sample", True, "N"),
    }


def test_a_namespace_in_no_section() -> None:
    found = facts(make_ko(exports=[Exp("a")], symbols=[Sym("__kstrtabns_a", SHN_ABS, 7)]))
    assert found.exports[0].namespace is None


def test_a_crc_that_genksyms_did_not_find() -> None:
    """A weak undefined __crc_ symbol: before 5.19."""
    weak_crc = Sym("__crc_a", SHN_UNDEF, bind=STB_WEAK)
    found = facts(make_ko(exports=[Exp("a", None)], symbols=[weak_crc]))
    assert found.exports[0].crc is None


def test_exports_without_symbols() -> None:
    with pytest.raises(FormatError, match="stripped"):
        facts(make_ko(sections=[Sec("__ksymtab_gpl", bytes(12))]))


def test_type_information() -> None:
    found = facts(make_ko(sections=[Sec(".BTF", b"x", flags=0), Sec(".BTF.base", b"x", flags=0)]))
    assert (found.has_btf, found.has_btf_base) == (True, True)


def test_imports_once_and_strong_if_one_is() -> None:
    symbols = [Sym("kfree", bind=STB_WEAK), Sym("kfree"), Sym("_GLOBAL_OFFSET_TABLE_"), Sym("w", bind=STB_WEAK)]
    assert facts(make_ko(symbols=symbols)).imports == (Import("kfree", weak=False), Import("w", weak=True))


def test_powerpc_dots() -> None:
    form = Format(64, ">", EM_PPC64)
    found = facts(make_ko(versions={"module_layout": 1, ".kfree": 2}, symbols=[Sym(".TOC.")], form=form))
    assert found.imports == (Import("kfree", weak=False),)
    assert found.versions == {"module_layout": 1, "kfree": 2}


def test_the_first_of_two_versions_counts() -> None:
    double = versions_section({"a": 1}) + versions_section({"a": 2})
    assert facts(make_ko(basic=False, sections=[Sec("__versions", double)])).versions == {"a": 1}


def test_sections_that_are_not_loaded_are_not_seen() -> None:
    assert (
        facts(make_ko(basic=False, sections=[Sec("__versions", versions_section({"a": 1}), flags=0)])).versions is None
    )


@pytest.mark.parametrize(
    ("ko", "kind"),
    [
        (make_ko(symbols=[Sym("buffer", SHN_COMMON, 8)]), "common-symbol"),
        (write_elf([Sec(".modinfo", b"name=x\0")], []), "not-a-module"),
        (write_elf([Sec(".gnu.linkonce.this_module", b"x", SHT_NOBITS)], []), "not-a-module"),
        (write_elf([Sec(".gnu.linkonce.this_module", b"x", flags=0)], []), "not-a-module"),
        (write_elf([Sec(".gnu.linkonce.this_module", b"x")] * 2, []), "not-a-module"),
    ],
    ids=text_only,
)
def test_what_every_loader_refuses(ko: bytes, kind: str) -> None:
    assert [p.kind for p in facts(ko).problems] == [kind]


def test_link_time_leftovers_are_no_common_symbols() -> None:
    assert facts(make_ko(symbols=[Sym("__gnu_lto_slim", SHN_COMMON, 1)])).problems == ()


@pytest.mark.parametrize(
    ("ko", "what"),
    [
        (b"", "empty file"),
        (b"foo\n", "not an ELF file"),
        (b"\x7fELF", "ELF class"),
        (b"\x7fELF\x09\x01" + bytes(60), "ELF class"),
        (write_elf([], [], kind=3), "not a relocatable object"),
        (make_ko()[:60], "ends within the ELF header"),
        (make_ko()[:-1], "truncated"),
        (make_ko(basic=False, sections=[Sec("__versions", bytes(65))]), "not whole entries"),
        (make_ko(basic=False, sections=[Sec("__versions", b"x" * 64)]), "does not end"),
        (make_ko(sections=[Sec("__version_ext_crcs", bytes(4))]), "only one of"),
        (make_ko(ext_versions={}), "empty or truncated"),
        (make_ko(sections=[Sec("__version_ext_crcs", bytes(5)), Sec("__version_ext_names", b"a\0")]), "truncated"),
        (make_ko(sections=[Sec("__version_ext_crcs", bytes(4)), Sec("__version_ext_names", b"a")]), "truncated"),
        (make_ko(sections=[Sec("__version_ext_crcs", bytes(8)), Sec("__version_ext_names", b"a\0")]), "2 CRCs for 1"),
        (make_ko(sections=[Sec(".modinfo", b"")]), "2 sections are called .modinfo"),
        (make_ko(exports=[Exp("a", None)], symbols=[Sym("__crc_a", "__ksymtab", 10)]), "outside section"),
        (make_ko(exports=[Exp("a", None)], symbols=[Sym("__crc_a", 500)]), "does not exist"),
        (make_ko(exports=[Exp("a", None)], symbols=[Sym("__crc_a", "x")], sections=[Sec("x", b"1234", 0)]), "outside"),
        (make_ko(basic=False, sections=[Sec("__versions", bytes(64), SHT_NOBITS)]), "not whole entries"),
    ],
    ids=text_only,
)
def test_what_is_wrong(ko: bytes, what: str) -> None:
    with pytest.raises(FormatError, match=what) as caught:
        facts(ko)
    assert caught.value.path == "dir/sample.ko"


def patched(ko: bytes, offset: int, kind: str, value: int) -> bytes:
    raw = bytearray(ko)
    struct.pack_into(kind, raw, offset, value)
    return bytes(raw)


def with_header(ko: bytes, section: str, **fields: int) -> bytes:
    """With other values in a section's header."""
    (start,) = struct.unpack_from("<Q", ko, 40)
    (number,) = (s.number for s in Elf("x", ko).sections if s.name == section)
    places = {"name": (0, "<I"), "type": (4, "<I"), "size": (32, "<Q"), "link": (40, "<I"), "info": (44, "<I")}
    for field, value in fields.items():
        offset, kind = places[field]
        ko = patched(ko, start + 64 * number + offset, kind, value)
    return ko


GOOD = make_ko(sections=[Sec("text", b"x")])


@pytest.mark.parametrize(
    ("ko", "what"),
    [
        (patched(GOOD, 58, "<H", 40), "section headers of 40 bytes"),
        (patched(GOOD, 60, "<H", 500), "do not fit"),
        (patched(GOOD, 40, "<Q", 1 << 60), "do not fit"),
        (patched(GOOD, 62, "<H", 0), "no section with the sections' names"),
        (patched(GOOD, 62, "<H", 500), "no section with the sections' names"),
        (patched(GOOD, len(GOOD) - 64 * 8 + 4, "<I", 1), "first section header is not empty"),
        (patched(GOOD, len(GOOD) - 64 * 8 + 16, "<Q", 1), "first section header is not empty"),
        (patched(GOOD, len(GOOD) - 64 * 8 + 32, "<Q", 1), "first section header is not empty"),
        (with_header(GOOD, ".strtab", type=0), "of type 0 instead of a string table"),
        (with_header(GOOD, ".shstrtab", type=1), "of type 1 instead of a string table"),
        (with_header(GOOD, "__versions", name=1 << 20), "a name at 1048576"),
        (with_header(GOOD, "__versions", size=1 << 40), "does not fit"),
        (with_header(GOOD, ".symtab", link=99), "links to section 99"),
        (with_header(GOOD, ".symtab", link=4), "instead of a string table"),
        (with_header(GOOD, ".strtab", size=3), "does not end in a zero byte"),
        (with_header(GOOD, ".symtab", type=1), "0 symbol tables"),
        (with_header(GOOD, ".strtab", type=2, link=1), "2 symbol tables"),
        (with_header(GOOD, ".symtab", size=25), "ends within a symbol"),
    ],
    ids=text_only,
)
def test_wrong_headers(ko: bytes, what: str) -> None:
    assert facts(GOOD).problems == ()
    with pytest.raises(FormatError, match=what):
        facts(ko)


def relocated(*kinds: int, target: int = 1, machine: int = 62) -> ModuleFacts:
    """With relocations of these types for section `target`."""
    entries = b"".join(struct.pack("<QIIq", 8 * i, kind, 1, -4) for i, kind in enumerate(kinds))
    ko = make_ko(sections=[Sec(".rela.x", entries, type=4, flags=0)])
    return facts(patched(with_header(ko, ".rela.x", info=target), 18, "<H", machine))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (relocated(0, 1, 2, 4, 10, 11, 24), None),
        (relocated(2, 9, 42, 9), "it has relocations of type 9, 42, which the kernel does not know"),
        (relocated(9, target=99), None),
        (relocated(9, target=0), None),  # not loaded, as the first section never is
        (relocated(9, machine=EM_PPC64), None),  # no list
    ],
)
def test_relocations(found: ModuleFacts, text: str | None) -> None:
    assert [(p.kind, p.text) for p in found.problems] == ([("unknown-relocation", text)] if text else [])


def test_more_symbols_than_any_module_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "MAX_SYMBOLS", 2)
    assert facts(make_ko(imports=["a", "b"], symbols=[Sym("c", 1)])).imports
    with pytest.raises(FormatError, match="more than 2 symbols"):
        facts(make_ko(imports=["a", "b", "c"]))


def test_truncated_at_every_section_boundary_and_every_tenth_byte() -> None:
    whole = make_ko(versions={"module_layout": 1, "a": 2}, exports=[Exp("b")])
    ends = {s.offset for s in Elf("x", whole).sections} | {s.offset + s.size for s in Elf("x", whole).sections}
    for end in (ends | set(range(0, len(whole), 10))) - {len(whole)}:
        with pytest.raises(FormatError):
            facts(whole[:end])


# ---- signatures

# As `openssl cms -sign` makes it, but for the 256 bytes of the signature itself.
REAL = bytes.fromhex(
    "3082018806092a864886f70d010702a082017930820175020101310d300b0609608648016503040201300b06092a864886f70d010701318201"
    "523082014e02010130293011310f300d06035504030c066e6f626f6479021479cb90aa571623a969f5d50eedc0d5a93f77c328300b06096086"
    "48016503040201300d06092a864886f70d010101050004820100"
) + bytes(256)
# Where a real kernel's loader refused the module, unsigned ones being welcome, after this byte had been inverted.
STRUCTURE = [*range(8), 13, 14, 15, 19, 23, 25, 26, 28, 41, 43, *range(45, 55), 58, 62, 64, 65, 67, 69, 71, 108, 121]
INDEFINITE = b"\x30\x80" + pkcs7_message()[4:] + b"\0\0"


@pytest.mark.parametrize(
    ("ko", "state"),
    [
        (make_ko(), Signature.NONE),
        (sign(make_ko()), Signature.PRESENT),
        (sign(make_ko(), body=pkcs7_message(version=3)), Signature.PRESENT),
        (sign(make_ko(), body=pkcs7_message(certificates=der(0xA0, der(0x30)))), Signature.PRESENT),
        (sign(make_ko(), body=INDEFINITE), Signature.PRESENT),
        (sign(make_ko(), body=INDEFINITE[:-1]), Signature.DAMAGED),
        (sign(make_ko(), body=b"\x04\x80\0\0"), Signature.DAMAGED),
        (sign(make_ko(), body=pkcs7_message(version=2)), Signature.DAMAGED),
        (sign(make_ko(), body=REAL), Signature.PRESENT),
        # In a name anything may stand, also what is no ASN.1.
        (sign(make_ko(), body=REAL.replace(b"\x0c\x06nobody", b"\xf3\x06nobody")), Signature.PRESENT),
        (sign(make_ko(), body=pkcs7_message(kind=DATA)), Signature.DAMAGED),
        (sign(make_ko(), body=pkcs7_message(content=der(0xA0, der(0x04, b"x")))), Signature.DAMAGED),
        (sign(make_ko(), body=pkcs7_message(certificates=der(0x30))), Signature.DAMAGED),
        (sign(make_ko(), body=pkcs7_message() + b"\0"), Signature.DAMAGED),
        (sign(make_ko(), body=b"\x30" * 1000), Signature.DAMAGED),
        (sign(make_ko(), body=der(0x30, bytes(65500)) * 2), Signature.DAMAGED),
        (sign(make_ko(), id_type=1), Signature.NONE),  # ENOPKG: as good as unsigned
        (sign(make_ko(), body=b""), Signature.DAMAGED),
        (sign(make_ko(), body=b"\x30\x04abc"), Signature.DAMAGED),
        (sign(make_ko(), body=b"nonsense"), Signature.DAMAGED),
        (sign(make_ko(), size=1 << 30), Signature.DAMAGED),
        (make_ko() + b"\x01" * 12 + SIGNATURE_MARK, Signature.DAMAGED),
        (make_ko() + SIGNATURE_MARK, Signature.NONE),  # ENOPKG, by what happens to stand at the module's end
    ],
    ids=text_only,
)
def test_signatures(ko: bytes, state: Signature) -> None:
    found = facts(ko)
    assert found.signature is state
    assert found.struct_size == 896


def test_a_signature_cut_anywhere() -> None:
    whole = pkcs7_message()
    for end in range(len(whole)):
        assert facts(sign(make_ko(), body=whole[:end])).signature is Signature.DAMAGED


@pytest.mark.parametrize("at", STRUCTURE)
def test_a_signature_damaged_anywhere(at: int) -> None:
    damaged = REAL[:at] + bytes([REAL[at] ^ 0xFF]) + REAL[at + 1 :]
    assert facts(sign(make_ko(), body=damaged)).signature is Signature.DAMAGED


def test_only_a_signature() -> None:
    with pytest.raises(FormatError, match="not an ELF file"):
        facts(SIGNATURE_MARK)


def test_a_signature_is_not_part_of_the_module() -> None:
    """Its bytes must not make up for what a truncated module lacks."""
    with pytest.raises(FormatError, match="truncated"):
        facts(sign(make_ko()[:-8]))


def test_read_module(tmp_path: Path) -> None:
    (tmp_path / "a-b.ko").write_bytes(make_ko(name="a_b"))
    assert read_module(tmp_path / "a-b.ko").path == str(tmp_path / "a-b.ko")
    assert ext_sections({"a": 1})[1].data == b"a\0"
