"""Which modules belong in an initrd, and what is wrong with those that are in it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from autokmod.decide.image import Claims, Standing, belonging, judge_image, left_over

STANDING = {"drv": Standing("updates/autokmod/p/drv.ko.xz", "d1"), "lib": Standing("updates/autokmod/p/lib.ko", "d2")}
INDEX = b"updates/autokmod/p/drv.ko: updates/autokmod/p/lib.ko\nupdates/autokmod/p/lib.ko:\nkernel/drv.ko:\n"
OURS, TWIN = "updates/autokmod/p/drv.ko", "kernel/drv.ko"


def names(*them: str) -> frozenset[str]:
    return frozenset(them)


BELONGING: list[tuple[str, Claims, Iterable[str]]] = [
    ("nobody claims it", Claims(carried=names("ext4")), ()),
    ("it is carried", Claims(carried=names("drv", "ext4")), ("drv",)),
    ("named", Claims(named=names("lib")), ("lib",)),
    ("declared", Claims(declared=names("drv")), ("drv",)),
    ("needed by one of ours", Claims(declared=names("drv"), needs={"drv": names("lib")}), ("drv", "lib")),
    ("needed by the kernel's own", Claims(carried=names("ext4"), needs={"ext4": names("lib")}), ("lib",)),
    ("needed by what nobody claims", Claims(needs={"drv": names("lib")}), ()),
]


@pytest.mark.parametrize(("_name", "claims", "wanted"), BELONGING, ids=[b[0] for b in BELONGING])
def test_belonging(_name: str, claims: Claims, wanted: Iterable[str]) -> None:
    assert sorted(belonging(STANDING, claims)) == sorted(wanted)


JUDGED: list[tuple[str, dict[str, tuple[str, ...]], dict[str, str], bytes, tuple[str, ...], str | None]] = [
    ("right", {"drv": (OURS,)}, {OURS: "d1"}, INDEX, (), None),
    ("not there", {}, {}, INDEX, (), "initrd-lacks"),
    ("another", {"drv": (OURS,)}, {OURS: "old"}, INDEX, (), "initrd-stale"),
    ("unreadable", {"drv": (OURS,)}, {OURS: ""}, INDEX, (), "initrd-stale"),
    ("not in the index", {"drv": (OURS,)}, {OURS: "d1"}, b"", (), "initrd-unlisted"),
    (
        "the twin is taken",
        {"drv": (OURS, TWIN)},
        {OURS: "d1", TWIN: "in-tree"},
        b"kernel/drv.ko:\n",
        (),
        "initrd-stale",
    ),
    ("the twin lies idle", {"drv": (OURS, TWIN)}, {OURS: "d1", TWIN: "in-tree"}, OURS.encode(), (), None),
    ("hidden", {}, {}, b"", ("squashfs-root.img",), "initrd-opaque"),
]


@pytest.mark.parametrize(
    ("_name", "carried", "digests", "index", "opaque", "wanted"), JUDGED, ids=[j[0] for j in JUDGED]
)
def test_judged(
    _name: str,
    carried: dict[str, tuple[str, ...]],
    digests: dict[str, str],
    index: bytes,
    opaque: tuple[str, ...],
    wanted: str | None,
) -> None:
    found = judge_image({"drv": STANDING["drv"]}, carried, digests, index, opaque)
    assert [r.kind for r in found.values()] == ([wanted] if wanted else [])


def test_what_went_is_left_over() -> None:
    assert left_over(names("drv", "gone"), STANDING).keys() == {"gone"}
    assert not left_over(names("drv"), STANDING)
