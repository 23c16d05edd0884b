"""A kernel's ABI from what is on disk, whatever is missing or broken there."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from pathlib import Path

import pytest
import zstandard

from autokmod.errors import FormatError
from autokmod.model import Kernel, KernelAbi, KernelState, Reason
from autokmod.observe.abi import parse_config, read_abi
from autokmod.paths import Paths
from tests.elfwriter import Exp, make_ko

KREL = "6.1.0-56-amd64"
KDIR = f"/usr/src/linux-headers-{KREL}"
SYMVERS = (
    b"0xa351f379\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n"
    b"0x00000002\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n"
    b"0x00000006\tusb_register\tdrivers/usb/core/usbcore\tEXPORT_SYMBOL\t\n"
    b"0x00000007\tin_ref\tkernel-lib/ref-one\tEXPORT_SYMBOL\t\n"
)
CONFIG = b'#\n# Linux\n#\nCONFIG_MODVERSIONS=y\n# CONFIG_CFI is not set\nCONFIG_CC_VERSION_TEXT="gcc = 12"\n'
INTREE = (("license", "GPL"), ("intree", "Y"))
GOOD = {"module_layout": 0xA351F379, "kfree": 2}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A whole kernel, as Debian has it: the build link is absolute."""
    paths = Paths(tmp_path)
    put(paths, f"{KDIR}/Module.symvers", SYMVERS)
    put(paths, f"{KDIR}/.config", CONFIG)
    put(paths, f"/usr/lib/modules/{KREL}/kernel/lib/ref-one.ko", reference())
    (tmp_path / "lib").symlink_to("usr/lib")
    return paths


def put(paths: Paths, path: str, data: bytes) -> Path:
    host = paths.at(path)
    host.parent.mkdir(parents=True, exist_ok=True)
    host.write_bytes(data)
    return host


def reference(krel: str = KREL, *, intree: bool = True, versions: dict[str, int] | None = None) -> bytes:
    info = INTREE if intree else INTREE[:1]
    exports = [Exp("in_ref", 7)]
    return make_ko(name="ref_one", krel=krel, modinfo=info, versions=versions or GOOD, exports=exports)


def look(paths: Paths, *, headers: bool = True) -> KernelAbi:
    kdir = str(paths.at(KDIR)) if headers else None
    kernel = Kernel(KREL, KernelState.COMPLETE, str(paths.modulesd(KREL)), kdir, None, (), 0.0)
    return read_abi(paths, kernel)


def problems(abi: KernelAbi) -> list[str]:
    return [p.kind for p in abi.problems]


def test_everything_there(paths: Paths) -> None:
    abi = look(paths)
    assert abi.problems == ()
    assert abi.vermagic == f"{KREL} SMP preempt mod_unload modversions "
    assert (abi.krel, abi.struct_size, abi.modversions) == (KREL, 896, True)
    assert abi.ident is not None
    assert abi.ident.bits == 64
    assert abi.exports["kfree"].crc == 2
    assert abi.config == {"CONFIG_MODVERSIONS": "y", "CONFIG_CC_VERSION_TEXT": '"gcc = 12"'}
    assert abi.symvers_digest == hashlib.sha256(SYMVERS).hexdigest()
    assert abi.config_digest == hashlib.sha256(CONFIG).hexdigest()
    assert abi.symvers_path == str(paths.at(f"{KDIR}/Module.symvers"))
    assert abi.reference == str(paths.modulesd(KREL) / "kernel/lib/ref-one.ko")
    assert abi.absent == {"drivers/usb/core/usbcore"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (f"/boot/symvers-{KREL}", SYMVERS),
        (f"/boot/symvers-{KREL}.gz", gzip.compress(SYMVERS)),
        (f"/boot/symvers-{KREL}.xz", lzma.compress(SYMVERS)),
        (f"/boot/symvers-{KREL}.zst", zstandard.ZstdCompressor().compress(SYMVERS)),
        (f"/usr/lib/modules/{KREL}/symvers.gz", gzip.compress(SYMVERS)),
    ],
)
def test_without_headers(paths: Paths, name: str, data: bytes) -> None:
    put(paths, name, data)
    put(paths, f"/boot/config-{KREL}", CONFIG)
    abi = look(paths, headers=False)
    assert abi.problems == ()
    assert abi.symvers_path == str(paths.at(name))
    assert abi.symvers_digest == hashlib.sha256(SYMVERS).hexdigest()  # of the text, however it is stored


def test_links_are_followed_inside_the_root(paths: Paths) -> None:
    real = put(paths, "/usr/share/symvers", SYMVERS)
    (paths.at(KDIR) / "Module.symvers").unlink()
    (paths.at(KDIR) / "Module.symvers").symlink_to("/usr/share/symvers")
    put(paths, "/usr/lib/config", CONFIG)
    (paths.at(KDIR) / ".config").unlink()
    (paths.modulesd(KREL) / "config").symlink_to("/lib/config")
    abi = look(paths)
    assert abi.problems == ()
    assert abi.symvers_path == str(real)


def test_nothing_but_modules(paths: Paths) -> None:
    abi = look(paths, headers=False)
    assert problems(abi) == ["symvers-missing", "config-missing"]
    assert abi.modversions  # its own module says so
    assert len(abi.exports) == 0
    assert (abi.symvers_path, abi.symvers_digest, abi.config_digest, abi.absent) == (None, None, None, frozenset())
    assert abi.problems[0].text == f"no symvers of {KREL} can be read"


