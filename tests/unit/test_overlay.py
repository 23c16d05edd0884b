"""Overlays, with the real depmod: what is in them, that it is the same each time, and how they get to an image."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
from pathlib import Path

import pytest

from autokmod.act.archive import archive
from autokmod.act.initrd import InitrdFailed
from autokmod.act.overlay import Overlay, append, make_overlay, overlaid, plain_path, with_needs
from autokmod.errors import FormatError, UsageError
from autokmod.jobs.overlay import read_conf
from autokmod.observe.image.base import MARK, Base, read_base
from autokmod.observe.image.carried import read_carried
from autokmod.observe.image.contents import Image, read_image
from autokmod.observe.initrd import NEW, PREVIOUS
from autokmod.paths import Paths
from tests.elfwriter import Exp, make_ko

KREL = "6.1.0-9-test"
TOP = f"usr/lib/modules/{KREL}"
ALIAS = (("license", "GPL"), ("alias", "pci:v1d2"))
MODULES = {
    "kernel/deep.ko": make_ko(name="deep", exports=[Exp("deep")]),
    "kernel/lib.ko.xz": lzma.compress(make_ko(name="lib", exports=[Exp("lib")], versions={"deep": 0x1111})),
    "kernel/net.ko": make_ko(name="net", exports=[Exp("net")]),
    "kernel/drv.ko": make_ko(name="drv"),  # an in-tree twin
    "kernel/other.ko": make_ko(name="other"),
    "updates/autokmod/p/drv.ko.xz": lzma.compress(
        make_ko(name="drv", versions={"lib": 0x1111, "net": 0x1111}, modinfo=ALIAS)
    ),
}
GONE = make_ko(name="gone")  # in the image alone


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    root = tmp_path / "root"
    for path, data in MODULES.items():
        file = root / TOP / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (root / "lib").symlink_to("usr/lib")
    (root / TOP / "modules.order").write_text("kernel/deep.ko\nkernel/lib.ko\nkernel/net.ko\nkernel/drv.ko\n")
    (root / TOP / "modules.builtin").write_text("kernel/built.ko\n")
    (root / "boot").mkdir()
    subprocess.run(["depmod", "-C", "/dev/null", "-b", str(root), KREL], check=True)
    image_of(root).write_bytes(image())
    return Paths(root)


def image_of(root: Path) -> Path:
    return root / "boot" / f"initrd.img-{KREL}"


def image(*more: str) -> bytes:
    files = {f"{TOP}/{path}": MODULES[path] for path in ("kernel/net.ko", "kernel/drv.ko", *more)}
    files |= {f"{TOP}/kernel/gone.ko": GONE, f"{TOP}/modules.dep": b"", "conf/initramfs.conf": b""}
    return gzip.compress(archive(files, links={"lib": "usr/lib"}), mtime=0)


def overlay(paths: Paths, **conf: bytes) -> Overlay:
    return make_overlay(paths, KREL, base(paths), ["drv"], {f"{name}.conf": data for name, data in conf.items()})


def base(paths: Paths) -> Base:
    return read_base(str(image_of(paths.root)), KREL, paths.modulesd(KREL))


def looked_into(tmp_path: Path, data: bytes) -> Image:
    (tmp_path / "overlay").write_bytes(data)
    return read_image(str(tmp_path / "overlay"), lambda _: True)


def text(image: Image, name: str) -> str:
    content = image.files[f"{TOP}/{name}"].content
    assert content is not None
    return content.decode()


def test_what_is_in_it(paths: Paths, tmp_path: Path) -> None:
    made = overlay(paths, drv=b"options drv x=1\n")
    assert made.modules == ("deep", "drv", "lib")
    found = looked_into(tmp_path, made.data)
    modules = {p for p in found.files if p.endswith(".ko")}
    assert modules == {f"{TOP}/kernel/deep.ko", f"{TOP}/kernel/lib.ko", f"{TOP}/updates/autokmod/p/drv.ko"}
    for path in modules:
        on_disk = MODULES[next(p for p in MODULES if plain_path(p) == path.removeprefix(f"{TOP}/"))]
        assert found.files[path].content in (on_disk, lzma.decompress(on_disk) if on_disk[:1] == b"\xfd" else None)
    assert found.files["etc/modprobe.d/drv.conf"].content == b"options drv x=1\n"
    assert "lib" not in found.files
    outside = {p for p in found.files if not p.startswith((TOP, "etc"))}
    assert outside == {"usr", "usr/lib", "usr/lib/modules"}


def test_its_index_knows_the_images_modules_too(paths: Paths, tmp_path: Path) -> None:
    found = looked_into(tmp_path, overlay(paths).data)
    lines = dict(line.split(":", 1) for line in text(found, "modules.dep").splitlines())
    assert set(lines) == {
        *("kernel/deep.ko", "kernel/lib.ko", "kernel/net.ko", "kernel/gone.ko"),
        "updates/autokmod/p/drv.ko",
    }
    assert set(lines["updates/autokmod/p/drv.ko"].split()) == {"kernel/lib.ko", "kernel/deep.ko", "kernel/net.ko"}
    assert "alias pci:v1d2 drv" in text(found, "modules.alias")
    for name in (
        "modules.dep.bin",
        "modules.alias.bin",
        "modules.symbols.bin",
        "modules.builtin.bin",
        "modules.softdep",
    ):
        assert f"{TOP}/{name}" in found.files
    assert f"{TOP}/modules.order" not in found.files


def test_modprobe_finds_what_the_two_make_together(paths: Paths, tmp_path: Path) -> None:
    """As the kernel would lay them over each other."""
    with overlaid(paths, image_of(paths.root), base(paths), overlay(paths)) as draft:
        whole = read_image(str(draft.path), lambda _: True)
    for path, entry in whole.files.items():
        if entry.is_file:
            (tmp_path / "initrd" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "initrd" / path).write_bytes(entry.content or b"")
    (tmp_path / "initrd/lib").symlink_to("usr/lib")
    said = subprocess.run(
        ["modprobe", "-d", str(tmp_path / "initrd"), "-S", KREL, "-C", "/dev/null", "--show-depends", "drv"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    loaded = [line.split("/")[-1].strip() for line in said.splitlines() if line.startswith("insmod")]
    assert loaded[-1] == "drv.ko"
    assert set(loaded) == {"deep.ko", "lib.ko", "net.ko", "drv.ko"}


def test_it_is_the_same_each_time(paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = overlay(paths, a=b"1", b=b"2").data
    monkeypatch.setattr("autokmod.act.overlay.IN_MEMORY", str(tmp_path))  # another kind of directory
    assert overlay(paths, b=b"2", a=b"1").data == first
    for path in (paths.modulesd(KREL)).rglob("*.ko"):
        os.utime(path, (1, 1))
    assert overlay(paths, a=b"1", b=b"2").data == first


def test_appended_it_replaces_a_former_one(paths: Paths) -> None:
    target = image_of(paths.root)
    target.chmod(0o640)
    before = target.read_bytes() + bytes(-target.stat().st_size % 4)
    for module in (b"one", b"two"):
        drv = make_ko(name="drv", modinfo=(*ALIAS, ("text", module.decode())))
        (paths.modulesd(KREL) / "updates/autokmod/p/drv.ko.xz").write_bytes(lzma.compress(drv))
        subprocess.run(["depmod", "-C", "/dev/null", "-b", str(paths.root), KREL], check=True)
        made = overlay(paths)
        with overlaid(paths, target, base(paths), made) as draft:
            draft.publish()
        assert target.read_bytes() == before + made.data
        assert [s.kind for s in read_image(str(target), lambda _: False).segments] == ["gzip", "cpio"]
        carried = read_carried(str(target), KREL, ["drv"])
        assert carried.made_by == "initramfs-tools"
        assert set(carried.modules["drv"]) == {"kernel/drv.ko", "updates/autokmod/p/drv.ko"}
    assert target.stat().st_mode & 0o777 == 0o640
    assert target.with_name(target.name + PREVIOUS).read_bytes() == image()
    assert base(paths).overlays == ((len(before), len(before) + len(made.data)),)


def test_what_follows_a_former_one_stays_where_a_kernel_takes_it(paths: Paths) -> None:
    target, made = image_of(paths.root), overlay(paths)
    alien = archive({"etc/alien": b"1"})
    first = image() + bytes(-len(image()) % 4)
    target.write_bytes(first + made.data + alien)
    append(paths, target, target, base(paths), made)
    assert target.read_bytes() == first + alien + made.data
    read_image(str(target), lambda _: False)


def test_what_is_not_published_changes_nothing(paths: Paths) -> None:
    with overlaid(paths, image_of(paths.root), base(paths), overlay(paths)):
        pass
    assert sorted(p.name for p in (paths.root / "boot").iterdir()) == [f"initrd.img-{KREL}"]
    assert image_of(paths.root).read_bytes() == image()
    assert not image_of(paths.root).with_name(image_of(paths.root).name + NEW).exists()


def test_an_image_with_a_lib_of_its_own(paths: Paths) -> None:
    image_of(paths.root).write_bytes(archive({f"lib/modules/{KREL}/kernel/net.ko": MODULES["kernel/net.ko"]}))
    with pytest.raises(FormatError, match="no link to /usr/lib"):
        base(paths)


def test_nothing_is_appended_to_a_unified_kernel_image(paths: Paths) -> None:
    unified = Base(str(image_of(paths.root)), True, (), {})
    with pytest.raises(InitrdFailed, match="unified"):
        append(paths, image_of(paths.root), image_of(paths.root), unified, overlay(paths))
    assert image_of(paths.root).read_bytes() == image()


def test_the_mark(paths: Paths, tmp_path: Path) -> None:
    mark = text(looked_into(tmp_path, overlay(paths).data), MARK)
    assert [line.split("  ")[1] for line in mark.splitlines()] == [
        *("kernel/deep.ko", "updates/autokmod/p/drv.ko", "kernel/lib.ko"),
    ]


NEEDS = {"a": frozenset({"b", "c"}), "c": frozenset({"d"}), "d": frozenset({"a", "e"})}


@pytest.mark.parametrize(
    ("wanted", "carried", "found"),
    [
        ("x", "", "x"),
        ("a", "", "abcde"),
        ("a", "b", "acde"),
        ("a", "c", "ab"),
        ("a", "a", "abcde"),  # what is wanted is carried in any case
    ],
)
def test_needs(wanted: str, carried: str, found: str) -> None:
    assert with_needs(wanted, NEEDS, carried) == set(found)


def test_conf(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_bytes(b"options a\n")
    assert read_conf([tmp_path / "a.conf"]) == {"a.conf": b"options a\n"}
    with pytest.raises(UsageError, match="another file"):
        read_conf([tmp_path / "a.conf", tmp_path / "a.conf"])
    with pytest.raises(UsageError, match="end with"):
        read_conf([tmp_path / "a"])
