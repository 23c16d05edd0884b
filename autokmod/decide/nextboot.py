"""Which kernel the next boot takes, where that is certain. Pure; "unknown" carries why, as a reason.

Who will load it is the boot loader's own word (LoaderInfo, an EFI variable that systemd-boot and newer GRUBs leave),
else the only one that is installed: two that might be are one too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from autokmod.decide.grubmenu import Menu, read_menu
from autokmod.errors import FormatError
from autokmod.model import KernelStatus, NextBoot, Reason
from autokmod.observe.bls import LoaderEntry, in_systemd_order
from autokmod.observe.enforcement import names_kernel
from autokmod.observe.grub import GrubLook
from autokmod.observe.nextboot import EFIVARS, BootLook, SystemdBootLook

GRUB, SYSTEMD_BOOT = "grub", "systemd-boot"
VERSION = re.compile(r"systemd-boot (\d{1,6})", re.IGNORECASE)
PREFERS_SINCE = 260
ODD = ("\\", "[!", "[^")  # in patterns


def decide_next_boot(look: BootLook, krels: Sequence[str]) -> NextBoot:
    if look.boot_next:
        return unknown("", "the firmware was asked (BootNext) to start something else the next time")
    loader = find_loader(look)
    if isinstance(loader, Reason):
        return NextBoot(None, "", "", loader)
    if loader == GRUB:
        return _by_grub(look, krels)
    return _by_systemd_boot(look, krels)


def find_loader(look: BootLook) -> str | Reason:
    said = look.loader.lower()
    if said.startswith("systemd-boot"):
        return SYSTEMD_BOOT if look.systemd_boot else _unknown(f"{look.loader} was started, and is not found on disk")
    if said.startswith("grub"):
        return GRUB if look.grub else _unknown("GRUB was started, and its grub.cfg is not found")
    if said:
        return _unknown(f"the boot loader is {look.loader}, which autokmod does not know")
    candidates = [GRUB] if look.grub else []
    candidates += [SYSTEMD_BOOT] if look.systemd_boot and look.is_efi is not False else []
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        return _unknown("both GRUB and systemd-boot are installed, and neither says that it was started")
    if look.unreadable:
        return _unknown(f"{look.unreadable[0]} cannot be read", hint="ask as root, or ask the daemon over D-Bus")
    return _unknown("no boot loader that autokmod knows is installed (GRUB, systemd-boot)")


def _unknown(text: str, hint: str | None = None) -> Reason:
    return Reason("next-boot-unknown", text, hint=hint)


def unknown(loader: str, text: str, entry: str = "") -> NextBoot:
    return NextBoot(None, loader, entry, _unknown(text))


def known(loader: str, entry: str, image: str, krel: str | None) -> NextBoot:
    if krel is None:
        return unknown(loader, f"it takes {entry!r} with {image}, and of which release that is is not known", entry)
    return NextBoot(krel, loader, entry, Reason("next-boot", f"the next boot takes {krel} ({entry})"))


def with_next_boot(statuses: Iterable[KernelStatus], next_boot: NextBoot) -> tuple[KernelStatus, ...]:
    """`next_boot` of each kernel: none of them where the next boot takes something else."""
    if not next_boot.is_known:
        return tuple(statuses)
    return tuple(replace(s, next_boot=s.krel == next_boot.krel) for s in statuses)


# ---- kernels -------------------------------------------------------------------------------------


def find_krel(look: BootLook, image: str, krels: Sequence[str]) -> str | None:
    """What the file says of itself comes before what its name says. A longer name is meant before a shorter one."""
    directory, _, name = image.rpartition("/")
    if name in look.images and directory.rpartition("/")[2] in ("", "boot", "@boot"):
        return look.images[name]
    return max((k for k in krels if names_kernel(image, k)), key=len, default=None)


# ---- GRUB ----------------------------------------------------------------------------------------


def _by_grub(look: BootLook, krels: Sequence[str]) -> NextBoot:
    assert look.grub is not None
    menu = read_menu(look.grub)
    return unknown(GRUB, menu) if isinstance(menu, str) else from_menu(look, menu, krels)


def from_menu(look: BootLook, menu: Menu, krels: Sequence[str]) -> NextBoot:
    try:
        taken = menu.default()
    except FormatError as exc:
        return unknown(GRUB, str(exc))
    if taken.doubt:
        return unknown(GRUB, taken.doubt, taken.title)
    if taken.image is None:
        return no_kernel(GRUB, taken.title)
    return known(GRUB, taken.title, taken.image, find_krel(look, taken.image, krels))


def no_kernel(loader: str, entry: str) -> NextBoot:
    return NextBoot(
        None, loader, entry, Reason("next-boot-other", f"the next boot takes {entry!r}, which is no kernel")
    )


# ---- systemd-boot --------------------------------------------------------------------------------


def _by_systemd_boot(look: BootLook, krels: Sequence[str]) -> NextBoot:
    assert look.systemd_boot is not None
    if look.is_efi and not look.has_variables:
        return unknown(SYSTEMD_BOOT, f"its default may be in the firmware's variables, and /{EFIVARS} is empty")
    return from_entries(look, look.systemd_boot, krels)


def from_entries(look: BootLook, boot: SystemdBootLook, krels: Sequence[str]) -> NextBoot:
    entry = choose_entry(boot, prefers=is_preferring(look))
    if entry is None:
        return unknown(SYSTEMD_BOOT, "systemd-boot has no entries")
    if isinstance(entry, str):
        return unknown(SYSTEMD_BOOT, f"which entry its default {entry!r} is, is only known to systemd-boot")
    return known(SYSTEMD_BOOT, entry.file, entry.image, krel_of_entry(look, entry, krels))


def krel_of_entry(look: BootLook, entry: LoaderEntry, krels: Sequence[str]) -> str | None:
    if entry.release:
        return entry.release
    return find_krel(look, entry.image, krels) or (entry.version if entry.version in krels else None)


def is_preferring(look: BootLook) -> bool | None:
    """Whether it knows preferred entries; None: not known."""
    version = VERSION.search(look.loader)
    return int(version[1]) >= PREFERS_SINCE if version else None


def choose_entry(boot: SystemdBootLook, *, prefers: bool | None = False) -> LoaderEntry | str | None:
    """As boot.c's config_select_default_entry: the one-shot entry; of newer versions the preferred ones, if they may
    still come up; the variable, loader.conf, the first.

    A text: a pattern of which it is not known what it finds: one of its own entries (auto-windows and the like),
    something that its patterns may mean otherwise than ours, a preference that an older one would not know.
    """
    entries = in_systemd_order(e for e in boot.entries if e.image)
    for pattern, is_preference in _patterns(boot, prefers=prefers):
        wanted = pattern.lower()
        found = next((e for e in entries if fnmatchcase(e.id, wanted) and _may_be(e, preferred=is_preference)), None)
        is_uncertain = (is_preference and prefers is None) or any(odd in wanted for odd in ODD)
        if is_uncertain or (found is None and wanted.startswith(("auto-", "*", "?", "["))):
            return pattern
        if found is not None:
            return found
    return entries[0] if entries else None


def _may_be(entry: LoaderEntry, *, preferred: bool) -> bool:
    return not (preferred and entry.tries_left == 0)


def _patterns(boot: SystemdBootLook, *, prefers: bool | None) -> Iterable[tuple[str, bool]]:
    preferred = () if prefers is False else (boot.preferred_variable, boot.preferred)
    asked = ((boot.one_shot, False), *((p, True) for p in preferred), (boot.default_variable, False))
    for pattern, is_preference in (*asked, (boot.default, False)):
        value = boot.last_booted if pattern.lower() == "@saved" else pattern
        if value:
            yield value, is_preference


def is_grub(look: BootLook) -> GrubLook | None:
    """GRUB's files, where it is GRUB that starts the next kernel."""
    return look.grub if find_loader(look) == GRUB else None
