"""/var/lib/autokmod/queue.json: what the daemon knows of its jobs beside the spool, and the counter of their numbers.

Losing the file loses no job, only numbers and attempts. A number is saved before anybody hears of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from autokmod import journal
from autokmod.errors import FormatError
from autokmod.events import Event
from autokmod.files import read_json, set_aside, write_file
from autokmod.jsonvalue import from_json, to_json

FORMAT = 1
NUMBERS = range(1, 1 << 32)  # what D-Bus says that they are
# Where numbers begin when the counter was lost: past any that one job a second since then could have reached.
NUMBERS_EPOCH = 1_700_000_000

log = journal.get()


@dataclass(frozen=True, slots=True)
class Known:
    id: int
    stamp: tuple[int, ...]
    attempt: int = 0  # how often it failed
    tried_at: float = 0.0
    not_before: float = 0.0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class Saved:
    format: int = FORMAT
    next_id: int = 1
    jobs: Mapping[str, Known] = field(default_factory=dict)
    running: str = ""  # a job's name; believed only as long as a daemon runs


@lru_cache(4096)
def _as_json(known: Known) -> Any:
    """Each is saved again and again, as often as another job changes."""
    return to_json(known)


class Ledger:
    def __init__(self, file: Path, now: float) -> None:
        self._file = file
        saved = self._load(now)
        self._next_id = max(saved.next_id, *(job.id + 1 for job in saved.jobs.values()), 1)
        self.jobs: dict[str, Known] = dict(saved.jobs)
        self.running = ""

    def number(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def save(self) -> None:
        """On a full or broken disk the queue goes on from memory."""
        try:
            jobs = {name: _as_json(known) for name, known in self.jobs.items()}
            text = {"format": FORMAT, "next_id": self._next_id, "jobs": jobs, "running": self.running}
            write_file(self._file, json.dumps(text).encode() + b"\n")  # in one line: that is ten times as fast
        except OSError as exc:
            log.error(f"{self._file} cannot be written: {exc.strerror}; jobs may get new numbers after a restart")

    def _load(self, now: float) -> Saved:
        try:
            saved = from_json(Saved, read_json(self._file), str(self._file))
            if saved.format != FORMAT:
                raise FormatError(str(self._file), f"format {saved.format} is not known, {FORMAT} expected")
            if any(number not in NUMBERS for number in (saved.next_id, *(job.id for job in saved.jobs.values()))):
                raise FormatError(str(self._file), f"a job's number is not between 1 and {NUMBERS[-1]}")
        except FileNotFoundError:
            return Saved()
        except FormatError as exc:
            log.error(f"{exc}; it was renamed to end in .damaged, jobs get new numbers", kind=Event.STATE_DAMAGED)
            set_aside(self._file)
            return Saved(next_id=max(1, int(now) - NUMBERS_EPOCH))
        return saved
