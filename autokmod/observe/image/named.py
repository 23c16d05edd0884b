"""Modules that the generators' configuration names: they belong in the image, whether it carries them yet or not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from autokmod.observe.modtree import module_name
from autokmod.paths import Paths

LIMIT = 1 << 20  # bytes of one file
# One name a line, and options behind it; `#` begins a comment.
LISTS = ("etc/initramfs-tools/modules", "usr/share/initramfs-tools/modules", "usr/share/initramfs-tools/modules.d/*")
# KEY+="a b", KEY=(a b), over several lines where quotes or brackets are; key: a,b
_VALUE = r"""(\([^)]*\)|"[^"]*"|'[^']*'|.*)"""
_DRACUT, _MKINITCPIO = r"^\s*(?:add_drivers|force_drivers|drivers)\+?=" + _VALUE, r"^\s*MODULES\+?=" + _VALUE
ASSIGNMENTS = (
    ("etc/dracut.conf", _DRACUT),
    ("etc/dracut.conf.d/*.conf", _DRACUT),
    ("usr/lib/dracut/dracut.conf.d/*.conf", _DRACUT),
    ("etc/mkinitcpio.conf", _MKINITCPIO),
    ("etc/mkinitcpio.conf.d/*.conf", _MKINITCPIO),
    ("etc/booster.yaml", r"^\s*(?:modules|modules_force_load):(.*)"),
)
_COMMENT = re.compile(r"#.*")
_WORD = re.compile(r"[A-Za-z0-9_-]+")


def read_named(paths: Paths) -> frozenset[str]:
    """Kernel names, and other words that are none of ours."""
    return frozenset([*_listed(paths), *_assigned(paths)])


def _listed(paths: Paths) -> Iterator[str]:
    for pattern in LISTS:
        for text in _texts(paths, pattern):
            lines = (line.partition("#")[0].split() for line in text.splitlines())
            yield from (module_name(words[0]) for words in lines if words)


def _assigned(paths: Paths) -> Iterator[str]:
    for pattern, assignment in ASSIGNMENTS:
        for text in _texts(paths, pattern):
            for value in re.findall(assignment, text, re.MULTILINE):
                yield from (module_name(word) for word in _WORD.findall(_COMMENT.sub("", value)))


def _texts(paths: Paths, pattern: str) -> Iterator[str]:
    top = Path(pattern)
    for file in sorted(paths.at(str(top.parent)).glob(top.name)):
        try:
            with open(file, "rb") as f:
                yield f.read(LIMIT).decode("utf-8", "replace")
        except OSError:  # unreadable for the generator too
            continue
