"""Which kernels an image has modules for, and where: a directory for each, or booster's, which is for one alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from autokmod.observe.image.contents import Image
from autokmod.observe.image.cpio import Entry
from autokmod.observe.image.layers import real_path

MODULES = "usr/lib/modules"
# It knows no modules.dep: all modules lie beside each other, and who needs whom stands in its configuration.
BOOSTER = "etc/booster.init.yaml"
_OF_KERNEL = re.compile(r"(?:usr/)?lib/modules/([^/]+)/(?:modules\.dep|.*\.ko(?:\.\w+)?$)")
_OF_BOOSTER = re.compile(rf"{MODULES}/([^/]+\.ko)")


def is_config(path: str) -> bool:
    return path == BOOSTER


def kernels_in(image: Image) -> frozenset[str]:
    """`image` was read with the content of what `is_config`."""
    config = image.files.get(BOOSTER)
    if config is not None:
        named = re.findall(rb"^kernel: *[\"']?([^\s\"']+)", config.content or b"", re.MULTILINE)
        return frozenset(krel.decode("utf-8", "surrogateescape") for krel in named)
    found = (_OF_KERNEL.match(path) for path in image.files)
    return frozenset(match[1] for match in found if match is not None)


def reached(files: Mapping[str, Entry], krel: str) -> str | None:
    """The directory that modprobe finds this kernel's modules in."""
    return real_path(files, f"lib/modules/{krel}" if "lib" in files else f"{MODULES}/{krel}")


def entries_of(files: Mapping[str, Entry], krel: str) -> dict[str, Entry]:
    """What stands in the modules directory of one kernel, by the path below it."""
    places = places_of(krel)
    return {path_below(path, krel): entry for path, entry in files.items() if path.startswith(places)}


def flat_entries(files: Mapping[str, Entry]) -> dict[str, Entry]:
    """The modules of an image of booster's."""
    found = ((_OF_BOOSTER.fullmatch(path), entry) for path, entry in files.items())
    return {match[1]: entry for match, entry in found if match is not None}


def places_of(krel: str) -> tuple[str, ...]:
    return (f"{MODULES}/{krel}/", f"lib/modules/{krel}/")


def path_below(path: str, krel: str) -> str:
    return path.partition(f"lib/modules/{krel}/")[2]
