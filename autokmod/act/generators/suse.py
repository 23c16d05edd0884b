"""SUSE: transactions leave a file for each kernel, and one script makes the images with whatever the system uses.

The file has the name of the kernel's own: the script takes what follows the first dash for the release, and older ones
want a file of that name in /boot.
"""

from __future__ import annotations

from autokmod.act.generators import Argv, Generator

SCRIPT = "/usr/lib/module-init-tools/regenerate-initrd-posttrans"
FLAGS = "/run/regenerate-initrd"
MAKE = f"""for name in vmlinuz image Image vmlinux; do
    [ -e "/boot/$name-$1" ] && break
done
mkdir -p "{FLAGS}" && : >"{FLAGS}/$name-$1" && exec "{SCRIPT}" """


def _make(krel: str, image: str, new: str) -> Argv:
    del image, new
    return ("sh", "-c", MAKE, "regenerate-initrd", krel)


SUSE = Generator("regenerate-initrd", SCRIPT, _make, in_place=True, by_hand=f"touch {FLAGS}/vmlinuz-{{krel}}; {SCRIPT}")