def test_headers_of_no_use_are_named(paths: Paths) -> None:
    problem = Reason("headers-incomplete", "the headers lack modpost", hint="install them again")
    kernel = Kernel(KREL, KernelState.NO_HEADERS, str(paths.modulesd(KREL)), None, None, (problem,), 0.0)
    found = read_abi(paths, kernel).problems[0]
    assert found.text == f"no symvers of {KREL} can be read: the headers lack modpost"
    assert found.hint == problem.hint


def test_a_link_that_turns_in_a_circle(paths: Paths) -> None:
    (paths.at(KDIR) / ".config").unlink()
    (paths.at(KDIR) / ".config").symlink_to(".config")
    assert problems(look(paths)) == ["config-unreadable"]


@pytest.mark.parametrize(
    ("data", "what"), [(b"", "empty"), (SYMVERS[:-9], "line 4 is truncated"), (b"\x1f\x8b\x08", "truncated")]
)
def test_a_bad_symvers_counts_though_there_is_another(paths: Paths, data: bytes, what: str) -> None:
    put(paths, f"/boot/symvers-{KREL}", SYMVERS)
    put(paths, f"{KDIR}/Module.symvers", data)
    abi = look(paths)
    assert problems(abi) == ["symvers-unreadable"]
    assert what in abi.problems[0].text
    assert KDIR in abi.problems[0].text
    assert len(abi.exports) == 0


def test_a_config_that_is_none(paths: Paths) -> None:
    put(paths, f"{KDIR}/.config", b"# nothing\n")
    abi = look(paths)
    assert problems(abi) == ["config-unreadable"]
    assert abi.modversions


def test_somebody_elses_symvers(paths: Paths) -> None:
    put(paths, f"{KDIR}/Module.symvers", SYMVERS.replace(b"0x00000002", b"0x00000003"))
    abi = look(paths)
    assert problems(abi) == ["symvers-mismatch"]
    assert (abi.problems[0].symbol, abi.problems[0].wanted_crc, abi.problems[0].offered_crc) == ("kfree", 2, 3)


def test_without_modversions_crcs_say_nothing(paths: Paths) -> None:
    put(paths, f"{KDIR}/.config", b"CONFIG_MODULES=y\n")
    put(paths, f"{KDIR}/Module.symvers", SYMVERS.replace(b"0x00000002", b"0x00000003"))
    abi = look(paths)
    assert (abi.modversions, abi.problems) == (False, ())


# ---- the reference


def test_headers_alone(paths: Paths) -> None:
    (paths.modulesd(KREL) / "kernel/lib/ref-one.ko").unlink()
    abi = look(paths)
    assert problems(abi) == ["reference-missing"]
    assert (abi.vermagic, abi.struct_size, abi.ident, abi.reference) == (None, None, None, None)
    assert abi.absent == frozenset()  # without any module that would be all of them


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"not a module", "not an ELF file"),
        (reference(intree=False), "not built with the kernel"),
        (reference("6.1.0-55-amd64"), "built for 6.1.0-55-amd64"),
        (
            make_ko(krel=KREL, modinfo=INTREE, struct_size=0).replace(b".gnu.linkonce", b".gnu.renamed_"),
            "instead of one",
        ),
    ],
)
def test_an_unfit_one_is_passed_over_and_named_where_it_is_the_only_one(paths: Paths, data: bytes, what: str) -> None:
    put(paths, f"/usr/lib/modules/{KREL}/kernel/aaa/first.ko", data)
    assert look(paths).reference == str(paths.modulesd(KREL) / "kernel/lib/ref-one.ko")
    put(paths, f"/usr/lib/modules/{KREL}/kernel/lib/ref-one.ko", data)
    abi = look(paths)
    assert problems(abi) == ["reference-missing"]
    assert what in abi.problems[0].text


def test_the_smallest_among_the_first(paths: Paths) -> None:
    for i in range(40):
        put(paths, f"/usr/lib/modules/{KREL}/kernel/aaa/m{i:02}.ko", reference() + bytes(50 - i))
    assert look(paths).reference == str(paths.modulesd(KREL) / "kernel/aaa/m31.ko")


def test_compressed_modules_and_links(paths: Paths) -> None:
    directory = paths.modulesd(KREL) / "kernel/lib"
    (directory / "ref-one.ko").rename(directory / "real")
    (directory / "linked.ko").symlink_to("real")  # a link is somebody else's doing
    assert problems(look(paths)) == ["reference-missing"]
    put(paths, f"/usr/lib/modules/{KREL}/kernel/lib/ref-one.ko.xz", lzma.compress(reference()))
    abi = look(paths)
    assert abi.problems == ()
    assert abi.absent == {"drivers/usb/core/usbcore"}


def test_parse_config() -> None:
    assert parse_config(b'CONFIG_A=y\nCONFIG_B="a=b"\n# CONFIG_C is not set\nX=1\n', "f") == {
        "CONFIG_A": "y",
        "CONFIG_B": '"a=b"',
    }
    with pytest.raises(FormatError, match="not a kernel configuration"):
        parse_config(b"\0\xff", "f")
