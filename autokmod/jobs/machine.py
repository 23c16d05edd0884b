"""What `status` says: the quick look and the queue, judged. The daemon tells the same over D-Bus."""

from __future__ import annotations

from collections.abc import Sequence

from autokmod.config import Config
from autokmod.decide.readiness import decide_readiness
from autokmod.model import Job, KernelStatus
from autokmod.observe.machine import look_at_kernels
from autokmod.paths import Paths


def read_machine(paths: Paths, config: Config, jobs: Sequence[Job], now: float) -> tuple[KernelStatus, ...]:
    """Every kernel, in name order, headers-only directories included. `now` in s since epoch."""
    return tuple(decide_readiness(sight, config, jobs) for sight in look_at_kernels(paths, now))
