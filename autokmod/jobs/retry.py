"""Whether and when a job that failed for a reason that may pass is tried again."""

from __future__ import annotations

from autokmod.config import RetryConfig

PATIENT_FIRST_S, PATIENT_DOUBLINGS = 2.0, 3  # apt ends soon, and whoever reboots then should not have to wait
MAX_DOUBLINGS = 32  # beyond any sensible max_delay_s, and far from overflowing a float


def delay_s(failures: int, config: RetryConfig, *, patient: bool = False) -> float | None:
    """How long to wait after that many failures in a row (1: the first). None: it is given up.

    `patient`: never, and soon again; it only waits for somebody else to finish.
    """
    if patient:
        wait_s = PATIENT_FIRST_S * 2.0 ** min(failures - 1, PATIENT_DOUBLINGS)
        return min(wait_s, config.first_delay_s, config.max_delay_s)
    if failures > config.attempts:
        return None
    return min(config.first_delay_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS), config.max_delay_s)


def due_in_s(not_before: float, now: float, config: RetryConfig) -> float:
    """0 when it is due. A wait longer than any that is ever set means that the clock was put back: due as well."""
    wait = not_before - now
    return wait if 0 < wait <= config.max_delay_s else 0.0
