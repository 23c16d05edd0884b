"""What the running kernel has loaded, and which boot that is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autokmod.model import ModuleId
from autokmod.observe.blob import read_blob
from autokmod.observe.elf import Elf
from autokmod.observe.ko import read_modinfo
from autokmod.paths import Paths

BUILD_ID = ".note.gnu.build-id"
LIVE = "Live"


@dataclass(frozen=True, slots=True)
class Boot:
    id: str
    krel: str
    at: float  # s since epoch


def read_boot(paths: Paths) -> Boot | None:
    """None where /proc does not tell."""
    try:
        boot_id = _text(paths.at("proc/sys/kernel/random/boot_id"))
        krel = _text(paths.at("proc/sys/kernel/osrelease"))
        times = (line.split() for line in _text(paths.at("proc/stat")).splitlines())
        return Boot(boot_id, krel, next(float(words[1]) for words in times if words[:1] == ["btime"]))
    except (OSError, StopIteration):
        return None


def read_loaded(paths: Paths, names: Iterable[str]) -> dict[str, ModuleId]:
    """Of these modules, by kernel name, those that are loaded. Raises OSError where there is no /proc/modules."""
    lines = (line.split() for line in _text(paths.at("proc/modules")).splitlines())
    live = {words[0] for words in lines if len(words) > 4 and words[4] == LIVE}
    return {name: _id_of_loaded(paths.at(f"sys/module/{name}")) for name in names if name in live}


def _id_of_loaded(directory: Path) -> ModuleId:
    """Kernels tell the first where the module has it, the second to root alone."""
    try:
        srcversion = _text(directory / "srcversion")
    except OSError:
        srcversion = None
    try:
        note = (directory / "notes" / BUILD_ID).read_bytes().hex()
    except OSError:
        note = None
    return ModuleId(srcversion or None, note or None)


def read_id(path: Path) -> ModuleId:
    """Of a module on disk. Raises FormatError, OSError."""
    elf = Elf(str(path), read_blob(path))
    srcversion = next(iter(read_modinfo(elf).get("srcversion", ())), None)
    section = elf.find(BUILD_ID)
    return ModuleId(srcversion, bytes(elf.content(section)).hex() if section is not None else None)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()
