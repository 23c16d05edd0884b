"""The log of the build that a kernel uses."""

from __future__ import annotations

from pathlib import Path

from autokmod.errors import AutokmodError
from autokmod.model import Placement
from autokmod.paths import Paths


class NoLog(AutokmodError):
    dbus_name = "NoLog"

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why


def log_path(paths: Paths, placement: Placement) -> Path | None:
    """By its key: a record made from outside, with another root, names paths of that time."""
    key = Path(placement.log).parent.name if placement.log else placement.key
    return paths.builds / key / "build.log" if key and (placement.log or placement.files) else None


def read_log(paths: Paths, package: str, krel: str, placement: Placement | None) -> tuple[Path, str]:
    """Raises NoLog."""
    path = log_path(paths, placement) if placement else None
    if path is None:
        raise NoLog(f"{package} was never built for {krel}: there is no log")
    try:
        return path, path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as exc:
        raise NoLog(f"the log {path} is not there any more") from exc
