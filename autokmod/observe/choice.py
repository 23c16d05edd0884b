"""Choosing patches and flags by their conditions, and keeping why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

from autokmod.conditions import Condition
from autokmod.errors import FactMissing
from autokmod.model import RecipePatch
from autokmod.observe.kernelfacts import Facts
from autokmod.recipeparts import DefinePart, FlagsPart, PatchPart
from autokmod.tomllines import Key


class Conditional(Protocol):
    @property
    def when(self) -> Condition | None: ...


def asks_compiler(parts: Iterable[Conditional]) -> bool:
    return any(part.when is not None and any(part.when.texts("compiler")) for part in parts)


@dataclass(slots=True)
class Choice:
    """`blame` makes the error of a condition that nobody can judge, from its key and why."""

    facts: Facts
    blame: Callable[[Key, str], FactMissing]
    applied: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)

    def takes(self, what: str, part: Conditional, key: Key) -> bool:
        """Whether its condition holds. Raises FactMissing, but without headers: then nothing is built anyway."""
        if part.when is None:
            self.applied.append(what)
            return True
        found = self.facts.judge(part.when)
        if found.holds is None and self.facts.has_headers:
            raise self.blame((*key, "when"), found.why)
        sentences = {True: self.applied, False: self.passed_over, None: self.undecided}
        sentences[found.holds].append(f"{what}: {found.why}")
        return found.holds is True

    def flags(
        self, defines: Sequence[DefinePart], flags: Sequence[FlagsPart]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """For the compiler, and make's variables."""
        words = [d.flag for i, d in enumerate(defines) if self.takes(d.flag, d, ("define", i))]
        variables: list[str] = []
        for i, part in enumerate(flags):
            if self.takes(" ".join((*part.words, *part.make)), part, ("flags", i)):
                words += part.words
                variables += part.make
        return tuple(words), tuple(variables)

    def patch(self, part: PatchPart, files: Iterable[str], key: Key) -> list[RecipePatch]:
        """Of one entry, which may name several."""
        return [RecipePatch(f, part.strip, part.dir) for f in files if self.takes(f"patch {f}", part, key)]


def first_naming(parts: Sequence[PatchPart], file: str) -> int | None:
    """The first entry that names the file counts."""
    return next((i for i, part in enumerate(parts) if fnmatchcase(file, part.file)), None)
