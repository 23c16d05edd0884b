"""An older version where the newest does not build: when it is used, when not, and that it is always said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autokmod.config import Config
from autokmod.decide.facts import Facts
from autokmod.decide.older import relevant_versions
from autokmod.decide.plan import decide_kernel
from autokmod.decide.readiness import decide_readiness
from autokmod.model import (
    Build,
    Decision,
    DecisionKind,
    KernelRecord,
    KernelState,
    PlacedFile,
    Placement,
    Readiness,
    Reason,
)
from autokmod.observe.sight import Sight, Source
from tests.unit.test_plan import FACTS, K1, K2, PACKAGE, RECIPE, abi, build, config, kernel, module

OLD, MID, NEW = PACKAGE, replace(PACKAGE, version="1.5"), replace(PACKAGE, version="2.0")
ALL = (MID, NEW, OLD)
ERROR = "drv.c:7: error: unknown type name 'foo'"


def failed(version: str, key: str, *, transient: bool = False, krel: str = K2) -> Build:
    return replace(build(key, krel, ok=False, transient=transient), version=version, source_key=f"source-{version}")


def good(version: str, key: str, krel: str) -> Build:
    return replace(build(key, krel), version=version, source_key=f"source-{version}")


BOTH = replace(
    FACTS,
    packages=(NEW, OLD),
    recipes={p.id: replace(RECIPE, version=p.version) for p in ALL},
    source_keys={p.id: f"source-{p.version}" for p in ALL},
    keys={p.id: f"key-{p.version}" for p in ALL},
    builds=(failed("2.0", "key-2.0"),),
)
LINKABLE = replace(
    BOTH,
    builds=(*BOTH.builds, good("1.0", "old1", K1)),
    contents={"old1": (module(),)},
    owners={"old1": (K1,)},
)


def only(facts: Facts) -> Decision:
    (decision,) = decide_kernel(facts)
    return decision


@pytest.mark.parametrize(
    ("facts", "version", "kind", "stored", "reasons"),
    [
        pytest.param(BOTH, "1.0", "build", False, ["older-version", "no-build"], id="the older is compiled"),
        pytest.param(LINKABLE, "1.0", "link", True, ["older-version", "compatible-build"], id="the older is linked to"),
        pytest.param(
            replace(BOTH, keys={**BOTH.keys, NEW.id: "other"}), "2.0", "build", False, ["no-build"], id="other key"
        ),
        pytest.param(replace(LINKABLE, force=True), "2.0", "build", False, ["source-changed"], id="a person asked"),
        pytest.param(
            replace(LINKABLE, force=True, tried={"key-2.0": None}),
            "1.0",
            "link",
            True,
            ["older-version", "compatible-build"],
            id="a person asked, and it failed again",
        ),
        pytest.param(
            replace(LINKABLE, builds=(*LINKABLE.builds, good("2.0", "new1", K1)), contents={
                "old1": (module(),), "new1": (module(),)}, owners={"new1": (K1,), "old1": (K1,)}),
            "2.0", "link", True, ["compatible-build"], id="of the newest, another kernel's build fits",
        ),
        pytest.param(
            replace(BOTH, builds=(failed("2.0", "key-2.0", transient=True),), tried={"key-2.0": None}),
            "2.0", "build", True, ["build-interrupted"], id="what passes by itself is waited for",
        ),
        pytest.param(
            replace(BOTH, builds=(failed("2.0", "key-2.0"), failed("1.0", "key-1.0"))),
            "2.0", "build", True, ["build-failed", "build-failed-older"], id="the older does not build either",
        ),
        pytest.param(
            replace(BOTH, packages=ALL, builds=(failed("2.0", "key-2.0"), failed("1.5", "key-1.5"))),
            "1.0", "build", False, ["older-version", "no-build"], id="the third does",
        ),
        pytest.param(
            replace(BOTH, recipes={**BOTH.recipes, OLD.id: replace(RECIPE, excluded=Reason("build-exclusive", "x"))}),
            "2.0", "build", True, ["build-failed"], id="the older is not for this kernel",
        ),
        pytest.param(replace(BOTH, packages=(NEW,)), "2.0", "build", True, ["build-failed"], id="there is no older"),
        pytest.param(
            replace(BOTH, kernel=replace(kernel(), changed_at=1.5)),
            "2.0", "build", False, ["no-build"], id="the kernel changed since it failed",
        ),
        pytest.param(
            replace(BOTH, config=config(enabled=False)), "2.0", "skip", False, ["disabled"], id="disabled altogether"
        ),
    ],
)  # fmt: skip
def test_which_version(facts: Facts, version: str, kind: str, stored: bool, reasons: list[str]) -> None:
    found = only(facts)
    assert (found.version, found.kind, found.stored) == (version, kind, stored)
    assert [r.kind for r in found.reasons] == reasons
    assert bool(found.instead_of) == (reasons[0] == "older-version")


def test_what_is_said_first() -> None:
    found = only(LINKABLE)
    assert found.reasons[0].text == f"1.0 is used: 2.0 does not build: {ERROR}"
    assert "/builds/key-2.0/build.log" in str(found.reasons[0].hint)
    assert found.instead_of == ("2.0",)


def test_all_that_were_given_up_are_named() -> None:
    found = only(replace(BOTH, packages=ALL, builds=(failed("2.0", "key-2.0"), failed("1.5", "key-1.5"))))
    assert found.reasons[0].text == f"1.0 is used: 2.0 does not build: {ERROR}; nor does 1.5"
    assert found.instead_of == ("2.0", "1.5")


def test_neither_builds() -> None:
    found = only(replace(BOTH, builds=(failed("2.0", "key-2.0"), failed("1.0", "key-1.0"))))
    assert [r.text for r in found.reasons] == [
        f"the build failed: {ERROR}",
        f"1.0 cannot be used instead: the build failed: {ERROR}",
    ]
    assert found.key == "key-2.0"


def test_a_package_that_needs_it_takes_the_older() -> None:
    """It is compiled against what is really there."""
    user = replace(PACKAGE, name="user")
    facts = replace(
        LINKABLE,
        packages=(NEW, OLD, user),
        recipes={**LINKABLE.recipes, user.id: replace(RECIPE, name="user", build_depends=("drv",))},
        keys={**LINKABLE.keys, user.id: "key-user"},
    )
    assert {d.package: (d.version, d.kind) for d in decide_kernel(facts)} == {
        "drv": ("1.0", "link"),
        "user": ("1.0", "build"),
    }


@pytest.mark.parametrize(
    ("builds", "versions"),
    [
        ((), ["2.0"]),
        ((failed("2.0", "x"),), ["2.0", "1.5"]),
        ((failed("2.0", "x"), failed("1.5", "y")), ["2.0", "1.5", "1.0"]),
        ((failed("2.0", "x", krel=K1),), ["2.0"]),
        ((failed("2.0", "x", transient=True),), ["2.0"]),
        ((failed("1.5", "x"),), ["2.0"]),
    ],
)
def test_older_recipes_are_read_only_where_needed(builds: tuple[Build, ...], versions: list[str]) -> None:
    assert [p.version for p in relevant_versions(ALL, builds, K2)] == versions


# ---- afterwards ----------------------------------------------------------------------------------

FILES = (PlacedFile("drv", "updates/autokmod/drv/drv.ko", None, "0" * 64, 1, 1),)
USED = Reason("older-version", f"1.0 is used: 2.0 does not build: {ERROR}")
PLACED = Placement(
    "drv", "1.0", DecisionKind.BUILD, (USED,), "k", "s", None, 2, FILES, verified=True, instead_of=("2.0",)
)
RECORD = KernelRecord(K2, 1.0, (PLACED,))


def test_without_headers_it_stays_and_says_so() -> None:
    bare = replace(
        BOTH,
        kernel=kernel(KernelState.NO_HEADERS),
        abi=abi({}),
        keys={},
        recipes={},
        record=RECORD,
        intact=frozenset({"drv"}),
    )
    found = only(bare)
    assert (found.kind, found.version, found.instead_of) == ("keep", "1.0", ("2.0",))
    assert [r.kind for r in found.reasons] == ["older-version", "in-place"]
    newer = replace(bare, packages=(*bare.packages, replace(PACKAGE, version="3.0")))
    assert only(newer).kind == "wait"


@pytest.mark.parametrize(("newest", "readiness"), [("2.0", Readiness.READY), ("3.0", Readiness.DEGRADED)])
def test_a_kernel_with_the_older_is_ready(newest: str, readiness: Readiness) -> None:
    sight = Sight(kernel(), RECORD, (Source("drv", "1.0"), Source("drv", newest)))
    assert decide_readiness(sight, Config(), ()).readiness is readiness
