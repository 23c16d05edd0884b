"""Taking turns at compiling, without a compiler."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.config import Config
from autokmod.files import locked, locked_at_once
from autokmod.jobs.compile import CANCELLED, Compiling
from autokmod.jobs.tokens import TokenPool
from autokmod.paths import Paths
from autokmod.run import Cancel
from tests.unit.test_plan import FACTS, PACKAGE


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def compiling(tmp_path: Path, said: list[str]) -> Iterator[Compiling]:
    with closing(TokenPool(1)) as tokens:
        yield Compiling(Paths(tmp_path), Config(), tokens, Cancel(), said.append)


def is_free(compiling: Compiling) -> bool:
    with locked_at_once(compiling.paths.build_lock) as is_ours:
        return is_ours


def test_a_free_turn_is_taken_and_given_back(compiling: Compiling, said: list[str]) -> None:
    with compiling.turn() as has_waited:
        assert not has_waited
        assert not is_free(compiling)
    assert is_free(compiling)
    assert said == []


def test_who_comes_second_waits_and_says_so_once(compiling: Compiling, said: list[str]) -> None:
    held, told = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(compiling.paths.build_lock):
            held.set()
            assert told.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(30)

    def progress(text: str) -> None:
        said.append(text)
        told.set()

    with replace(compiling, progress=progress).turn() as has_waited:
        assert has_waited
        assert not is_free(compiling)
    other.join()
    assert said == ["waiting for another process of autokmod that is building"]


def test_a_cancelled_one_waits_no_longer_and_compiles_nothing(compiling: Compiling) -> None:
    compiling.cancel.cancel()
    with locked(compiling.paths.build_lock), compiling.turn():
        assert compiling.run(FACTS, [PACKAGE], {}) == {"key2": CANCELLED}
    assert not compiling.paths.builds.exists()
