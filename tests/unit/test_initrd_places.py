"""Where a kernel's image is, by every name that it may have, what is kept beside it, and what makes it anew."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from autokmod.act.former import forget_leftovers
from autokmod.act.generators.choose import choose
from autokmod.act.generators.kernel_install import ADD
from autokmod.act.generators.suse import FLAGS, MAKE, SCRIPT
from autokmod.observe.bootplaces import find_away
from autokmod.observe.initrd import ASIDE, NEW, PREVIOUS, Place, find_image, is_unified_of
from autokmod.paths import Paths

KREL, LONGER, MACHINE = "6.1.0-5-amd64", "6.1.0-56-amd64", "0123456789abcdef" * 2


def put(paths: Paths, path: str, data: bytes = b"x") -> Path:
    file = paths.at(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "usr/lib/modules" / KREL).mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    return Paths(tmp_path)


FOUND: list[tuple[str, Place]] = [
    (f"boot/initrd.img-{KREL}", Place.DEBIAN),
    (f"boot/initramfs-{KREL}.img", Place.PLAIN),
    (f"boot/initrd-{KREL}", Place.PLAIN),
    ("boot/initramfs-linux-lts.img", Place.PACKAGE),
    ("boot/booster-linux-lts.img", Place.PACKAGE),
    ("efi/EFI/Linux/arch-linux-lts.efi", Place.PRESET),
    ("efi/images/lts.img", Place.PACKAGE),
    (f"efi/{MACHINE}/{KREL}/initrd", Place.ENTRY),
    (f"boot/efi/debian/{KREL}/initrd.img-{KREL}", Place.ENTRY),
    (f"boot/EFI/Linux/{MACHINE}-{KREL}.efi", Place.ENTRY),
    (f"efi/EFI/Linux/{MACHINE}-{KREL}+3-1.efi", Place.ENTRY),
    (f"efi/EFI/Linux/linux-{KREL}-{MACHINE}.efi", Place.ENTRY),
]
PRESET = """# made by hand
ALL_config="/etc/mkinitcpio.conf"
PRESETS=('default' 'fallback')
{}
fallback_image="/boot/initramfs-linux-lts-fallback.img"
"""


@pytest.mark.parametrize(("path", "place"), FOUND, ids=[f[0].partition("/")[2] for f in FOUND])
def test_found(paths: Paths, path: str, place: Place) -> None:
    put(paths, f"usr/lib/modules/{KREL}/pkgbase", b"linux-lts\n")
    line = f'default_uki="/{path}"' if path.endswith(".efi") else f"default_image='/{path}'"
    preset = PRESET.format(line if "/lts." in path or "arch" in path else "")
    put(paths, "etc/mkinitcpio.d/linux-lts.preset", preset.encode())
    file = put(paths, path)
    put(paths, path + PREVIOUS)
    found = find_image(paths, KREL)
    assert found is not None
    assert (found.path, found.place) == (file, place)


def test_a_preset_with_both_is_run_whole(paths: Paths) -> None:
    """Else the unified image, which is what boots, would stay as it was."""
    put(paths, f"usr/lib/modules/{KREL}/pkgbase", b"linux\n")
    lines = 'default_image="/boot/initramfs-linux.img"\ndefault_uki="/efi/EFI/Linux/arch-linux.efi"'
    put(paths, "etc/mkinitcpio.d/linux.preset", PRESET.format(lines).encode())
    put(paths, "boot/initramfs-linux.img")
    found = find_image(paths, KREL)
    assert found is not None
    assert found.place is Place.PACKAGE
    put(paths, "efi/EFI/Linux/arch-linux.efi")
    found = find_image(paths, KREL)
    assert found is not None
    generator = choose(paths, found.place, "mkinitcpio")
    assert generator.in_place
    assert "--preset" in generator.make(KREL, "", "")[2]


def test_a_former_kernel_of_the_package_has_none(paths: Paths) -> None:
    """Its modules were kept because it runs: an image for it would take the place of the new one's."""
    image = put(paths, "boot/initramfs-linux.img")
    for krel in (KREL, LONGER):
        put(paths, f"usr/lib/modules/{krel}/pkgbase", b"linux\n")
        put(paths, f"usr/lib/modules/{krel}/vmlinuz", krel[:-1].ljust(20).encode())
    assert find_image(paths, KREL) is None
    found = find_image(paths, LONGER)
    assert found is not None
    assert found.path == image
    put(paths, "boot/vmlinuz-linux", KREL[:-1].ljust(20).encode())  # put back: an older package was installed
    assert find_image(paths, KREL) is not None
    assert find_image(paths, LONGER) is None


