"""dracut. Before 060 it copies onto the image while it stands, so it is given another name."""

from __future__ import annotations

from autokmod.act.generators import Argv, Generator


def _make(krel: str, image: str, new: str) -> Argv:
    del image
    return ("dracut", "--force", "--quiet", "--kver", krel, new)


DRACUT = Generator("dracut", "dracut", _make, by_hand="dracut --force --kver {krel}")
