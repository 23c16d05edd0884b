from __future__ import annotations

import pytest

from autokmod.config import RetryConfig
from autokmod.jobs.retry import delay_s, due_in_s

CONFIG = RetryConfig(attempts=5, first_delay_s=30, max_delay_s=300)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 30), (2, 60), (3, 120), (4, 240), (5, 300), (6, None), (10_000, None)]
)
def test_delay_grows_to_its_limit_and_ends(failures: int, seconds: float | None) -> None:
    assert delay_s(failures, CONFIG) == seconds


@pytest.mark.parametrize(("failures", "seconds"), [(1, 2), (2, 4), (4, 16), (5, 16), (10_000, 16)])
def test_who_only_waits_for_another_never_gives_up(failures: int, seconds: float) -> None:
    assert delay_s(failures, CONFIG, patient=True) == seconds


@pytest.mark.parametrize(
    ("config", "failures", "seconds"),
    [
        (RetryConfig(attempts=0), 1, None),
        (RetryConfig(attempts=1, first_delay_s=900, max_delay_s=60), 1, 60),
        (RetryConfig(attempts=10**6, first_delay_s=1, max_delay_s=1e12), 10**6, 2.0**32),
        (RetryConfig(attempts=2, first_delay_s=0), 2, 0),
    ],
)
def test_delay_of_unusual_configurations(config: RetryConfig, failures: int, seconds: float | None) -> None:
    assert delay_s(failures, config) == seconds


@pytest.mark.parametrize(
    ("not_before", "now", "seconds"),
    [
        (0, 1000, 0),
        (1000, 1000, 0),
        (1010, 1000, 10),
        (1300, 1000, 300),
        (1301, 1000, 0),  # longer than any delay: the clock was put back
        (1e9, 1000, 0),
    ],
)
def test_due(not_before: float, now: float, seconds: float) -> None:
    assert due_in_s(not_before, now, CONFIG) == seconds
