"""What makes initrds, each in a file of its own: how it is told to make one kernel's image, beside the present one.

Where a generator can only write in place, the present image is copied before and put back if the new one is no good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Generator:
    name: str
    program: str  # without which it cannot run
    make: Callable[[str, str, str], Argv]  # krel, image, new file beside it: paths inside the root
    in_place: bool = False  # `make` replaces the image itself
    after: Callable[[str, str], Argv] | None = None  # krel, image: what is to be told once it stands
    by_hand: str = ""  # what a person would type, with {krel} in it
