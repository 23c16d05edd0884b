"""Which modules a tree's Makefiles make, as far as that is written down plainly.

What only make could tell (a variable from elsewhere, a condition on anything but KERNELRELEASE, a file that is
included) is refused, with its place: a guess would be found out at the next kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.files import open_regular

FILES = ("Kbuild", "Makefile")  # kbuild looks for them in this order
MAX_DEPTH = 20
SIZE_LIMIT = 1 << 20
_ASSIGNMENT = re.compile(r"(?:(?:override|export)\s+)*([\w.$()-]+)\s*(\+|:{1,3}|\?)?=\s*(.*)")
_REFERENCE = re.compile(r"\$[({]([\w.-]+)[)}]")
_CONDITION = re.compile(r"(ifn?eq|ifn?def)\b\s*(.*)")
_OBJECTS = re.compile(r"obj-(m|y|\$[({](\w+)[)}])")
_IS_EMPTY = re.compile(r"""\(\s*\$[({]KERNELRELEASE[)}]\s*,\s*\)|["']\$[({]KERNELRELEASE[)}]["']\s+["']["']""")


@dataclass(slots=True)
class _Makefile:
    path: Path
    variables: dict[str, str] = field(default_factory=dict)
    branches: list[bool | None] = field(default_factory=list)  # taken, not taken, nobody can tell

    def error(self, line: int, what: str) -> FormatError:
        return FormatError(f"{self.path}:{line}", what)

    @property
    def taken(self) -> bool | None:
        return False if False in self.branches else None if None in self.branches else True


def find_modules(top: Path) -> tuple[str, ...]:
    """The modules' paths relative to `top`, without .ko. Raises FormatError for what cannot be seen; OSError."""
    return tuple(dict.fromkeys(_modules(top, "", 0)))


def _modules(top: Path, directory: str, depth: int) -> Iterator[str]:
    path = next((top / directory / name for name in FILES if (top / directory / name).is_file()), None)
    if path is None or depth > MAX_DEPTH:
        raise FormatError(str(top / directory), "has neither Kbuild nor Makefile" if path is None else "is too deep")
    makefile = _Makefile(path)
    for line, kind, item in _objects(makefile):
        place = f"{directory}/{item}" if directory else item
        if item.endswith("/"):
            yield from _modules(top, place.rstrip("/"), depth + 1)
        elif not item.endswith(".o"):
            raise makefile.error(line, f"{item} is neither an object nor a directory")
        elif kind == "m":
            yield place.removesuffix(".o")


def _objects(makefile: _Makefile) -> Iterator[tuple[int, str, str]]:
    """Line, m or y, and what is made."""
    for line, text in _logical_lines(makefile.path):
        if _is_branch(makefile, text) or makefile.taken is False:
            continue
        if re.match(r"include\s", text):
            raise makefile.error(line, f"'{text}' may add modules, which cannot be seen from here")
        found = None if text.startswith("\t") else _ASSIGNMENT.fullmatch(text)
        if found is None:
            continue
        objects = _OBJECTS.fullmatch(found[1])
        if objects is None:
            _assign(makefile, found)
            continue
        kind = _kind(makefile, line, objects)
        if kind in ("m", "y"):
            yield from ((line, kind, item) for item in _expanded(makefile, line, found[3]).split())


def _logical_lines(path: Path) -> Iterator[tuple[int, str]]:
    with open_regular(path) as f:
        text = f.read(SIZE_LIMIT).decode("utf-8", "replace")
    pending, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        start = start if pending else number
        pending += line.rstrip("\r")
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        yield start, re.sub(r"(?<!\\)#.*", "", pending).rstrip()
        pending = ""


def _is_branch(makefile: _Makefile, text: str) -> bool:
    word = text.strip()
    condition = _CONDITION.fullmatch(word)
    if condition:
        makefile.branches.append(_holds(condition[1], condition[2]))
    elif re.match(r"else\b", word) and makefile.branches:
        before = makefile.branches[-1]
        makefile.branches[-1] = None if before is None or word != "else" else not before
    elif word == "endif" and makefile.branches:
        makefile.branches.pop()
    else:
        return False
    return True


def _holds(kind: str, text: str) -> bool | None:
    """kbuild reads the file with KERNELRELEASE set; a person's make without."""
    if kind in ("ifdef", "ifndef") and text.strip() == "KERNELRELEASE":
        return kind == "ifdef"
    if kind in ("ifeq", "ifneq") and _IS_EMPTY.fullmatch(text.strip()):
        return kind == "ifneq"
    return None


def _assign(makefile: _Makefile, found: re.Match[str]) -> None:
    """What is only set under a condition is not known."""
    name, operator, value = found[1], found[2], found[3]
    if makefile.taken is None:
        makefile.variables.pop(name, None)
    elif operator == "+":
        makefile.variables[name] = f"{makefile.variables.get(name, '')} {value}".strip()
    else:
        makefile.variables[name] = value


def _kind(makefile: _Makefile, line: int, objects: re.Match[str]) -> str:
    if makefile.taken is None:
        raise makefile.error(line, f"{objects[0]} is set under a condition: which modules there are only make can tell")
    if objects[2] is None:
        return objects[1]
    if objects[2] not in makefile.variables:
        raise makefile.error(line, f"{objects[0]} depends on {objects[2]}, which is not set in this file")
    return makefile.variables[objects[2]]


def _expanded(makefile: _Makefile, line: int, text: str) -> str:
    for _ in range(MAX_DEPTH):
        names = _REFERENCE.findall(text)
        unknown = next((name for name in names if name not in makefile.variables), None)
        if unknown is not None:
            raise makefile.error(line, f"$({unknown}) is not set in this file")
        if not names:
            break
        text = _REFERENCE.sub(lambda m: makefile.variables[m[1]], text)
    if "$" in text:
        raise makefile.error(line, f"'{text}' cannot be told without make")
    return text
