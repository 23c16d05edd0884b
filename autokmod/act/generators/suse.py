"""SUSE: transactions leave a file for each kernel, and one script makes the images with whatever the system uses."""

from __future__ import annotations

from autokmod.act.generators import Argv, Generator

SCRIPT = "/usr/lib/module-init-tools/regenerate-initrd-posttrans"
FLAGS = "/run/regenerate-initrd"


def _make(krel: str, image: str, new: str) -> Argv:
    del image, new
    return ("sh", "-c", f'mkdir -p "{FLAGS}" && : >"{FLAGS}/$1" && exec "{SCRIPT}"', "regenerate-initrd", krel)


SUSE = Generator("regenerate-initrd", SCRIPT, _make, in_place=True, by_hand=f"touch {FLAGS}/{{krel}}; {SCRIPT}")
