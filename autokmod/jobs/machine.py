"""What `status` says: the quick look and the queue, judged. The daemon tells the same over D-Bus."""

from __future__ import annotations

from collections.abc import Sequence

from autokmod.config import Config
from autokmod.decide.nextboot import decide_next_boot, with_next_boot
from autokmod.decide.readiness import decide_readiness
from autokmod.model import Job, KernelStatus, NextBoot
from autokmod.observe.kernels import list_krels
from autokmod.observe.machine import look_at_kernels
from autokmod.observe.nextboot import look_at_boot
from autokmod.paths import Paths


def read_machine(paths: Paths, config: Config, jobs: Sequence[Job], now: float) -> tuple[KernelStatus, ...]:
    """Every kernel, in name order, headers-only directories included. `now` in s since epoch."""
    return read_machine_and_next(paths, config, jobs, now)[0]


def read_machine_and_next(
    paths: Paths, config: Config, jobs: Sequence[Job], now: float
) -> tuple[tuple[KernelStatus, ...], NextBoot]:
    """And what the next boot takes."""
    next_boot = read_next_boot(paths)
    statuses = (decide_readiness(sight, config, jobs) for sight in look_at_kernels(paths, now))
    return with_next_boot(statuses, next_boot), next_boot


def read_next_boot(paths: Paths) -> NextBoot:
    return decide_next_boot(look_at_boot(paths), list_krels(paths))
