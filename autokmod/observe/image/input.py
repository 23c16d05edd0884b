"""What unpackers read from: compressed bytes in memory, taken piece by piece, and errors that say where."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from autokmod.errors import FormatError

CHUNK = 1 << 20


@dataclass(slots=True)
class Input:
    data: memoryview
    at: int
    path: str
    kind: str
    start: int = 0

    def __post_init__(self) -> None:
        self.start = self.at

    def fail(self, what: str) -> FormatError:
        return FormatError(self.path, f"{what} (from {self.start} on)", self.at)

    def take(self, size: int) -> bytes:
        part = bytes(self.data[self.at : self.at + size])
        if len(part) < size:
            raise self.fail(f"the {self.kind} stream is truncated")
        self.at += size
        return part

    def some(self) -> bytes:
        return self.take(max(1, min(CHUNK, len(self.data) - self.at)))

    @contextmanager
    def watched(self, *errors: type[Exception]) -> Iterator[None]:
        try:
            yield
        except errors as exc:
            raise self.fail(f"damaged {self.kind} stream: {exc}") from exc

    def library(self, module: str, package: str) -> Any:
        try:
            return importlib.import_module(module)
        except ImportError as exc:
            raise self.fail(f"to unpack {self.kind} takes Python's {module} ({package})") from exc
