"""Boot loader entries, as the UAPI group's boot loader specification has them: parsed, and in the order of the two
programs that read them.

systemd-boot (src/boot/efi/boot.c, since 250) goes by what the entries say: those without tries left come last, those
with a sort-key first and in its order, then machine-id, then the version, newest first. GRUB's blscfg goes by the file
name alone, taken apart like that of an rpm package, newest first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cmp_to_key

COUNTER = re.compile(r"\+(\d{1,9})(?:-(\d{1,9}))?(?=\.(?:conf|efi)$)", re.IGNORECASE)
VERSION_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789~-^.")
SEPARATORS = "-^."  # each older than the next, all older than nothing between two parts
RPM_PART = re.compile(r"\d+|[A-Za-z]+|[~+]", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoaderEntry:
    """One file below loader/entries, or one unified kernel image below EFI/Linux."""

    file: str  # name, with its suffix and its counters
    title: str = ""
    version: str = ""
    sort_key: str = ""
    machine_id: str = ""
    image: str = ""  # the `linux` line, or the `efi` line where there is none
    release: str = ""  # of a unified image: its .uname
    tries_left: int | None = None
    tries_done: int = 0
    options: str = ""
    keys: frozenset[str] = field(default_factory=frozenset)

    @property
    def id(self) -> str:
        """systemd-boot's: counters and all, in small letters."""
        return self.file.lower()

    @property
    def grub_id(self) -> str:
        return self.file.removesuffix(".conf")


# ---- parsing -------------------------------------------------------------------------------------


def parse_entry(text: str, file: str, *, stops: bool = False) -> LoaderEntry:
    """`stops`: as blscfg reads it, to the first line that is no key and value; systemd-boot passes over such lines."""
    fields: dict[str, list[str]] = {}
    for line in map(str.strip, text.splitlines()):
        key, *rest = line.split(None, 1)[:2] or [""]
        if key.startswith("#"):
            continue
        if not rest:
            if stops:
                break
            continue
        fields.setdefault(key, []).append(rest[0])
    return _with_tries(_entry(file, fields))


def _entry(file: str, fields: dict[str, list[str]]) -> LoaderEntry:
    last = {key: values[-1] for key, values in fields.items()}
    return LoaderEntry(
        file=file,
        title=last.get("title", ""),
        version=last.get("version", ""),
        sort_key=last.get("sort-key", ""),
        machine_id=last.get("machine-id", "").lower(),
        image=last.get("linux") or last.get("efi") or last.get("uki") or "",
        options=" ".join(fields.get("options", [])),
        keys=frozenset(fields),
    )


def _with_tries(entry: LoaderEntry) -> LoaderEntry:
    found = COUNTER.search(entry.file)
    if found is None:
        return entry
    return replace(entry, tries_left=int(found[1]), tries_done=int(found[2] or 0))


def unified_entry(file: str, os_release: str, uname: str) -> LoaderEntry:
    """Of the text in a unified image's .osrel and .uname sections."""
    values = dict(_assignments(os_release))
    return _with_tries(
        LoaderEntry(
            file=file,
            title=values.get("PRETTY_NAME", ""),
            version=values.get("IMAGE_VERSION") or values.get("VERSION") or values.get("VERSION_ID", ""),
            sort_key=values.get("IMAGE_ID") or values.get("ID", ""),
            image=f"/EFI/Linux/{file}",
            release=uname.strip(),
            keys=frozenset({"uki"}),
        )
    )


