"""autokmodd --leave: what of autokmod's doing nobody would undo once it is uninstalled."""

from __future__ import annotations

import time

from autokmod.config import BootGuardConfig, Config
from autokmod.errors import FormatError
from autokmod.jobs.bootguard import guard_boot
from autokmod.observe.bootguard import read_guard
from autokmod.paths import Paths


def run_leave(paths: Paths) -> int:
    """0 when no kernel is kept as the default in another's place, else 1."""
    guard_boot(paths, Config(boot_guard=BootGuardConfig(enabled=False)), time.time())
    try:
        return 0 if read_guard(paths).hold is None else 1
    except FormatError:
        return 1
