"""mkinitcpio, of Arch. Presets may add options of their own; the default preset adds none to these.

A unified kernel image takes more than an initrd, and only the preset knows what: it is run whole, and writes in place.
"""

from __future__ import annotations

from autokmod.act.generators import Argv, Generator


def _make(krel: str, image: str, new: str) -> Argv:
    del image
    return ("mkinitcpio", "--kernel", krel, "--generate", new)


def _run_preset(krel: str, image: str, new: str) -> Argv:
    del image, new
    return ("sh", "-c", 'exec mkinitcpio --preset "$(cat "/usr/lib/modules/$1/pkgbase")"', "mkinitcpio", krel)


MKINITCPIO = Generator("mkinitcpio", "mkinitcpio", _make, by_hand="mkinitcpio -P")
PRESET = Generator("mkinitcpio", "mkinitcpio", _run_preset, in_place=True, by_hand="mkinitcpio -P")