def _assignments(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            yield key, value.strip("\"'")


def parse_loader_conf(text: str, key: str = "default") -> str:
    """What the last line of that key says; "" where there is none."""
    pairs = [line.split(None, 1) for line in text.splitlines()]
    return next((p[1].strip() for p in reversed(pairs) if len(p) == 2 and p[0] == key), "")


# ---- order ---------------------------------------------------------------------------------------


def in_systemd_order(entries: Iterable[LoaderEntry]) -> tuple[LoaderEntry, ...]:
    return tuple(sorted(entries, key=cmp_to_key(_compare)))


def _compare(a: LoaderEntry, b: LoaderEntry) -> int:
    order = _cmp(a.tries_left == 0, b.tries_left == 0) or _cmp(not a.sort_key, not b.sort_key)
    if not order and a.sort_key:
        order = _cmp(a.sort_key, b.sort_key) or _cmp(a.machine_id, b.machine_id)
        order = order or -compare_versions(a.version, b.version)
    order = order or -compare_versions(a.id, b.id)
    if order or a.tries_left is None or b.tries_left is None:
        return order
    return -_cmp(a.tries_left, b.tries_left) or _cmp(a.tries_done, b.tries_done)


def _cmp(a: str | int, b: str | int) -> int:
    """Both of one type."""
    return (a > b) - (a < b)  # type: ignore[operator]


def compare_versions(a: str, b: str) -> int:
    """The UAPI group's version format: < 0 where `a` is older."""
    if not a or not b:
        return _cmp(a, b)
    while True:
        a, b = _skip_invalid(a), _skip_invalid(b)
        if "~" in (a[:1], b[:1]):
            if (order := -_cmp(a[:1] == "~", b[:1] == "~")) != 0:
                return order
            a, b = a[1:], b[1:]
            continue
        if not a or not b:
            return _cmp(bool(a), bool(b))
        for separator in SEPARATORS:
            if separator in (a[0], b[0]):
                if (order := -_cmp(a[0] == separator, b[0] == separator)) != 0:
                    return order
                a, b = a[1:], b[1:]
                break
        else:
            order, a, b = _compare_part(a, b)
            if order:
                return order


def _skip_invalid(text: str) -> str:
    return text[next((i for i, c in enumerate(text) if c in VERSION_CHARS), len(text)) :]


def _compare_part(a: str, b: str) -> tuple[int, str, str]:
    """The order of two leading numbers or words, and what follows them."""
    numeric = a[0].isdecimal() or b[0].isdecimal()
    one, two = _leading(a, numeric=numeric), _leading(b, numeric=numeric)
    rest = a[len(one) :], b[len(two) :]
    if not numeric:
        return _cmp(one, two), *rest
    if not one or not two:
        return _cmp(bool(one), bool(two)), *rest
    return _compare_numbers(one, two), *rest


def _leading(text: str, *, numeric: bool) -> str:
    found = re.match(r"[0-9]*" if numeric else r"[A-Za-z]*", text)
    return found[0] if found else ""


def _compare_numbers(one: str, two: str) -> int:
    """Of any length: int() refuses some thousand digits."""
    one, two = one.lstrip("0"), two.lstrip("0")
    return _cmp(len(one), len(two)) or _cmp(one, two)


# ---- GRUB ----------------------------------------------------------------------------------------


def in_grub_order(entries: Iterable[LoaderEntry]) -> tuple[LoaderEntry, ...]:
    """As blscfg puts them into the menu. One of two that are equal to it is left out, which one is chance."""
    return tuple(sorted(entries, key=cmp_to_key(_compare_files)))


def _compare_files(a: LoaderEntry, b: LoaderEntry) -> int:
    return -compare_packages(a.grub_id, b.grub_id)


def compare_packages(a: str, b: str) -> int:
    """NAME-VERSION-RELEASE, by rpm's order of each."""
    orders = (compare_rpm(x, y) for x, y in zip(_split_package(a), _split_package(b), strict=True))
    return next((order for order in orders if order), 0)


def _split_package(text: str) -> tuple[str, str, str]:
    """Without a dash all of it is the name; with one, what follows that is the version."""
    rest, dash, release = text.rpartition("-")
    if not dash:
        return text, "", ""
    name, dash, version = rest.rpartition("-")
    return (name, version, release) if dash else (rest, release, "")


def compare_rpm(a: str, b: str) -> int:
    """As blscfg has it: a + is older than another part, but newer than the end."""
    if a == b:
        return 0
    one, two = RPM_PART.findall(a), RPM_PART.findall(b)
    for x, y in zip(one, two, strict=False):
        order = _compare_rpm_part(x, y)
        if order:
            return order
    longer = one[len(two) :] or two[len(one) :]
    sign = 1 if len(one) > len(two) else -1
    return 0 if not longer else -sign if longer[0] == "~" else sign


def _compare_rpm_part(x: str, y: str) -> int:
    for mark in "~+":
        if mark in (x, y):
            return -_cmp(x == mark, y == mark)
    if x.isdecimal() != y.isdecimal():
        return 1 if x.isdecimal() else -1
    return _compare_numbers(x, y) if x.isdecimal() else _cmp(x, y)
