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
    is_preferring,
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


def _ours(hold: Hold) -> tuple[str, ...]:
    """What the boot loader is told while it is autokmod that told it. Whoever chose the same kernel in other words
    means it, and keeps it."""
    return (hold.entry, hold.instead_of) if hold.instead_of else (hold.entry,)


def find_listed(look: BootLook, krels: Sequence[str]) -> frozenset[str]:
    """Of which kernels any entry is there, whoever would read it: rather one too many."""
    entries = (*(look.systemd_boot.entries if look.systemd_boot else ()), *(look.grub.entries if look.grub else ()))
    found = {krel_of_entry(look, entry, krels) for entry in entries}
    found |= {k for k in krels if look.grub is not None and k in look.grub.script}
    return frozenset(k for k in found if k is not None)


# ---- GRUB ----------------------------------------------------------------------------------------


def _view_grub(look: BootLook, krels: Sequence[str], hold: Hold | None) -> LoaderView:
    assert look.grub is not None
    told = look.grub.env.get(SAVED, "")
    now = _grub_default(look, krels, told)
    is_ours = hold is not None and told in _ours(hold)
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
    is_unseen = bool(look.is_efi) and not look.has_variables
    is_ours = hold is not None and (is_unseen or told.lower() in map(str.lower, _ours(hold)))
    without = hold.before if hold is not None and is_ours else told
    return LoaderView(
        _systemd_default(look, krels, without), _systemd_entries(look, krels), told, is_ours, _systemd_obstacle(look)
    )


def _systemd_obstacle(look: BootLook) -> Reason | None:
    assert look.systemd_boot is not None
    if not look.is_efi or not look.has_variables:
        return Reason("guard-no-efi", "systemd-boot takes its default from EFI variables, and there are none")
    preferred = look.systemd_boot.preferred_variable or look.systemd_boot.preferred
    if preferred and is_preferring(look) is not False:
        return Reason("guard-preferred", f"systemd-boot prefers {preferred!r}, whatever the default is")
    return None


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
