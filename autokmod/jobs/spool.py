"""The spool: one file an intent, VERB-KREL.json, so that the same intent twice is one job.

A file says {"format": 1, "verb": "reconcile", "krel": "6.1.0-1-amd64", "why": "kernel-install"}; "force": true may be
added, other keys are not looked at. A shell script is writer enough: write to a name that starts with a dot, rename.
No daemon, no bus and no lock is needed. The file goes when its intent is fulfilled or withdrawn; what the daemon knows
beside it (numbers, attempts) is in the queue's own file.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autokmod.errors import FormatError
from autokmod.files import fsync_dir, read_json, set_aside, write_json
from autokmod.model import Job, Verb
from autokmod.observe.kernels import is_krel
from autokmod.paths import Paths

FORMAT = 1
SUFFIX = ".json"
ASIDE = ".damaged"
SIZE_LIMIT = 64 << 10
WHY_LIMIT = 200
ALL = "all"  # the krel of a rescan

Stamp = tuple[int, int, int]  # inode, mtime in ns, size: another one means that the intent came again


@dataclass(frozen=True, slots=True)
class Entry:
    job: Job
    stamp: Stamp


class Spool:
    def __init__(self, paths: Paths) -> None:
        self.directory = paths.spool
        self._known: dict[str, Entry] = {}  # by the file's name: what has the same stamp is not read again

    def add(self, verb: Verb, krel: str, why: str, *, force: bool = False) -> Job:
        """Queue an intent, or repeat one: it then counts as new. Raises FormatError for a krel that cannot be one."""
        check_krel(verb, krel, str(self.directory))
        job = Job(verb, krel, why[:WHY_LIMIT], time.time(), force=force or self._is_forced(verb, krel))
        self.directory.mkdir(parents=True, exist_ok=True)
        text = {"format": FORMAT, "verb": verb.value, "krel": krel, "why": job.why, "force": job.force}
        write_json(self.path(job), text)
        return job

    def path(self, job: Job) -> Path:
        return self.directory / f"{job.name}{SUFFIX}"

    def jobs(self) -> tuple[Job, ...]:
        """What is queued, oldest first; without the numbers that only the daemon gives. Any user may ask."""
        return tuple(entry.job for entry in self.read()[0])

    def read(self) -> tuple[tuple[Entry, ...], tuple[FormatError, ...]]:
        """What is queued, oldest first, and what is wrong with every other file."""
        entries, problems = [], []
        names = self._names()
        self._known = {name: self._known[name] for name in names if name in self._known}
        for name in names:
            try:
                entries.append(self._read_entry(name))
            except FileNotFoundError:
                continue
            except FormatError as exc:
                problems.append(exc)
            except OSError as exc:
                problems.append(FormatError(str(self.directory / name), f"cannot be read: {exc.strerror}"))
        return tuple(sorted(entries, key=lambda e: (e.job.created_at, e.job.name))), tuple(problems)

    def remove(self, entry: Entry) -> bool:
        """The intent is fulfilled or withdrawn. False if it came again meanwhile: then it stays.

        The file is first taken away and looked at then: between a look and an unlink a new intent could be lost.
        """
        path, taken = self.path(entry.job), self.directory / f".{entry.job.name}.taken"
        try:
            os.rename(path, taken)
        except FileNotFoundError:
            return True
        is_same = _stamp(os.lstat(taken)) == entry.stamp
        if not is_same:
            self._give_back(taken, path)
        os.unlink(taken)
        fsync_dir(self.directory)
        return is_same

    def recover(self) -> None:
        """After a kill in the middle of `remove`: a repeated intent costs nothing, a lost one does."""
        for name in self._list():
            if name.startswith(".") and name.endswith(".taken"):
                taken = self.directory / name
                self._give_back(taken, self.directory / f"{name[1:].removesuffix('.taken')}{SUFFIX}")
                os.unlink(taken)

    def _give_back(self, taken: Path, path: Path) -> None:
        try:
            os.link(taken, path)
        except FileExistsError:
            pass  # a still newer intent is there already

    def _is_forced(self, verb: Verb, krel: str) -> bool:
        try:
            return self._read_entry(f"{verb}-{krel}{SUFFIX}").job.force
        except (FormatError, OSError):
            return False

    def _names(self) -> list[str]:
        return [n for n in self._list() if not n.startswith(".") and not n.endswith(ASIDE)]

    def _list(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except FileNotFoundError:
            return []

    def _read_entry(self, name: str) -> Entry:
        path = self.directory / name
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(str(path), "not a regular file")
        known = self._known.get(name)
        if known is None or known.stamp != _stamp(found):
            known = Entry(parse_job(read_json(path, limit=SIZE_LIMIT), path, found.st_mtime), _stamp(found))
            self._known[name] = known
        return known


def put_aside(problem: FormatError) -> bool:
    """Move a file that is no job out of the way. False where it cannot be moved: then it is only left alone."""
    try:
        set_aside(Path(problem.path))
    except OSError:
        return False
    return True


def check_krel(verb: Verb, krel: str, path: str) -> None:
    if not is_krel(krel) or (verb is Verb.RESCAN) != (krel == ALL):
        raise FormatError(path, f"krel: {krel[:80]!r} is no kernel release for {verb}")


def parse_job(data: Any, path: Path, mtime: float) -> Job:
    """Raises FormatError."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise FormatError(str(path), f'an object with "format": {FORMAT} expected')
    verb, krel, why, force = (data.get(k, d) for k, d in (("verb", ""), ("krel", ""), ("why", ""), ("force", False)))
    if verb not in list(Verb):
        raise FormatError(str(path), f"verb: {str(verb)[:80]!r} is not one of {', '.join(Verb)}")
    if not isinstance(krel, str) or not isinstance(why, str) or not isinstance(force, bool):
        raise FormatError(str(path), "krel and why must be texts, force true or false")
    check_krel(Verb(verb), krel, str(path))
    if path.name != f"{verb}-{krel}{SUFFIX}":
        raise FormatError(str(path), f"the file must be called {verb}-{krel}{SUFFIX}")
    clean = "".join(c if c.isprintable() else "?" for c in why)[:WHY_LIMIT]
    return Job(Verb(verb), krel, clean or "not said", mtime, force=force)


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_mtime_ns, found.st_size
