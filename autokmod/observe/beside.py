"""Another owner's modules that make ours needless in a kernel: do they still stand there, and does modprobe find them?

Their owner runs depmod, or does not: whoever relies on them looks into the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.model import PlacedFile, Reason
from autokmod.observe.modtree import read_modules_dep
from autokmod.paths import Paths


def find_missing(paths: Paths, krel: str, files: Sequence[PlacedFile]) -> Iterator[Reason]:
    """What is not as it was seen, by stat and by modules.dep: each file once."""
    modulesd = paths.modulesd(krel)
    picked = _read_index(modulesd) if files else {}
    for file in files:
        reason = _difference(modulesd, file) or _not_picked(paths, modulesd, picked.get(file.module), file)
        if reason is not None:
            yield reason


def _read_index(modulesd: Path) -> dict[str, str]:
    try:
        return read_modules_dep(modulesd)
    except (FormatError, OSError):
        return {}


def _difference(modulesd: Path, file: PlacedFile) -> Reason | None:
    try:
        info = (modulesd / file.path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return Reason("file-gone", f"{file.path}, another owner's, is gone since it was looked at")
    if (info.st_size, info.st_mtime_ns) != (file.size, file.mtime_ns):
        return Reason("file-changed", f"{file.path}, another owner's, changed since it was looked at")
    return None


def _not_picked(paths: Paths, modulesd: Path, picked: str | None, file: PlacedFile) -> Reason | None:
    """Links are followed: depmod names the link, where one leads to the file."""
    if picked is None:
        text = f"{file.path}, another owner's, is not in modules.dep: modprobe would not load it"
        return Reason("not-indexed", text)
    if picked == file.path or paths.resolve(modulesd / picked) == paths.resolve(modulesd / file.path):
        return None
    return Reason("other-file-wins", f"{file.module}: modprobe would load {picked}, not {file.path}")
