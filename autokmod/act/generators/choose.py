"""Which generator a present image is made with."""

from __future__ import annotations

from autokmod.act.generators import Generator
from autokmod.act.generators.booster import BOOSTER
from autokmod.act.generators.dracut import DRACUT
from autokmod.act.generators.initramfs_tools import INITRAMFS_TOOLS
from autokmod.act.generators.kernel_install import KERNEL_INSTALL
from autokmod.act.generators.mkinitcpio import MKINITCPIO, PRESET
from autokmod.act.generators.suse import SCRIPT, SUSE
from autokmod.observe.initrd import Place
from autokmod.paths import Paths

BY_NAME = {g.name: g for g in (INITRAMFS_TOOLS, DRACUT, MKINITCPIO, BOOSTER)}


def choose(paths: Paths, place: Place, made_by: str | None) -> Generator:
    """The distribution's own way first; then whoever made the image; then by what the image is called."""
    if paths.at(SCRIPT.lstrip("/")).exists():
        return SUSE
    if place is Place.ENTRY:
        return KERNEL_INSTALL
    if place is Place.PRESET:
        return PRESET
    if made_by is not None:
        return BY_NAME[made_by]
    return INITRAMFS_TOOLS if place is Place.DEBIAN else DRACUT
