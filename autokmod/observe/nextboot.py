"""What decides which kernel the next boot takes: everything that boot loaders read, as it is on disk and in firmware.

Nothing is concluded here. What a plain user may not read is said to be unreadable, which is not the same as absent.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.files import open_regular
from autokmod.observe.bls import LoaderEntry, parse_entry, parse_loader_conf, unified_entry
from autokmod.observe.grub import GrubLook, parse_grub_default, parse_grubenv
from autokmod.observe.image.uki import COFF_SIZE, MAX_SECTIONS, PE_MAGIC, PE_OFFSET_AT, SECTION, SECTION_SIZE
from autokmod.paths import Paths

GRUB_DIRECTORIES = ("boot/grub", "boot/grub2")
TOPS = ("boot", "efi", "boot/efi")  # where the ESP and the extended boot partition are mounted
EFIVARS, LOADER, GLOBAL = (
    "sys/firmware/efi/efivars",
    "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f",
    "8be4df61-93ca-11d2-aa0d-00e098032b8c",
)
ATTRIBUTES = 4  # bytes before an EFI variable's value
SIZE_LIMIT = 4 << 20
MAX_ENTRIES = 500
# The x86 boot protocol (Documentation/arch/x86/boot.rst): where the kernel says which release it is.
BOOT_MAGIC_AT, BOOT_MAGIC, VERSION_AT, SETUP_AT = 0x202, b"HdrS", 0x20E, 0x200
KERNEL_NAMES = ("vmlinuz", "vmlinux", "kernel", "Image", "linux", "bzImage")


@dataclass(frozen=True, slots=True)
class SystemdBootLook:
    """Empty texts: not set."""

    entries: tuple[LoaderEntry, ...]
    default: str  # of loader.conf, as the next
    preferred: str
    one_shot: str  # EFI variables, from here on
    preferred_variable: str
    default_variable: str
    last_booted: str


@dataclass(frozen=True, slots=True)
class BootLook:
    is_efi: bool | None  # how this machine came up; None: another root's machine
    has_variables: bool  # the firmware's can be read
    loader: str  # what LoaderInfo says, the boot loader's own word: "systemd-boot 252", "GRUB 2.12"
    boot_next: bool  # the firmware was asked for something else, once
    grub: GrubLook | None
    grub_default: str | None  # what the next grub-mkconfig will make of it
    systemd_boot: SystemdBootLook | None  # None where it is not installed
    images: Mapping[str, str]  # names of files in /boot → the release that they say they are
    unreadable: tuple[str, ...]  # inside the root


def look_at_boot(paths: Paths) -> BootLook:
    unreadable: list[str] = []
    reader = _Reader(paths, unreadable)
    efi = paths.at("sys/firmware/efi")
    knows_firmware = paths.at("sys/kernel").is_dir()
    return BootLook(
        is_efi=efi.is_dir() if knows_firmware else None,
        has_variables=bool(reader.names(EFIVARS)),
        loader=reader.variable("LoaderInfo"),
        boot_next=paths.at(f"{EFIVARS}/BootNext-{GLOBAL}").exists(),
        grub=reader.grub(),
        grub_default=parse_grub_default(reader.text("etc/default/grub") or ""),
        systemd_boot=reader.systemd_boot(),
        images=reader.images(),
        unreadable=tuple(unreadable),
    )


class _Reader:
    def __init__(self, paths: Paths, unreadable: list[str]) -> None:
        self._paths, self._unreadable = paths, unreadable

    # ---- files

    def data(self, file: str) -> bytes | None:
        """None where it is not there; what may not be read is remembered."""
        try:
            with open_regular(self._paths.resolve(self._paths.at(file))) as f:
                return f.read(SIZE_LIMIT)
        except PermissionError:
            self._unreadable.append(f"/{file}")
        except (OSError, FormatError):
            pass
        return None

    def text(self, file: str) -> str | None:
        data = self.data(file)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def names(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(self._paths.resolve(self._paths.at(directory))))[:MAX_ENTRIES]
        except PermissionError:
            self._unreadable.append(f"/{directory}")
        except (OSError, FormatError):
            pass
        return []

    def variable(self, name: str, vendor: str = LOADER) -> str:
        data = self.data(f"{EFIVARS}/{name}-{vendor}") or b""
        return data[ATTRIBUTES:].decode("utf-16-le", "replace").rstrip("\0")

    # ---- GRUB

    def grub(self) -> GrubLook | None:
        directory = next(self._grub_directories(), None)
        script = self.text(f"{directory}/grub.cfg") if directory else None
        if directory is None or script is None:
            return None
        names = frozenset(self.names(directory))
        others = [n for n in names if n.endswith(".cfg") and n != "grub.cfg"]
        files = {n: text for n in others if (text := self.text(f"{directory}/{n}")) is not None}
        env, problem = self._grubenv(f"{directory}/grubenv")
        entries = tuple(self._entries("boot", stops=True))
        return GrubLook(f"/{directory}", script, files, names, env, problem, entries)

    def _grub_directories(self) -> Iterator[str]:
        """On an ESP only where there is no other: there it mostly leads on to that one."""
        for directory in GRUB_DIRECTORIES:
            if "grub.cfg" in self.names(directory):
                yield directory
        for name in self.names("boot/efi/EFI"):
            if "grub.cfg" in self.names(f"boot/efi/EFI/{name}"):
                yield f"boot/efi/EFI/{name}"

    def _grubenv(self, file: str) -> tuple[dict[str, str], str | None]:
        known = len(self._unreadable)
        data = self.data(file)
        if data is None:
            return {}, f"/{file} cannot be read" if len(self._unreadable) > known else None
        try:
            return parse_grubenv(data, f"/{file}") if data else {}, None
        except FormatError as exc:
            return {}, str(exc)

    # ---- systemd-boot

    def systemd_boot(self) -> SystemdBootLook | None:
        tops = [top for top in TOPS if self._has_systemd_boot(top)]
        if not tops:
            return None
        conf = next((text for top in tops if (text := self.text(f"{top}/loader/loader.conf")) is not None), "")
        return SystemdBootLook(
            tuple(entry for top in TOPS for entry in (*self._present(top), *self._unified(top))),
            parse_loader_conf(conf),
            parse_loader_conf(conf, "preferred"),
            self.variable("LoaderEntryOneShot"),
            self.variable("LoaderEntryPreferred"),
            self.variable("LoaderEntryDefault"),
            self.variable("LoaderEntryLastBooted"),
        )

    def _has_systemd_boot(self, top: str) -> bool:
        return any(n.lower().startswith("systemd-boot") for n in self.names(f"{top}/EFI/systemd"))

    def _entries(self, top: str, *, stops: bool = False) -> Iterator[LoaderEntry]:
        for name in self.names(f"{top}/loader/entries"):
            if name.lower().endswith(".conf") and not name.startswith((".", "auto-")):
                text = self.text(f"{top}/loader/entries/{name}")
                if text is not None:
                    yield parse_entry(text, name, stops=stops)

    def _present(self, top: str) -> Iterator[LoaderEntry]:
        """systemd-boot passes over an entry whose kernel is not there."""
        for entry in self._entries(top):
            with contextlib.suppress(FormatError):
                if self._paths.resolve(self._paths.at(f"{top}/{entry.image}")).exists():
                    yield entry

    def _unified(self, top: str) -> Iterator[LoaderEntry]:
        for name in self.names(f"{top}/EFI/Linux"):
            if name.lower().endswith(".efi"):
                path = self._paths.resolve(self._paths.at(f"{top}/EFI/Linux/{name}"))
                with contextlib.suppress(OSError, struct.error):
                    found = read_sections(path, (b".osrel", b".uname"))
                    yield unified_entry(name, found.get(b".osrel", ""), found.get(b".uname", ""))

    # ---- kernels

    def images(self) -> dict[str, str]:
        found = {}
        for name in self.names("boot"):
            if name.startswith(KERNEL_NAMES):
                with contextlib.suppress(OSError, FormatError):
                    release = read_release(self._paths.resolve(self._paths.boot / name))
                    if release:
                        found[name] = release
        return found


def read_release(path: Path) -> str:
    """As a kernel image of x86 says it; "" where it does not. OSError travels."""
    with open_regular(path) as f:
        head = f.read(SETUP_AT + 0x100)
        if head[BOOT_MAGIC_AT : BOOT_MAGIC_AT + 4] != BOOT_MAGIC:
            return ""
        (offset,) = struct.unpack_from("<H", head, VERSION_AT)
        f.seek(SETUP_AT + offset)
        return f.read(256).split(b"\0")[0].split(b" ")[0].decode("ascii", "replace") if offset else ""


def read_sections(path: Path, wanted: tuple[bytes, ...]) -> dict[bytes, str]:
    """Of a PE file, as text. Raises struct.error where it is none; OSError travels."""
    found = {}
    with open_regular(path) as f:
        head = f.read(SIZE_LIMIT >> 8)
        (start,) = struct.unpack_from("<I", head, PE_OFFSET_AT)
        magic, _, count, *_, optional = struct.unpack_from("<4sHHIIIH", head, start)
        if magic != PE_MAGIC:
            raise struct.error("no PE file")
        table = start + len(PE_MAGIC) + COFF_SIZE + optional
        for i in range(min(count, MAX_SECTIONS)):
            name, virtual, _, stored, offset = SECTION.unpack_from(head, table + i * SECTION_SIZE)
            if name.rstrip(b"\0") in wanted:
                f.seek(offset)
                data = f.read(min(virtual, stored, SIZE_LIMIT >> 6))
                found[name.rstrip(b"\0")] = data.rstrip(b"\0").decode("utf-8", "replace")
    return found
