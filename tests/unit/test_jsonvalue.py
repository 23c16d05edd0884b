from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autokmod.errors import FormatError
from autokmod.jsonvalue import from_json, to_json


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Leaf:
    name: str
    size: int
    weight: float = 1.0
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    colour: Colour
    ok: bool
    leaves: tuple[Leaf, ...] = ()
    crcs: Mapping[str, int] = field(default_factory=dict)
    extra: Any = None


TREE = Tree(Colour.RED, ok=True, leaves=(Leaf("a", 1, 2.5, "n"), Leaf("b", 2)), crcs={"x": 3}, extra=[1, {"y": None}])
AS_JSON: dict[str, Any] = {
    "colour": "red",
    "ok": True,
    "leaves": [
        {"name": "a", "size": 1, "weight": 2.5, "note": "n"},
        {"name": "b", "size": 2, "weight": 1.0, "note": None},
    ],
    "crcs": {"x": 3},
    "extra": [1, {"y": None}],
}


def test_to_json() -> None:
    assert to_json(TREE) == AS_JSON
    assert type(to_json(Colour.RED)) is str


def test_back_again() -> None:
    assert from_json(Tree, json.loads(json.dumps(AS_JSON)), "p") == TREE


def test_missing_key_takes_its_default() -> None:
    assert from_json(Leaf, {"name": "a", "size": 1}, "p") == Leaf("a", 1)


def test_whole_number_where_a_float_is_meant() -> None:
    weight = from_json(Leaf, {"name": "a", "size": 1, "weight": 2}, "p").weight
    assert (weight, type(weight)) == (2.0, float)


@pytest.mark.parametrize(
    ("cls", "data", "message"),
    [
        (Leaf, [], "p: an object expected"),
        (Leaf, {"name": "a"}, "p: size: missing"),
        (Leaf, {"name": "a", "size": 1, "colour": 1}, "p: colour: not known"),
        (Leaf, {"name": 1, "size": 1}, "p: name: a text expected"),
        (Leaf, {"name": "a", "size": True}, "p: size: a whole number expected"),
        (Leaf, {"name": "a", "size": 1.0}, "p: size: a whole number expected"),
        (Leaf, {"name": "a", "size": "1"}, "p: size: a whole number expected"),
        (Leaf, {"name": "a", "size": 1, "weight": False}, "p: weight: a number expected"),
        (Leaf, {"name": "a", "size": 1, "weight": float("nan")}, "p: weight: a number expected"),
        (Leaf, {"name": None, "size": 1}, "p: name: a text expected"),
        (Tree, {"colour": "green", "ok": True}, "p: colour: one of red, blue expected"),
        (Tree, {"colour": [], "ok": True}, "p: colour: one of red, blue expected"),
        (Tree, {"colour": "red", "ok": 1}, "p: ok: true or false expected"),
        (Leaf, {"name": "a", "size": 1, "weight": 10**400}, "p: weight: a number expected"),
        (Tree, AS_JSON | {"leaves": {}}, "p: leaves: a list expected"),
        (Tree, AS_JSON | {"leaves": [{"name": "a", "size": 1}, 7]}, "p: leaves[1]: an object expected"),
        (Tree, AS_JSON | {"leaves": [{"name": 1, "size": 1}]}, "p: leaves[0].name: a text expected"),
        (Tree, AS_JSON | {"crcs": []}, "p: crcs: an object expected"),
        (Tree, AS_JSON | {"crcs": {"x": "1"}}, "p: crcs.x: a whole number expected"),
    ],
)
def test_wrong_shape(cls: type, data: Any, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        from_json(cls, data, "p")
    assert str(caught.value) == message


def test_what_has_no_place_in_json() -> None:
    with pytest.raises(TypeError):
        to_json(object())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["colour", "ok", "extra", "leaves"]), inner),
)


@given(JSON)
def test_any_json_is_read_or_refused(data: Any) -> None:
    try:
        tree = from_json(Tree, data, "p")
    except FormatError:
        return
    assert from_json(Tree, to_json(tree), "p") == tree
