"""What a recipe and the administrator's word on a package have in common: patches, defines and flags by condition.

Patches and flags reach every compiler of a build through make's own variables, in words that shells and make take as
they stand: so nothing that either would interpret may be in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from autokmod.conditions import Condition, Texts
from autokmod.tomltable import AtLeast

Strip = Annotated[int, AtLeast(0)]

_WORD = re.compile(r"[\w.+,:=/%@-]*", re.ASCII)
_MACRO = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_]\w*=[^\x00-\x1f\x7f]*", re.ASCII)
_RESERVED = ("KCFLAGS", "MAKEFLAGS", "M", "KERNELRELEASE")
PLAIN = "letters, digits and . _ + , : = / % @ - alone: make and shells take these as they stand"


@dataclass(frozen=True, slots=True)
class PatchPart:
    file: str  # or a shell pattern: then in order of name
    strip: Strip = 1
    dir: str = ""
    when: Condition | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from (("file", f"{self.file!a} {why}") for why in path_problems(self.file))
        yield from (("dir", f"{self.dir!a} {why}") for why in path_problems(self.dir, empty=True))


@dataclass(frozen=True, slots=True)
class DefinePart:
    name: str
    value: str | None = None
    when: Condition | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        if not _MACRO.fullmatch(self.name):
            yield "name", f"{self.name!a} is not the name of a macro, without '-D' and '='"
        if self.value is not None and not _WORD.fullmatch(self.value):
            yield "value", f"{self.value!a} has to be of {PLAIN}"

    @property
    def flag(self) -> str:
        return f"-D{self.name}" if self.value is None else f"-D{self.name}={self.value}"


@dataclass(frozen=True, slots=True)
class FlagsPart:
    cflags: Texts = ()  # to the compiler
    make: Texts = ()  # NAME=VALUE as on make's command line: they win over what Makefiles say
    when: Condition | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        if not self.cflags and not self.make:
            yield "cflags", "is missing, and make too: one of them is expected"
        for word in self.words:
            if not word.startswith("-") or not _WORD.fullmatch(word):
                yield "cflags", f"{word!a} is not an option of {PLAIN}"
        for text in self.make:
            name = text.partition("=")[0]
            if not _VARIABLE.fullmatch(text):
                yield "make", f"{text!a} is not NAME=VALUE"
            if name in _RESERVED:
                yield "make", f"{name} is autokmod's own" + ("; use cflags" if name == "KCFLAGS" else "")

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word for text in self.cflags for word in text.split())


def path_problems(path: str, *, empty: bool = False) -> Iterator[str]:
    """Of one that has to stay below its top."""
    if not path and not empty:
        yield "names no file"
    if path.startswith("/"):
        yield "begins with a slash: it is to be relative"
    if ".." in path.split("/"):
        yield "leaves its directory"
    if not path.isprintable():
        yield "holds what cannot be printed"
