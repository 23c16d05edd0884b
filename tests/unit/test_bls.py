"""Boot loader entries: their fields, and the two orders. systemd's own order is asked of systemd-analyze."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autokmod.observe.bls import (
    LoaderEntry,
    compare_packages,
    compare_rpm,
    compare_versions,
    in_grub_order,
    in_systemd_order,
    parse_entry,
    parse_loader_conf,
    unified_entry,
)

ENTRY = """# made by kernel-install
title      Debian GNU/Linux 12
version    6.1.0-55-amd64
machine-id 5E8C77fd
sort-key   debian
options    root=UUID=1 ro
options    quiet
linux      /debian/6.1.0-55-amd64/linux
initrd     /debian/6.1.0-55-amd64/initrd
"""


def test_an_entry() -> None:
    entry = parse_entry(ENTRY, "Debian-6.1.0-55-amd64+3-1.conf")
    assert entry.image == "/debian/6.1.0-55-amd64/linux"
    assert (entry.version, entry.sort_key, entry.machine_id) == ("6.1.0-55-amd64", "debian", "5e8c77fd")
    assert (entry.tries_left, entry.tries_done) == (3, 1)
    assert entry.id == "debian-6.1.0-55-amd64+3-1.conf"
    assert entry.options == "root=UUID=1 ro quiet"


@pytest.mark.parametrize(
    ("file", "tries"),
    [
        ("a.conf", (None, 0)),
        ("a+0.conf", (0, 0)),
        ("a+0-3.conf", (0, 3)),
        ("a+2-1.efi", (2, 1)),
        ("a+2-1", (None, 0)),
        ("a+.conf", (None, 0)),
        ("a+2-x.conf", (None, 0)),
        ("a+2-1+b.conf", (None, 0)),
    ],
)
def test_counters(file: str, tries: tuple[int | None, int]) -> None:
    entry = parse_entry("linux /x\n", file)
    assert (entry.tries_left, entry.tries_done) == tries


def test_grub_stops_where_systemd_goes_on() -> None:
    text = "title A\nbroken\nlinux /vmlinuz-1\n"
    assert parse_entry(text, "a.conf").image == "/vmlinuz-1"
    assert parse_entry(text, "a.conf", stops=True).image == ""


def test_a_unified_image() -> None:
    release = 'ID=fedora\nVERSION_ID="41"\nPRETTY_NAME="Fedora"\nBROKEN\n#ID=x\n'
    entry = unified_entry("f-6.11.4.efi", release, "6.11.4\n")
    assert (entry.sort_key, entry.version, entry.release, entry.title) == ("fedora", "41", "6.11.4", "Fedora")


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("", ""),
        ("timeout 3\n", ""),
        ("default debian-*\n", "debian-*"),
        ("#default x\ndefault\ta.conf \n", "a.conf"),
        ("default a\ndefault b\n", "b"),
        ("defaultx a\n", ""),
    ],
)
def test_loader_conf(text: str, default: str) -> None:
    assert parse_loader_conf(text) == default


# ---- versions ----

VERSIONS = (
    "6.1.0-55", "6.1.0-56", "6.1.0-100", "6.10", "6.9", "6.1", "6.1~rc1", "6.1-rc1", "6.1^git", "6.1.0", "123a",
    "123.a", "1", "01", "a", "b", "1_2", "1.2", "5.11.0-0.rc5.20210128git76c057c84d28.137.fc34", "5.11.0", "~", "A",
)  # fmt: skip


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_as_systemd_compares() -> None:
    script = "\n".join(
        f"systemd-analyze compare-versions -- '{a}' '{b}'; echo $?" for a, b in itertools.combinations(VERSIONS, 2)
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    said = [int(line) for line in done.stdout.splitlines() if line.isdigit()]
    orders = {0: 0, 11: 1, 12: -1}
    ours = [compare_versions(a, b) for a, b in itertools.combinations(VERSIONS, 2)]
    assert ours == [orders[code] for code in said]


@given(st.text("0123456789ab.~^-+_", max_size=12), st.text("0123456789ab.~^-+_", max_size=12))
def test_orders_are_orders(a: str, b: str) -> None:
    for compare in (compare_versions, compare_rpm, compare_packages):
        assert compare(a, b) == -compare(b, a)
        assert compare(a, a) == 0


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("id-5.14.0-362.el9.x86_64", "id-5.14.0-427.el9.x86_64"),
        ("id-5.14.0-99.el9", "id-5.14.0-100.el9"),
        ("id-6.9.9-1", "id-6.10.0-1"),
        ("a-6.9.9-1", "b-6.1.0-1"),
        ("id-0-rescue", "id-5.14.0-362.el9"),
        ("id-6.1~rc1-1", "id-6.1-1"),
        ("id-6.1-1", "id-6.1+b-1"),
        ("id-6.1+b-1", "id-6.1.1-1"),
    ],
)
def test_as_blscfg_compares(older: str, newer: str) -> None:
    assert compare_packages(older, newer) < 0


def entry(file: str, **fields: object) -> LoaderEntry:
    return replace(parse_entry("linux /x\n", file), **fields)  # type: ignore[arg-type]


def files(entries: tuple[LoaderEntry, ...]) -> list[str]:
    return [e.file for e in entries]


def test_grub_order() -> None:
    made = [entry("m-5.14.0-362.conf"), entry("m-0-rescue.conf"), entry("m-5.14.0-427.conf")]
    assert files(in_grub_order(made)) == ["m-5.14.0-427.conf", "m-5.14.0-362.conf", "m-0-rescue.conf"]


def test_systemd_order() -> None:
    made = [
        entry("old-6.1.conf"),
        entry("old-6.9.conf"),
        entry("z.conf", sort_key="debian", version="6.1.0-55"),
        entry("a.conf", sort_key="debian", version="6.1.0-56"),
        entry("spent+0-3.conf", sort_key="debian", version="6.1.0-57"),
        entry("arch.conf", sort_key="arch", version="1"),
        entry("other.conf", sort_key="debian", machine_id="f", version="9"),
        entry("tried+1-2.conf", sort_key="debian", version="6.1.0-54"),
        entry("tried+2-1.conf", sort_key="debian", version="6.1.0-54"),
    ]
    assert files(in_systemd_order(made)) == [
        "arch.conf", "a.conf", "z.conf", "tried+2-1.conf", "tried+1-2.conf", "other.conf", "old-6.9.conf",
        "old-6.1.conf", "spent+0-3.conf",
    ]  # fmt: skip


@given(st.text(max_size=200), st.text(max_size=30))
def test_damage_is_no_exception(text: str, file: str) -> None:
    parse_entry(text, file)
    parse_entry(text, file, stops=True)
    unified_entry(file, text, text)
    parse_loader_conf(text)
