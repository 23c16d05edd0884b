"""An overlay for an image, from what stands on disk."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable
from pathlib import Path

from autokmod.act.overlay import Overlay, make_overlay
from autokmod.errors import UsageError
from autokmod.observe.blob import read_bounded
from autokmod.observe.image.base import Base, read_base
from autokmod.paths import Paths

CONF_LIMIT = 1 << 20  # bytes of one file
CONF_SUFFIX = ".conf"


def overlay_for(
    paths: Paths, krel: str, image: Path, modules: Collection[str], conf: Iterable[str] = ()
) -> tuple[Base, Overlay]:
    """`conf`: absolute paths inside the root. Raises UsageError, FormatError, CommandFailed, ToolMissing, OSError."""
    base = read_base(str(image), krel, paths.modulesd(krel))
    return base, make_overlay(paths, krel, base, modules, read_conf(paths.resolve(paths.at(file)) for file in conf))


def read_conf(files: Iterable[Path]) -> dict[str, bytes]:
    """By the names that they are to have in modprobe.d. Raises UsageError for those that modprobe would not read."""
    found: dict[str, bytes] = {}
    for file in files:
        name = posixpath.basename(file)
        if not name.endswith(CONF_SUFFIX):
            raise UsageError(f"{file}: modprobe reads files whose names end with {CONF_SUFFIX}")
        if name in found:
            raise UsageError(f"{file}: there is another file {name}")
        found[name] = read_bounded(file, limit=CONF_LIMIT)
    return found
