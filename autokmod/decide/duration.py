"""How long a build will take: to begin with the longest, so that at the end no core waits for a last one. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from autokmod.model import Build, Package

UNIT_S = 1.0  # one source file: the kernel's headers, which each includes, are most of what is compiled
SOURCES = (".c", ".S", ".rs")


def expected_s(package: Package, builds: Iterable[Build], files: Iterable[str]) -> float:
    """What it took last, on whichever kernel; else by `files`, all of its source. Without any it is not known."""
    own = [build for build in builds if build.package == package.name]
    if own:
        return max(own, key=lambda build: build.built_at).duration_s
    return sum(name.endswith(SOURCES) for name in files) * UNIT_S or math.inf
