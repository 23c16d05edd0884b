from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autokmod.act.records import remove_record, write_record
from autokmod.errors import FormatError
from autokmod.model import BuildError, DecisionKind, KernelRecord, PlacedFile, Placement, Reason
from autokmod.observe.records import read_record, record_from_json, record_to_json
from autokmod.paths import Paths

KREL = "6.1.0-55-cloud-amd64"
RECORD = KernelRecord(
    krel=KREL,
    updated_at=1700000000.25,
    placements=(
        Placement(
            package="v4l2loopback",
            version="0.12.7",
            kind=DecisionKind.LINK,
            reasons=(Reason("crc", "`a` changed", "a", 1, 2, "vmlinux", "do this"), Reason("more", "and so on")),
            key="k1",
            source_key="s1",
            link_from="6.1.0-53-cloud-amd64",
            symbols_compared=61,
            files=(PlacedFile("v4l", "weak-updates/autokmod/v4l2loopback/v.ko", "../../../x/v.ko", "ab" * 32, 9, 1),),
            verified=True,
            errors=(BuildError("a.c", 3, "error: no"),),
            failed=False,
            log="/var/lib/autokmod/builds/k1/build.log",
        ),
    ),
    initrd=Reason("initrd-refreshed", "the initrd was refreshed"),
    initrd_ok=True,
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def test_round_trip(paths: Paths) -> None:
    write_record(paths, RECORD)
    assert read_record(paths, KREL) == RECORD


def test_readable_by_everybody(paths: Paths) -> None:
    write_record(paths, RECORD)
    assert paths.record(KREL).stat().st_mode & 0o777 == 0o644


def test_none_recorded(paths: Paths) -> None:
    assert read_record(paths, KREL) is None


def test_removed_record_is_gone_and_may_be_removed_again(paths: Paths) -> None:
    write_record(paths, RECORD)
    remove_record(paths, KREL)
    remove_record(paths, KREL)
    assert read_record(paths, KREL) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ('{"format": 1, "krel"', "not JSON"),
        ("\0" * 100, "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "an object expected"),
        ("{}", "format None is not known, 1 expected"),
        ('{"format": 2}', "format 2 is not known, 1 expected"),
        ('{"format": true}', "format True is not known, 1 expected"),
        ('{"format": 1}', "missing"),
    ],
)
def test_damaged(paths: Paths, text: str, what: str) -> None:
    paths.kernels.mkdir(parents=True)
    paths.record(KREL).write_text(text)
    with pytest.raises(FormatError, match=what) as caught:
        read_record(paths, KREL)
    assert str(caught.value).startswith(f"{paths.record(KREL)}: ")


def test_truncated_anywhere_is_an_error(paths: Paths) -> None:
    write_record(paths, RECORD)
    whole = paths.record(KREL).read_bytes().rstrip()
    for length in range(0, len(whole), 37):
        paths.record(KREL).write_bytes(whole[:length])
        with pytest.raises(FormatError):
            read_record(paths, KREL)


def test_record_of_another_kernel(paths: Paths) -> None:
    write_record(paths, RECORD)
    paths.record(KREL).rename(paths.record("6.1.0-99"))
    with pytest.raises(FormatError, match=f"the record is of kernel '{KREL}'"):
        read_record(paths, "6.1.0-99")


def test_field_is_named() -> None:
    data: Any = json.loads(json.dumps(record_to_json(RECORD)))
    data["placements"][0]["files"][0]["size"] = "9"
    with pytest.raises(FormatError, match=r"placements\[0\].files\[0\].size: a whole number expected"):
        record_from_json(data, "p")
