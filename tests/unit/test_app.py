"""The daemon's loop thread by itself: a real loop, no bus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autokmod.config import Config
from autokmod.daemon import app as app_module
from autokmod.daemon import judge as judge_module
from autokmod.daemon.app import App
from autokmod.daemon.loop import Loop
from autokmod.observe.atwork import PACMAN
from autokmod.paths import Paths
from tests.unit.handmade import add_kernel

EVENTS = 5
ROUNDS = 3


class CountingLoop(Loop):
    """Knows its timers. Ends when as many have rung as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[int] = set()
        self.most = self.rung = 0
        self.ends_at = -1

    def after(self, seconds: float, callback: Callable[..., None]) -> int:
        def ring() -> None:
            self.waiting.remove(number)
            self.rung += 1
            callback()
            if self.rung == self.ends_at:
                self.quit()

        number = super().after(seconds, ring)
        self.waiting.add(number)
        self.most = max(self.most, len(self.waiting))
        return number


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """A package manager is at work, and two kernels are not whole."""
    paths = Paths(tmp_path)
    for krel in ("6.1.0-1-amd64", "6.1.0-2-amd64"):
        (add_kernel(paths, krel) / "modules.order").unlink()
    paths.at(PACMAN).parent.mkdir(parents=True)
    paths.at(PACMAN).touch()
    monkeypatch.setattr(app_module, "Loop", CountingLoop)
    app = App(paths, Config(), use_bus=False)
    yield app
    for number in counting(app).waiting:
        app.loop.forget(number)
    app._close()


def counting(app: App) -> CountingLoop:
    assert isinstance(app.loop, CountingLoop)
    return app.loop


def judge(app: App) -> None:
    """As with every event; until what came of it has reached the loop."""
    app._judge.due()
    app._background.submit(int).result()
    app.loop.post(app.loop.quit)
    app.loop.run()


def test_a_long_transaction_keeps_one_timer(app: App) -> None:
    for _ in range(EVENTS):
        judge(app)
    assert len(counting(app).waiting) == 1


def test_it_is_looked_at_again_and_again(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "TRANSACTION_S", 0.01)
    for _ in range(EVENTS):
        judge(app)
    counting(app).ends_at = counting(app).rung + ROUNDS
    app.loop.run()
    assert (counting(app).rung, counting(app).most) == (counting(app).ends_at, 1)
