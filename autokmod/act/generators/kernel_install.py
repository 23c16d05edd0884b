"""Layouts of kernel-install (bls, uki): adding the kernel once more makes its image, its entry and its UKI anew."""

from __future__ import annotations

from autokmod.act.generators import Argv, Generator


def _make(krel: str, image: str, new: str) -> Argv:
    del image, new
    return ("kernel-install", "add", krel, f"/usr/lib/modules/{krel}/vmlinuz")


KERNEL_INSTALL = Generator(
    "kernel-install", "kernel-install", _make, in_place=True,
    by_hand="kernel-install add {krel} /usr/lib/modules/{krel}/vmlinuz",
)  # fmt: skip
