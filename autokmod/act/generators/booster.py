"""booster."""

from __future__ import annotations

from autokmod.act.generators import Argv, Generator


def _make(krel: str, image: str, new: str) -> Argv:
    del image
    return ("booster", "build", "--force", "--kernel-version", krel, new)


BOOSTER = Generator("booster", "booster", _make, by_hand="booster build --force --kernel-version {krel} IMAGE")
