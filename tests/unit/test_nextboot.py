"""Which kernel the next boot takes: on trees as boot loaders have them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from autokmod.decide.nextboot import decide_next_boot
from autokmod.jobs.machine import read_next_boot
from autokmod.model import NextBoot
from autokmod.observe.grub import ENV_MAGIC
from autokmod.observe.nextboot import EFIVARS, GLOBAL, LOADER, look_at_boot, read_release
from autokmod.paths import Paths

A, B = "6.1.0-55-amd64", "6.1.0-56-amd64"
GRUB_CFG = """if [ -s $prefix/grubenv ]; then load_env; fi
set default="${{saved_entry}}"
menuentry new --id new {{ linux {0}/vmlinuz-{1} }}
menuentry old --id old {{ linux {0}/vmlinuz-{2} }}
"""


class Machine:
    def __init__(self, root: Path) -> None:
        self.root, self.paths = root, Paths(root)
        for krel in (A, B):
            (root / "lib/modules" / krel).mkdir(parents=True)

    def write(self, file: str, data: str | bytes = "") -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    def variable(self, name: str, value: str, vendor: str = LOADER) -> None:
        self.write(f"{EFIVARS}/{name}-{vendor}", b"\x06\0\0\0" + f"{value}\0".encode("utf-16-le"))

    def grub(self, directory: str = "boot/grub", prefix: str = "/boot") -> None:
        self.write(f"{directory}/grub.cfg", GRUB_CFG.format(prefix, B, A))

    def save(self, entry: str, directory: str = "boot/grub") -> None:
        self.write(f"{directory}/grubenv", (ENV_MAGIC + f"saved_entry={entry}\n".encode()).ljust(1024, b"#"))

    def systemd_boot(self, top: str = "boot") -> None:
        self.write(f"{top}/EFI/systemd/systemd-bootx64.efi")
        for krel in (A, B):
            self.entry(krel, top=top)

    def entry(self, krel: str, *, top: str = "boot", counter: str = "") -> None:
        self.write(f"{top}/m/{krel}/linux")
        text = f"title D\nversion {krel}\nsort-key debian\nlinux /m/{krel}/linux\n"
        self.write(f"{top}/loader/entries/m-{krel}{counter}.conf", text)

    def ask(self) -> NextBoot:
        return read_next_boot(self.paths)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def bzimage(release: str) -> bytes:
    text = f"{release} (builder@host) #1".encode() + b"\0"
    head = bytearray(0x300)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x100)
    return bytes(head) + text


def test_nothing_is_installed(machine: Machine) -> None:
    found = machine.ask()
    assert (found.krel, found.is_known, found.reason.kind) == (None, False, "next-boot-unknown")


@pytest.mark.parametrize("directory", ["boot/grub", "boot/grub2", "boot/efi/EFI/redhat"])
@pytest.mark.parametrize("prefix", ["/boot", "", "/@/boot"])
def test_grub(machine: Machine, directory: str, prefix: str) -> None:
    machine.grub(directory, prefix)
    assert machine.ask().krel == B
    machine.save("old", directory)
    assert (machine.ask().krel, machine.ask().entry, machine.ask().loader) == (A, "old", "grub")


def test_the_file_knows_better_than_its_name(machine: Machine) -> None:
    machine.write("boot/grub/grub.cfg", "menuentry arch { linux /boot/vmlinuz-linux }\n")
    assert not machine.ask().is_known
    machine.write("boot/vmlinuz-linux", bzimage("6.9.1-arch1-1"))
    assert machine.ask().krel == "6.9.1-arch1-1"


def test_a_link_in_boot(machine: Machine) -> None:
    machine.write(f"boot/vmlinuz-{A}", bzimage(A))
    (machine.root / "boot/vmlinuz").symlink_to(f"vmlinuz-{A}")
    machine.write("boot/grub/grub.cfg", "menuentry x { linux /vmlinuz }\n")
    assert machine.ask().krel == A


@pytest.mark.parametrize("data", [b"", b"MZ", bzimage("x")[:0x206], bytes(4096)])
def test_no_kernel_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "vmlinuz").write_bytes(data)
    if data[0x202:0x206] == b"HdrS":
        with pytest.raises(struct.error):
            read_release(tmp_path / "vmlinuz")
    else:
        assert read_release(tmp_path / "vmlinuz") == ""


def test_something_that_is_no_kernel(machine: Machine) -> None:
    machine.write("boot/grub/grub.cfg", "menuentry Windows { chainloader +1 }\n")
    found = machine.ask()
    assert (found.krel, found.is_known, found.reason.kind) == (None, True, "next-boot-other")


def test_a_damaged_configuration(machine: Machine) -> None:
    machine.write("boot/grub/grub.cfg", "menuentry 'Windows {\n")
    assert "quotation mark" in machine.ask().reason.text


# ---- systemd-boot ----


@pytest.mark.parametrize("top", ["boot", "efi", "boot/efi"])
def test_systemd_boot_takes_the_newest(machine: Machine, top: str) -> None:
    machine.systemd_boot(top)
    assert (machine.ask().krel, machine.ask().loader) == (B, "systemd-boot")


@pytest.mark.parametrize(
    ("conf", "variables", "krel"),
    [
        ("default m-6.1.0-55*\n", {}, A),
        ("default m-6.1.0-55*\n", {"LoaderEntryDefault": f"m-{B}.conf"}, B),
        ("", {"LoaderEntryDefault": f"M-{A}.CONF"}, A),
        ("", {"LoaderEntryDefault": "gone.conf"}, B),
        ("", {"LoaderEntryDefault": f"m-{B}.conf", "LoaderEntryOneShot": f"m-{A}.conf"}, A),
        ("default @saved\n", {"LoaderEntryLastBooted": f"m-{A}.conf"}, A),
        ("default @saved\n", {}, B),
        ("", {"LoaderEntryDefault": "@saved", "LoaderEntryLastBooted": f"m-{A}.conf"}, A),
        ("default auto-windows\n", {}, None),
    ],
)
def test_systemd_boot_default(machine: Machine, conf: str, variables: dict[str, str], krel: str | None) -> None:
    machine.systemd_boot()
    machine.write("boot/loader/loader.conf", conf)
    machine.variable("LoaderInfo", "systemd-boot 252.39")
    for name, value in variables.items():
        machine.variable(name, value)
    assert machine.ask().krel == krel


PREFERS, BEFORE = "systemd-boot 260.1", "systemd-boot 259"


@pytest.mark.parametrize(
    ("info", "conf", "variables", "krel"),
    [
        (PREFERS, f"preferred m-{A}.conf\n", {}, A),
        (BEFORE, f"preferred m-{A}.conf\n", {}, B),
        (PREFERS, f"preferred m-{A}.conf\n", {"LoaderEntryDefault": f"m-{B}.conf"}, A),
        (PREFERS, f"preferred m-{A}.conf\n", {"LoaderEntryPreferred": f"m-{B}.conf"}, B),
        (BEFORE, "", {"LoaderEntryPreferred": f"m-{A}.conf"}, B),
        (PREFERS, "preferred gone.conf\n", {"LoaderEntryDefault": f"m-{A}.conf"}, A),
        (PREFERS, f"preferred m-{B}*\n", {"LoaderEntryOneShot": f"m-{A}.conf"}, A),
        ("", f"preferred m-{A}.conf\n", {}, None),  # who knows which version that is
        ("", f"preferred m-{A}.conf\n", {"LoaderEntryOneShot": f"m-{B}.conf"}, B),
        (PREFERS, "default m-[!x]*\n", {}, None),  # fnmatch(3) of the firmware's kind
        (PREFERS, "default m-\\6*\n", {}, None),
    ],
)
def test_systemd_boot_prefers(
    machine: Machine, info: str, conf: str, variables: dict[str, str], krel: str | None
) -> None:
    machine.systemd_boot()
    machine.write("boot/loader/loader.conf", conf)
    machine.variable("Something", "")
    for name, value in {**variables, **({"LoaderInfo": info} if info else {})}.items():
        machine.variable(name, value)
    assert machine.ask().krel == krel


def test_a_preferred_entry_that_failed_to_boot(machine: Machine) -> None:
    machine.systemd_boot()
    (machine.root / f"boot/loader/entries/m-{B}.conf").rename(machine.root / f"boot/loader/entries/m-{B}+0-3.conf")
    machine.write("boot/loader/loader.conf", f"preferred m-{B}*\n")
    machine.variable("LoaderInfo", PREFERS)
    assert machine.ask().krel == A


@pytest.mark.parametrize("mounted", [False, True])
def test_variables_that_nobody_can_read(machine: Machine, mounted: bool) -> None:
    """The default may be in them."""
    machine.systemd_boot()
    (machine.root / "sys/kernel").mkdir(parents=True)
    (machine.root / EFIVARS).mkdir(parents=True)
    if mounted:
        machine.variable("Something", "")
    assert machine.ask().krel == (B if mounted else None)
    assert machine.ask().is_known == mounted


def test_entries_on_the_extended_boot_partition(machine: Machine) -> None:
    """They count; a loader.conf there does not."""
    machine.write("efi/EFI/systemd/systemd-bootx64.efi")
    for krel in (A, B):
        machine.entry(krel, top="boot")
    assert machine.ask().krel == B
    machine.write("boot/loader/loader.conf", f"default m-{A}.conf\n")
    assert machine.ask().krel == B
    machine.write("efi/loader/loader.conf", f"default m-{A}.conf\n")
    assert machine.ask().krel == A


def test_tries(machine: Machine) -> None:
    machine.systemd_boot()
    (machine.root / f"boot/loader/entries/m-{B}.conf").rename(machine.root / f"boot/loader/entries/m-{B}+2-1.conf")
    assert machine.ask().krel == B
    (machine.root / f"boot/loader/entries/m-{B}+2-1.conf").rename(machine.root / f"boot/loader/entries/m-{B}+0-3.conf")
    assert machine.ask().krel == A


def test_an_entry_without_its_kernel(machine: Machine) -> None:
    machine.systemd_boot()
    (machine.root / f"boot/m/{B}/linux").unlink()
    assert machine.ask().krel == A


def unified(os_release: str, uname: str) -> bytes:
    sections = [(b".osrel", os_release.encode()), (b".uname", uname.encode())]
    head = bytearray(0x400)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 0x80)
    struct.pack_into("<4sHHIIIHH", head, 0x80, b"PE\0\0", 0x8664, len(sections), 0, 0, 0, 0, 0)
    data = b""
    for i, (name, text) in enumerate(sections):
        struct.pack_into("<8sIIII", head, 0x98 + i * 40, name, len(text), 0, len(text), 0x400 + len(data))
        data += text
    return bytes(head) + data


def test_unified_images(machine: Machine) -> None:
    machine.systemd_boot()
    machine.write("boot/EFI/Linux/z-6.11.efi", unified("ID=arch\nVERSION_ID=1\n", "6.11.0-uki\n"))
    machine.write("boot/EFI/Linux/broken.efi", b"MZ")
    assert machine.ask().krel == "6.11.0-uki"


# ---- whose turn it is ----


def test_two_boot_loaders_and_no_word_of_either(machine: Machine) -> None:
    machine.systemd_boot()
    machine.grub()
    assert "both" in machine.ask().reason.text
    machine.variable("LoaderInfo", "systemd-boot 252.39")
    assert machine.ask().loader == "systemd-boot"
    machine.variable("LoaderInfo", "GRUB 2.12")
    assert machine.ask().loader == "grub"
    machine.variable("LoaderInfo", "refind 0.14")
    assert "refind" in machine.ask().reason.text


def test_a_machine_that_did_not_come_up_by_efi(machine: Machine) -> None:
    machine.systemd_boot()
    machine.grub()
    (machine.root / "sys/kernel").mkdir(parents=True)
    assert machine.ask().loader == "grub"


def test_the_firmware_was_asked_for_something_else(machine: Machine) -> None:
    machine.grub()
    machine.write(f"{EFIVARS}/BootNext-{GLOBAL}", b"\x07\0\0\0\1\0")
    assert "BootNext" in machine.ask().reason.text


def test_a_link_loop_is_no_exception(machine: Machine) -> None:
    (machine.root / "boot").mkdir()
    (machine.root / "boot/grub").symlink_to("grub")
    (machine.root / "boot/loader").symlink_to("/boot/loader")
    assert not machine.ask().is_known


def test_each_answer_is_of_the_look_alone(machine: Machine) -> None:
    machine.grub()
    look = look_at_boot(machine.paths)
    assert decide_next_boot(look, (A, B)) == machine.ask()
    assert not decide_next_boot(look, (A,)).is_known
