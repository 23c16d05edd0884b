"""autokmodd --leave: what of autokmod's doing nobody would undo once it is uninstalled."""

from __future__ import annotations

import time

from autokmod.config import BootGuardConfig, Config
from autokmod.errors import FormatError
from autokmod.jobs.bootguard import guard_boot
from autokmod.observe.bootguard import read_guard
from autokmod.paths import Paths


def run_leave(paths: Paths) -> int:
    """0 when no kernel is kept as the default in another's place, and none out of the boot menu, else 1."""
    guard_boot(paths, Config(boot_guard=BootGuardConfig(enabled=False)), time.time())
    try:
        state = read_guard(paths)
    except FormatError:
        return 1
    return 0 if state.hold is None and not state.kept_out else 1
