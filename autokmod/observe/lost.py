"""Sources that are out of sight: not mounted, a link that leads nowhere, half removed. Not the same as gone."""

from __future__ import annotations

import os
from collections.abc import Iterable

from autokmod.model import Package, Placement, Reason
from autokmod.paths import Paths


def find_lost(
    paths: Paths, packages: Iterable[Package], placements: Iterable[Placement]
) -> tuple[tuple[Placement, Reason], ...]:
    """Placements of packages that are not found any more, although nothing says that they were removed.

    A package manager that removes a package takes its directory with it, and leaves /usr/src itself.
    """
    known = {p.name for p in packages}
    candidates = {p.package: p for p in placements if p.files and p.package not in known}
    if not candidates:
        return ()
    nothing = _nothing_there(paths)
    found = ((p, nothing or _out_of_sight(paths, p)) for p in candidates.values())
    return tuple((placement, reason) for placement, reason in found if reason is not None)


def _nothing_there(paths: Paths) -> Reason | None:
    try:
        if os.listdir(paths.usr_src):
            return None
    except (FileNotFoundError, NotADirectoryError):
        pass
    return Reason("sources-lost", "there is nothing at all in /usr/src", hint="mount it")


def _out_of_sight(paths: Paths, placement: Placement) -> Reason | None:
    source = paths.usr_src / f"{placement.package}-{placement.version}"
    if not os.path.lexists(source):
        return None
    where = paths.inside(source)
    text = f"{where} is there, but holds neither dkms.conf nor autokmod.toml"
    return Reason("sources-lost", text, hint=f"mend or remove {where}")
