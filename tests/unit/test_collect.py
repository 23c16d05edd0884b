"""Which stored builds may go: never one that something uses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autokmod.config import StoreConfig
from autokmod.decide.collect import Damaged, Entry, Use, decide_collection, decide_damaged, find_needed
from autokmod.model import Build

HERE, OTHER, GONE = "6.1.0-1", "6.1.0-2", "6.0.0-9"
NOW = 1e6
CONFIG = StoreConfig(min_age_s=100.0)
USE = Use(frozenset(), frozenset(), frozenset({HERE, OTHER}))


def build(
    key: str, krel: str = HERE, at: float = 1.0, *, ok: bool = True, package: str = "foo", **more: object
) -> Build:
    made = Build(key, "s", package, "1.0", krel, ok, False, (), (), at, 1.0, "")
    return replace(made, **more)  # type: ignore[arg-type]


def removed(
    *builds: Build, use: Use = USE, config: StoreConfig = CONFIG, bound: int | None = None, size: int = 10
) -> list[str]:
    return [r.name for r in decide_collection([Entry(b, size) for b in builds], use, config, NOW, bound)]


# Each: what is in the store, what uses it, what goes.
CASES: dict[str, tuple[tuple[Build, ...], Use, list[str]]] = {
    "the only build of a kernel that is here": ((build("a"),), USE, []),
    "of a kernel that is gone": ((build("a", GONE),), USE, ["a"]),
    "that kernel's build is linked to, or was promoted": (
        (build("a", GONE),),
        replace(USE, keys=frozenset({"a"})),
        [],
    ),
    "an older build of the same package and kernel": ((build("a", at=1), build("b", at=2)), USE, ["a"]),
    "the older one is what is placed": (
        (build("a", at=1), build("b", at=2)),
        replace(USE, keys=frozenset({"a"})),
        [],
    ),
    "each kernel has its own": ((build("a"), build("b", OTHER)), USE, []),
    "each package has its own": ((build("a"), build("b", package="bar")), USE, []),
    "a newer failure replaces no build": ((build("a", at=1), build("b", at=2, ok=False)), USE, []),
    "an older failure of the same version": ((build("a", at=1, ok=False), build("b", at=2, ok=False)), USE, ["a"]),
    "failures of two versions": ((build("a", ok=False), build("b", ok=False, version="2.0")), USE, []),
    "an interrupted one": ((build("a", ok=False, transient=True),), USE, ["a"]),
    "a failure for a kernel that is gone": ((build("a", GONE, ok=False),), USE, ["a"]),
    "files stand in a kernel of which nothing is recorded": (
        (build("a", GONE), build("b", at=0), build("c")),
        replace(USE, packages=frozenset({"foo"})),
        [],
    ),
    "young": ((build("a", GONE, at=NOW - 99),), USE, []),
    "just not young": ((build("a", GONE, at=NOW - 100),), USE, ["a"]),
    "from the future": ((build("a", GONE, at=NOW + 50),), USE, ["a"]),
    "those of kernels that are gone come first, then the oldest": (
        (build("a", at=1), build("b", at=2), build("c", at=3), build("d", GONE, at=4)),
        USE,
        ["d", "a", "b"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_goes(name: str) -> None:
    builds, use, expected = CASES[name]
    assert removed(*builds, use=use) == expected


def test_failures_that_are_not_to_be_remembered() -> None:
    config = replace(CONFIG, keep_failed=False)
    assert removed(build("a", ok=False), build("b"), config=config) == ["a"]
    assert removed(build("a", ok=False), use=replace(USE, keys=frozenset({"a"})), config=config) == []


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        pytest.param(1000, [], id="it holds"),
        pytest.param(400, [], id="just"),
        pytest.param(399, ["a"], id="one too much: below the bound again, with some slack"),
        pytest.param(310, ["a", "b"], id="slack takes another one"),
        pytest.param(0, ["a", "b", "c"], id="the last one is in use"),
    ],
)
def test_the_bound(bound: int, expected: list[str]) -> None:
    gone = [build(key, GONE, at=i) for i, key in enumerate("abc")]
    assert removed(*gone, build("d"), bound=bound, size=100) == expected


def test_every_removal_says_why() -> None:
    builds = (build("a", GONE), build("b", at=0), build("c"), build("d", ok=False, transient=True))
    entries = [Entry(b, 10) for b in (*builds, build("e", ok=False))]
    found = decide_collection(entries, USE, replace(CONFIG, keep_failed=False), NOW, None)
    assert {r.name: r.reason.kind for r in found} == {
        "a": "kernel-gone",
        "b": "replaced",
        "d": "interrupted",
        "e": "failed",
    }
    assert all(r.size == 10 and r.package == "foo" and r.krel for r in found)


def test_what_is_damaged_goes_when_a_person_had_time_to_look() -> None:
    damaged = [Damaged("old.damaged", 5, NOW - 100, "why"), Damaged("young.damaged", 5, NOW - 99, "why")]
    assert [(r.name, r.size, r.reason.text) for r in decide_damaged(damaged, CONFIG, NOW)] == [
        ("old.damaged", 5, "why")
    ]


KEYS = st.sampled_from([f"{i:x}" for i in range(16)])
KRELS = st.sampled_from([HERE, OTHER, GONE])
BUILDS = st.builds(
    lambda key, krel, at, ok, transient, package: build(
        key, krel, at, ok=ok, transient=transient and not ok, package=package
    ),
    *(KEYS, KRELS, st.floats(0, 2 * NOW), st.booleans(), st.booleans(), st.sampled_from(["foo", "bar", "baz"])),
)
STORES = st.lists(st.builds(Entry, BUILDS, st.integers(0, 1000)), unique_by=lambda e: e.build.key)
USES = st.builds(Use, st.frozensets(KEYS), st.frozensets(st.sampled_from(["foo", "bar"])), st.frozensets(KRELS))
CONFIGS = st.builds(StoreConfig, st.just(1), st.booleans(), st.floats(0, NOW))


@given(STORES, USES, CONFIGS, st.none() | st.integers(0, 8000))
def test_nothing_that_is_used_is_ever_collected(
    entries: list[Entry], use: Use, config: StoreConfig, bound: int | None
) -> None:
    gone = {r.name for r in decide_collection(entries, use, config, NOW, bound)}
    left = [e for e in entries if e.build.key not in gone]
    for build in (e.build for e in entries if e.build.key in gone):
        assert build.key not in use.keys
        assert build.package not in use.packages
        assert not 0 <= NOW - build.built_at < config.min_age_s
        if build.krel in use.krels and build.ok:
            alike = [
                e.build
                for e in left
                if (e.build.package, e.build.krel, e.build.ok) == (build.package, build.krel, True)
            ]
            assert any(other.built_at >= build.built_at for other in alike), "the newest stays"
    total = sum(e.size for e in entries)
    if bound is not None and total <= bound:
        assert not gone
    assert find_needed(left, use, config) == find_needed(entries, use, config), "what is needed is there as before"


@given(STORES, USES, CONFIGS)
def test_a_second_time_nothing_is_left_to_do(entries: list[Entry], use: Use, config: StoreConfig) -> None:
    gone = {r.name for r in decide_collection(entries, use, config, NOW, None)}
    left = [e for e in entries if e.build.key not in gone]
    assert decide_collection(left, use, config, NOW, None) == ()


@given(STORES, USES, CONFIGS, st.integers(0, 8000))
def test_the_bound_holds_unless_all_the_rest_is_needed(
    entries: list[Entry], use: Use, config: StoreConfig, bound: int
) -> None:
    gone = {r.name for r in decide_collection(entries, use, config, NOW, bound)}
    spare = {r.name for r in decide_collection(entries, use, config, NOW, None)}
    assert gone <= spare
    left = sum(e.size for e in entries if e.build.key not in gone)
    assert left <= bound or gone == spare
