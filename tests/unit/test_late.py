"""What comes up late in a boot is looked for a few times, and never where nothing is missing."""

from __future__ import annotations

import pytest

from autokmod.daemon import late
from autokmod.daemon.late import LATE_S, Late, late_s
from autokmod.daemon.loop import Loop


def test_when() -> None:
    first, second, last = LATE_S
    assert late_s(0.0) == first
    assert late_s(first) == second - first
    assert late_s(first - 0.001) == second - first + 0.001, "a timer that came a little early is not set again"
    assert late_s(second + 10) == last - second - 10
    assert late_s(last) is None
    assert late_s(10 * last) is None


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "LATE_S", (0.01, 0.02, 0.03))
    monkeypatch.setattr(late, "NEAR_S", 0.001)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ([False], 0),
        ([True, False], 1),
        ([True, True, False], 2),
        ([True, True, True, True], 3),
    ],
)
def test_how_often(answers: list[bool], count: int) -> None:
    """`answers`: whether anything may still come."""
    loop, looks = Loop(), list[float]()

    def look() -> None:
        looks.append(late.LATE_S[len(looks)])
        answer()

    def answer() -> None:
        one.looked(is_open=answers[len(looks)])
        if not one.is_waiting:
            loop.post(loop.quit)

    one = Late(loop, look, clock=lambda: looks[-1] if looks else 0.0)
    answer()
    loop.run()
    assert len(looks) == count


@pytest.mark.usefixtures("soon")
def test_an_answer_in_between_takes_the_timer_back() -> None:
    loop, looks = Loop(), list[str]()
    one = Late(loop, lambda: looks.append("looked"), clock=lambda: 0.0)
    waits = []
    for is_open in (True, True, False):
        one.looked(is_open=is_open)
        waits.append(one.is_waiting)
    assert waits == [True, True, False]
    loop.after(0.05, loop.quit)  # due after those that were taken back
    loop.run()
    assert looks == []
