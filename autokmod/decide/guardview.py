"""What the boot guard has to know of the boot loader: what it would boot by itself, and what could be told to it. Pure.

An entry counts only where it was tried out: with it, the same rules that say what the next boot takes find that kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from autokmod.decide.grubmenu import Choice, Menu, read_menu
from autokmod.decide.nextboot import (
    GRUB,
    find_krel,
    find_loader,
    from_entries,
    from_menu,
    krel_of_entry,
    unknown,
)
from autokmod.errors import FormatError
from autokmod.model import Hold, NextBoot, Reason
from autokmod.observe.bls import in_systemd_order
from autokmod.observe.nextboot import BootLook

SAVED, ONCE = "saved_entry", "next_entry"


@dataclass(frozen=True, slots=True)
class LoaderView:
    wanted: NextBoot  # see GuardFacts
    entries: dict[str, str]
    told: str
    is_ours: bool
    obstacle: Reason | None


def view_loader(look: BootLook, krels: Sequence[str], hold: Hold | None) -> LoaderView:
    loader = find_loader(look)
    if isinstance(loader, Reason):
        return LoaderView(NextBoot(None, "", "", loader), {}, "", is_ours=hold is not None, obstacle=loader)
    mine = hold if hold is not None and hold.loader == loader else None
    return _view_grub(look, krels, mine) if loader == GRUB else _view_systemd_boot(look, krels, mine)


# ---- GRUB ----------------------------------------------------------------------------------------


def _view_grub(look: BootLook, krels: Sequence[str], hold: Hold | None) -> LoaderView:
    assert look.grub is not None
    told = look.grub.env.get(SAVED, "")
    now = _grub_default(look, krels, told)
    is_ours = hold is not None and (told == hold.entry or now.krel == hold.keeps)
    wanted = _grub_default(look, krels, hold.before) if hold is not None and is_ours else now
    choices = _grub_choices(look, krels)
    entries = {krel: spec for krel, spec in choices.items() if _grub_default(look, krels, spec).krel == krel}
    if len(entries) == len(choices):
        return LoaderView(wanted, entries, told, is_ours, None)
    return LoaderView(wanted, {}, told, is_ours, _grub_obstacle(look))


def _grub_default(look: BootLook, krels: Sequence[str], saved: str) -> NextBoot:
    assert look.grub is not None
    menu = read_menu(look.grub, {**look.grub.env, SAVED: saved, ONCE: ""})
    return unknown(GRUB, menu) if isinstance(menu, str) else from_menu(look, menu, krels)


def _grub_choices(look: BootLook, krels: Sequence[str]) -> dict[str, str]:
    """The first entry of each kernel that names it: "the newest" will be another one tomorrow."""
    found: dict[str, str] = {}
    for choice in _choices(look):
        krel = find_krel(look, choice.image, krels)
        if krel is not None and krel in choice.spec:
            found.setdefault(krel, choice.spec)
    return found


def _choices(look: BootLook) -> Iterator[Choice]:
    menu = read_menu(look.grub) if look.grub else ""
    if isinstance(menu, Menu):
        try:
            yield from menu.choices()
        except FormatError:
            return


def _grub_obstacle(look: BootLook) -> Reason:
    hint = "set GRUB_DEFAULT=saved in /etc/default/grub, then run update-grub"
    setting = f" (GRUB_DEFAULT is {look.grub_default})" if look.grub_default not in (None, "saved") else ""
    return Reason("guard-not-saved", f"GRUB's configuration does not go by a saved entry{setting}", hint=hint)


# ---- systemd-boot --------------------------------------------------------------------------------


def _view_systemd_boot(look: BootLook, krels: Sequence[str], hold: Hold | None) -> LoaderView:
    assert look.systemd_boot is not None
    told = look.systemd_boot.default_variable
    is_ours = hold is not None and told.lower() == hold.entry.lower()
    without = hold.before if hold is not None and is_ours else told
    obstacle = (
        None
        if look.is_efi
        else Reason("guard-no-efi", "systemd-boot takes its default from EFI variables, and there are none")
    )
    return LoaderView(_systemd_default(look, krels, without), _systemd_entries(look, krels), told, is_ours, obstacle)


def _systemd_default(look: BootLook, krels: Sequence[str], variable: str) -> NextBoot:
    assert look.systemd_boot is not None
    return from_entries(look, replace(look.systemd_boot, one_shot="", default_variable=variable), krels)


def _systemd_entries(look: BootLook, krels: Sequence[str]) -> dict[str, str]:
    """Not those that are on trial: their names change with each boot."""
    found: dict[str, str] = {}
    for entry in in_systemd_order(look.systemd_boot.entries if look.systemd_boot else ()):
        krel = krel_of_entry(look, entry, krels)
        if krel is None or krel in found or entry.tries_left is not None:
            continue
        if _systemd_default(look, krels, entry.file).krel == krel:
            found[krel] = entry.file
    return found
