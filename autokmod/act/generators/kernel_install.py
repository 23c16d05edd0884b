"""Layouts of kernel-install (bls, uki): adding the kernel once more makes its image, its entry and its UKI anew.

Debian keeps the kernel itself in /boot; until 254 kernel-install does not look for it.
"""

from __future__ import annotations

from autokmod.act.generators import Argv, Generator

ADD = """cd "/usr/lib/modules/$1" || exit 1
for image in "$PWD/vmlinuz" "$PWD/vmlinux" "/boot/vmlinuz-$1" "/boot/vmlinux-$1"; do
    [ -f "$image" ] && exec kernel-install add "$1" "$image"
done
echo "the kernel of $1 itself is neither in /usr/lib/modules nor in /boot"
exit 1"""


def _make(krel: str, image: str, new: str) -> Argv:
    del image, new
    return ("sh", "-c", ADD, "kernel-install", krel)


KERNEL_INSTALL = Generator(
    "kernel-install", "kernel-install", _make, in_place=True,
    by_hand="kernel-install --verbose add {krel} KERNEL",
)  # fmt: skip
