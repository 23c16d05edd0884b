"""initramfs-tools. update-initramfs would write the image itself and end with 0 where it was told to do nothing."""

from __future__ import annotations

from autokmod.act.generators import Argv, Generator

POST_UPDATE = "/etc/initramfs/post-update.d"


def _make(krel: str, image: str, new: str) -> Argv:
    del image
    return ("mkinitramfs", "-o", new, krel)


def _after(krel: str, image: str) -> Argv:
    """As update-initramfs does: boot loaders that must be told of a new image have their hooks there."""
    return ("run-parts", f"--arg={krel}", f"--arg={image}", POST_UPDATE)


INITRAMFS_TOOLS = Generator(
    "initramfs-tools", "mkinitramfs", _make, after=_after, by_hand="update-initramfs -u -k {krel}"
)
