"""What an image carries for one kernel: never more than that kernel's modprobe would find in it."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autokmod.act.archive import archive
from autokmod.decide.image import Standing, judge_image
from autokmod.errors import FormatError
from autokmod.observe.image.base import read_base
from autokmod.observe.image.carried import read_carried
from autokmod.observe.image.depindex import BINARY, TEXT, known_paths
from tests.elfwriter import Exp, make_ko

KREL, OTHER = "6.1.0-9-test", "6.1.0-8-test"
TOP = f"usr/lib/modules/{KREL}"
DRV = "updates/autokmod/p/drv.ko"
NEW, OLD = b"\x7fELF new", b"\x7fELF old"
STANDING = {"drv": Standing(f"{DRV}.xz", hashlib.sha256(NEW).hexdigest())}


def image(tmp_path: Path, *parts: bytes) -> str:
    (tmp_path / "image").write_bytes(b"".join(parts))
    return str(tmp_path / "image")


def problems(file: str) -> list[str]:
    carried = read_carried(file, KREL, STANDING)
    found = judge_image(STANDING, carried.modules, carried.digests, carried.index, carried.opaque)
    return [r.kind for r in found.values()]


# ---- of another kernel


def test_made_for_another_kernel(tmp_path: Path) -> None:
    """As where an image is named after a package, or was written under the wrong name: it is not right for want of
    anything that could be wrong."""
    file = image(tmp_path, archive({f"usr/lib/modules/{OTHER}/kernel/x.ko": OLD, "init": b""}))
    with pytest.raises(FormatError, match=f"made for {OTHER}, and has nothing for {KREL}"):
        read_carried(file, KREL, STANDING)
    both = archive({f"{TOP}/modules.dep": b"", f"usr/lib/modules/{OTHER}/kernel/x.ko": OLD})
    assert problems(image(tmp_path, both)) == ["initrd-lacks"]
    assert read_carried(image(tmp_path, archive({"init": b""})), KREL, STANDING).modules == {}


# ---- the index


def depmods(tmp_path: Path, modules: dict[str, bytes]) -> dict[str, bytes]:
    shutil.rmtree(tmp_path / "root", ignore_errors=True)
    for path, data in modules.items():
        file = tmp_path / "root/lib/modules" / KREL / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    subprocess.run(["depmod", "-C", "/dev/null", "-b", str(tmp_path / "root"), KREL], check=True)
    return {n: (tmp_path / "root/lib/modules" / KREL / n).read_bytes() for n in (TEXT, BINARY)}


def test_the_index_as_depmod_writes_it(tmp_path: Path) -> None:
    names = ["a", "ab", "abc", "b_c", "lib", *(f"m{i}" for i in range(40))]
    modules = {f"kernel/{n.replace('_', '-')}.ko": make_ko(name=n, exports=[Exp(n)]) for n in names}
    modules["updates/drv.ko"] = make_ko(name="drv", versions={"lib": 0x1111, "ab": 0x1111})
    indexes = depmods(tmp_path, modules)
    for name in indexes:
        assert known_paths({name: indexes[name]}) == {p.encode() for p in modules}
    assert known_paths({TEXT: b"gone.ko:\n", BINARY: indexes[BINARY]}) == frozenset()
    assert known_paths({}) == frozenset()


@pytest.mark.parametrize("name", [TEXT, BINARY])
def test_each_index_has_to_know_it(tmp_path: Path, name: str) -> None:
    """modprobe of kmod reads the one, busybox's the other."""
    right, stale = depmods(tmp_path, {DRV: make_ko(name="drv")}), depmods(tmp_path, {"kernel/x.ko": make_ko(name="x")})
    files = {f"{TOP}/{DRV}": NEW}
    assert problems(image(tmp_path, archive(files | {f"{TOP}/{n}": d for n, d in right.items()}))) == []
    mixed = right | {name: stale[name]}
    assert problems(image(tmp_path, archive(files | {f"{TOP}/{n}": d for n, d in mixed.items()}))) == [
        "initrd-unlisted"
    ]


@pytest.mark.parametrize(
    "line",
    [f"kernel/x.ko: {DRV}\n", f"kernel/{DRV}:\n", f"{DRV}.gz:\n", f"#{DRV}:\n"],
    ids=["need", "tail", "head", "#"],
)
def test_to_be_mentioned_is_not_to_be_known(tmp_path: Path, line: str) -> None:
    assert problems(image(tmp_path, archive({f"{TOP}/{DRV}": NEW, f"{TOP}/{TEXT}": line.encode()}))) == [
        "initrd-unlisted"
    ]


@given(st.integers(0, 1 << 30), st.binary(min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_damaged_index_ends(at: int, junk: bytes) -> None:
    node = (
        struct.pack(">BB", 0x61, 0x62)
        + struct.pack(">II", 0x20000000 | 12, 0x40000000 | 22)
        + b"\0\0\0\1\0\0\0\0x.ko:\0"
    )
    whole = struct.pack(">III", 0xB007F457, 0x20001, 0x20000000 | 12) + node
    at %= len(whole)
    known_paths({BINARY: whole[:at] + junk + whole[at + len(junk) :]})
    known_paths({BINARY: whole[:at]})


# ---- booster's


CONFIG = f"moduledependencies:\n    drv:\n        - lib\nkernel: {KREL}\nmounttimeout: 180\n".encode()


def test_boosters_layout(tmp_path: Path) -> None:
    """All modules beside each other, unpacked, and no modules.dep: its configuration says who needs whom."""
    files = {"etc/booster.init.yaml": CONFIG, "usr/lib/modules/drv.ko": NEW, "usr/lib/modules/lib.ko": OLD}
    file = image(tmp_path, gzip.compress(archive(files)))
    assert problems(file) == []
    assert read_carried(file, KREL, STANDING).made_by == "booster"
    assert problems(image(tmp_path, archive(files | {"usr/lib/modules/drv.ko": OLD}))) == ["initrd-stale"]
    del files["usr/lib/modules/drv.ko"]
    assert problems(image(tmp_path, archive(files))) == ["initrd-lacks"]
    with pytest.raises(FormatError, match="made for"):
        read_carried(image(tmp_path, archive(files)), OTHER, STANDING)
    with pytest.raises(FormatError, match="booster's loader"):
        read_base(image(tmp_path, archive(files)), KREL, tmp_path)
