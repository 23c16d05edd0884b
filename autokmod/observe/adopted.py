"""What autokmod took over from whom, and how to give it back: /var/lib/autokmod/adopted.json.

{"format": 1, "adopted": [{"name": "dkms", "at": …, "masks": […], "unknown": […]}]}
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from autokmod.errors import FormatError
from autokmod.files import read_json
from autokmod.jsonvalue import from_json
from autokmod.paths import Paths

FORMAT = 1


class Way(StrEnum):
    """How somebody else's builder is started."""

    HOOK = "hook"  # by run-parts, as long as it is executable
    PLUGIN = "plugin"  # by kernel-install
    UNIT = "unit"  # by systemd, at boot
    ALPM = "alpm"  # by pacman
    PACKAGES = "packages"  # by the maintainer scripts of its packages
    SCRIPTLET = "scriptlet"  # by the scripts of kernels' and modules' packages, where it is executable


@dataclass(frozen=True, slots=True)
class Trigger:
    way: Way
    path: str  # as seen from inside the root


@dataclass(frozen=True, slots=True)
class Mask:
    """What was done to one trigger. Paths as seen from inside the root."""

    way: Way
    path: str  # what was masked
    made: str  # what was put in its way; the same where only its mode was changed
    mode: int | None = None  # it had, where that was changed
    kept: str | None = None  # where the file went that stood in `made` before


@dataclass(frozen=True, slots=True)
class Adopted:
    name: str
    at: float  # s since epoch
    masks: tuple[Mask, ...]
    unknown: tuple[str, ...] = ()  # NAME/VERSION of sources that it did not know then, and so has not to know again


@dataclass(frozen=True, slots=True)
class _File:
    format: int
    adopted: tuple[Adopted, ...]


def read_adopted(paths: Paths) -> tuple[Adopted, ...]:
    """Raises FormatError for a damaged file; OSError travels."""
    try:
        data = read_json(paths.adopted)
    except FileNotFoundError:
        return ()
    file = from_json(_File, data, str(paths.adopted))
    if file.format != FORMAT:
        raise FormatError(str(paths.adopted), f"format {file.format} is not known, {FORMAT} expected")
    return file.adopted


def find_adopted(paths: Paths, name: str) -> Adopted | None:
    """Raises FormatError."""
    return next((a for a in read_adopted(paths) if a.name == name), None)
