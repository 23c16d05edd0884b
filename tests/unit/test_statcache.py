"""What is kept, and what makes it be forgotten."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autokmod.observe.statcache import StatCache

OLD = 1_000_000_000


def aged(path: Path) -> Path:
    """Modified long ago. Its ctime cannot be set: what is to be kept must have waited, or lie in another clock."""
    os.utime(path, (OLD, OLD))
    return path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Looked at three seconds after it was written."""
    path = tmp_path / "file"
    path.write_text("one")
    now = os.stat(path).st_ctime_ns + 3_000_000_000
    monkeypatch.setattr("autokmod.observe.statcache.time.time_ns", lambda: now)
    return aged(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("two!"),
        lambda file: os.utime(file, (OLD + 1, OLD + 1)),
        lambda file: (file.unlink(), file.write_text("one"), aged(file)),
        lambda file: file.unlink(),
        lambda file: (file.parent / "missing").write_text(""),
    ],
    ids=["another size", "another time", "another file", "gone", "one that was missing has come"],
)
def test_kept_until_something_changes(file: Path, change: Callable[[Path], object]) -> None:
    cache: StatCache[str, int] = StatCache(10)
    assert cache.get("key") is None
    assert cache.keep("key", 1, [str(file), str(file.parent / "missing")]) == 1
    assert cache.get("key") == cache.get("key") == 1
    change(file)
    assert cache.get("key") is None
    assert cache.get("key") is None


def test_what_has_just_changed_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    cache: StatCache[str, int] = StatCache(10)
    assert cache.keep("key", 1, [str(file)]) == 1
    assert cache.get("key") is None


def test_the_oldest_go_first(file: Path) -> None:
    cache: StatCache[int, int] = StatCache(2)
    for key in (1, 2):
        cache.keep(key, key, [str(file)])
    assert cache.get(1) == 1
    cache.keep(3, 3, [str(file)])
    assert [cache.get(key) for key in (1, 2, 3)] == [1, None, 3]