@pytest.mark.parametrize(
    "name",
    [
        f"{MACHINE}-{LONGER}.efi",
        f"{MACHINE}-{KREL}-rt.efi",
        f"{MACHINE}-1{KREL}.efi",
        f"linux-{KREL}-rt-{MACHINE}.efi",
        f"{MACHINE}-{KREL}.efi{PREVIOUS}",
        f"{MACHINE}-{KREL.replace('.', 'x')}.efi",
    ],
)
def test_of_another_kernel(paths: Paths, name: str) -> None:
    put(paths, f"efi/EFI/Linux/{name}")
    assert find_image(paths, KREL) is None
    assert not is_unified_of(name, KREL)


# ---- not mounted


@pytest.mark.parametrize("place", ["/boot", "/efi", "/boot/efi"])
@pytest.mark.parametrize("how", ["fstab", "etc/systemd/system/{}.mount", "run/systemd/generator.late/{}.automount"])
def test_a_place_that_is_not_mounted(paths: Paths, place: str, how: str) -> None:
    assert find_away(paths, KREL) is None
    if how == "fstab":
        put(paths, "etc/fstab", f"# {place}\nUUID=1 / ext4\n".encode())
        assert find_away(paths, KREL) is None
        put(paths, "etc/fstab", f"UUID=1 / ext4\nUUID=2 {place} vfat noauto 0 2\n".encode())
    else:
        put(paths, how.format(place[1:].replace("/", "-")))
    assert find_away(paths, KREL) == place
    put(paths, f"boot/vmlinuz-{LONGER}")
    assert find_away(paths, KREL) == place
    put(paths, f"boot/vmlinuz-{KREL}")
    assert find_away(paths, KREL) is None


def test_an_entry_that_is_seen_is_not_away(paths: Paths) -> None:
    put(paths, "etc/fstab", b"UUID=2 /boot vfat\n")
    put(paths, f"efi/{MACHINE}/{KREL}/linux")
    assert find_away(paths, KREL) is None


# ---- left over


def test_what_a_gone_kernel_left_everywhere(paths: Paths) -> None:
    gone = "6.5.0-1-amd64"
    put(paths, f"usr/lib/modules/{KREL}/pkgbase", b"linux\n")
    mine = [put(paths, p + PREVIOUS) for p in (f"efi/EFI/Linux/{MACHINE}-{gone}.efi", f"efi/debian/{gone}/initrd")]
    mine += [put(paths, p + NEW) for p in ("boot/initramfs-linux-lts.img", f"boot/initrd.img-{gone}")]
    mine += [put(paths, f"efi/EFI/Linux/arch-linux-lts.efi{ASIDE}.part")]
    others = [put(paths, p + PREVIOUS) for p in ("boot/initramfs-linux.img", f"efi/debian/{KREL}/initrd")]
    others += [put(paths, p + PREVIOUS) for p in (f"boot/initrd.img-{LONGER}", f"efi/EFI/Linux/{MACHINE}-{LONGER}.efi")]
    others += [put(paths, f"boot/booster-linux-zen.img{end}") for end in ("", PREVIOUS)]
    forget_leftovers(paths, gone)
    assert [p for p in mine if p.exists()] == []
    assert [p for p in others if not p.exists()] == []
    assert not paths.at(f"efi/debian/{gone}").exists()
    assert paths.at("efi/debian").exists()


# ---- generators that cannot run here: what their programs are told


def test_the_flag_that_suses_script_takes(tmp_path: Path) -> None:
    """The release is what follows the first dash of the flag's name."""
    script = MAKE.replace(FLAGS, f"{tmp_path}/flags").replace(f'exec "{SCRIPT}"', "true")
    script = script.replace("/boot/", f"{tmp_path}/")
    (tmp_path / f"Image-{KREL}").touch()
    for krel in (KREL, LONGER):
        subprocess.run(["sh", "-c", script, "sh", krel], check=True)
    assert sorted(p.name for p in (tmp_path / "flags").iterdir()) == [f"Image-{KREL}", f"vmlinux-{LONGER}"]


def test_kernel_install_without_a_kernel(tmp_path: Path) -> None:
    script = ADD.replace("/usr/lib/modules", str(tmp_path)).replace("/boot/", f"{tmp_path}/")
    (tmp_path / KREL).mkdir()
    done = subprocess.run(["sh", "-c", script, "sh", KREL], check=False, capture_output=True, text=True)
    assert (done.returncode, "the kernel of" in done.stdout) == (1, True)
