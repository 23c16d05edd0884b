"""What a build printed, for the journal: an entry a line, as it keeps the output of services, with the job's field.

Only the end, where compilers say what stopped them, and never on a terminal, where `autokmodctl logs` is at hand.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from autokmod import journal
from autokmod.act.store import LOG
from autokmod.model import Build, BuildError

MOST_BYTES = 64 << 10
MOST_LINES = 200

log = journal.get()


def tell_output(build: Build) -> None:
    """Of a build that stands in the store."""
    if journal.target() != "journal":
        return
    path = Path(build.directory, LOG)
    fields = {"krel": build.krel, "package": build.package, "version": build.version, "log": path}
    try:
        size, end = _read_end(path)
    except OSError as exc:
        log.warning(f"the build's log cannot be read: {exc}", **fields)
        return
    for line in output_lines(end, is_whole=size <= MOST_BYTES, errors=build.errors):
        log.info(line, **fields)


def _read_end(path: Path) -> tuple[int, bytes]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - MOST_BYTES))
        return size, file.read(MOST_BYTES)


def output_lines(end: bytes, *, is_whole: bool, errors: Sequence[BuildError] = ()) -> list[str]:
    """What is shown of a log that ends so: valid text, no empty lines; first, the errors that came before. Pure."""
    lines = journal.CONTROL.sub("?", end.decode("utf-8", "replace").replace("\r\n", "\n")).split("\n")
    if not is_whole:
        del lines[0]  # its beginning is missing
    lines = [line.rstrip() for line in lines if line.strip()]
    shown = lines[-MOST_LINES:]
    if is_whole and shown == lines:
        return shown
    missing = [error for error in errors if not any(error.text in line for line in shown)]
    return [*map(_as_line, missing), "… (autokmodctl logs shows all that was printed)", *shown]


def _as_line(error: BuildError) -> str:
    return f"{error.file}:{error.line}: {error.text}" if error.file else error.text
