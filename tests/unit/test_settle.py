from __future__ import annotations

import pytest

from autokmod.daemon.settle import PATIENCE_S, wait_s

NOW = 1e9


@pytest.mark.parametrize(
    ("changed", "hinted", "seconds"),
    [
        (-10, 0, 0),  # came to rest long ago
        (-3, 0, 0),
        (-2, 0, 1),
        (0, 0, 3),
        (5, 0, 0),  # in the future: a clock was wrong
        (0, -PATIENCE_S + 1, 3),
        (0, -PATIENCE_S, 0),  # it changes without end
        (-NOW, 0, 0),  # nothing is known of a change
    ],
)
def test_wait(changed: float, hinted: float, seconds: float) -> None:
    assert wait_s(NOW + changed, NOW + hinted, NOW, 3.0) == seconds


def test_no_settling_wanted() -> None:
    assert wait_s(NOW, NOW, NOW, 0.0) == 0
