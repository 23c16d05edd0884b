"""mkinitcpio, of Arch. Presets may add options of their own; the default preset adds none to these."""

from __future__ import annotations

from autokmod.act.generators import Argv, Generator


def _make(krel: str, image: str, new: str) -> Argv:
    del image
    return ("mkinitcpio", "--kernel", krel, "--generate", new)


MKINITCPIO = Generator("mkinitcpio", "mkinitcpio", _make, by_hand="mkinitcpio -P")
