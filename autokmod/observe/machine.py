"""The quick look at every kernel of the machine: cheap enough for each `status`, and as any user.

A record is believed as far as the disk agrees: every placed file is looked at by stat, and must be named by
modules.dep. No module is read for this; `autokmodctl verify` does that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.files import read_regular
from autokmod.model import Kernel, KernelRecord, PlacedFile, Placement, Reason
from autokmod.observe.beside import find_missing
from autokmod.observe.boot import read_boot
from autokmod.observe.initrd import find_image, identify
from autokmod.observe.kernels import find_kernels, is_remains
from autokmod.observe.records import read_record
from autokmod.observe.secureboot import read_firmware
from autokmod.observe.sight import Sight, Source
from autokmod.observe.sources import list_sources, read_names
from autokmod.paths import Paths

LOCKS = Path("/proc/locks")  # proc(5): 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF


def look_at_kernels(paths: Paths, now: float) -> tuple[Sight, ...]:
    sources = find_sources(paths)
    running = os.uname().release if paths.root == Path("/") else None
    kernels = (kernel for kernel in find_kernels(paths) if not is_remains(kernel))
    sights = tuple(_look(paths, kernel, sources, running, now) for kernel in kernels)
    boot = read_boot(paths) if running is not None else None
    return _with_firmware(paths, tuple(replace(s, boot_id=boot.id) if boot and s.running else s for s in sights))


def _with_firmware(paths: Paths, sights: tuple[Sight, ...]) -> tuple[Sight, ...]:
    """Which keys are enrolled changes without a trace on disk: so it is asked each time, where it matters."""
    concerned = [s for s in sights if s.record is not None and s.record.enforced is not None]
    firmware = read_firmware(paths) if concerned else None
    return tuple(replace(s, firmware=firmware) if s in concerned else s for s in sights)


def find_sources(paths: Paths) -> tuple[Source, ...]:
    """Directories below /usr/src that hold a package, by name and version."""
    return tuple(_source(paths, directory) for directory in list_sources(paths))


def _source(paths: Paths, directory: str) -> Source:
    return Source(*read_names(paths, directory))


def is_daemon_running(paths: Paths) -> bool:
    """Whether the daemon's lock is held, as the kernel lists it.

    The lock itself is not asked: who may open a file may lock it too, and could so keep a daemon from starting.
    """
    try:
        lock = os.stat(paths.daemon_lock)
        text = LOCKS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    held = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    return any(fields[1] == "FLOCK" and held in fields for fields in map(str.split, text.splitlines()))


def _look(paths: Paths, kernel: Kernel, sources: tuple[Source, ...], running: str | None, now: float) -> Sight:
    try:
        record = read_record(paths, kernel.krel)
    except FormatError as exc:
        doubt = Reason("record-damaged", f"what was recorded of it is damaged: {exc}", hint=_reconcile(kernel.krel))
        return Sight(kernel, None, sources, running == kernel.krel, (doubt,))
    doubts = (*_doubts(kernel, record, now), *_initrd_doubts(paths, record)) if record else ()
    changed = _changed(paths, record) if record else {}
    return Sight(kernel, record, sources, running == kernel.krel, doubts, changed)


def _doubts(kernel: Kernel, record: KernelRecord, now: float) -> Iterator[Reason]:
    """No clock is asked where the record says what was seen. Else: a time in the future says that one was wrong."""
    seen = record.kernel_changed_at
    is_other = record.updated_at < kernel.changed_at <= now if seen is None else seen != kernel.changed_at
    if record.placements and is_other:
        text = "its files changed after it was last examined"
        yield Reason("kernel-changed", text, hint=_reconcile(kernel.krel))


def _initrd_doubts(paths: Paths, record: KernelRecord) -> Iterator[Reason]:
    """Where nothing is found, that may be for want of permission: only root knows that it is gone."""
    if record.going or not (record.initrd_seen or any(p.files or p.beside for p in record.placements)):
        return
    found = find_image(paths, record.krel)
    hint = _reconcile(record.krel)
    if record.initrd_seen is None:
        if found is not None and record.initrd_ok:
            yield Reason("initrd-changed", "its initrd was never looked into", hint=hint)
    elif found is None and os.geteuid() == 0:
        yield Reason("initrd-gone", "its initrd is gone since it was last looked into", hint=hint)
    elif found is not None and identify(found.path) != record.initrd_seen:
        yield Reason("initrd-changed", "its initrd changed after it was last looked into", hint=hint)


def _reconcile(krel: str) -> str:
    return f"autokmodctl reconcile {krel}"


def _changed(paths: Paths, record: KernelRecord) -> dict[str, tuple[Reason, ...]]:
    modulesd, hint = paths.modulesd(record.krel), _reconcile(record.krel)
    index = _read_index(modulesd) if any(p.files for p in record.placements) else b""
    return {
        p.package: tuple(
            replace(r, hint=hint)
            for r in (*_differences(modulesd, index, p), *find_missing(paths, record.krel, p.beside))
        )
        for p in record.placements
    }


def _read_index(modulesd: Path) -> bytes:
    try:
        return b"\n" + read_regular(modulesd / "modules.dep")
    except OSError:  # modprobe reads no more of it
        return b""


def _differences(modulesd: Path, index: bytes, placement: Placement) -> Iterator[Reason]:
    for file in placement.files:
        found = _difference(modulesd, file)
        if found is not None:
            yield found
        elif placement.verified and b"\n" + os.fsencode(file.path) + b":" not in index:
            text = f"{file.path} is not in modules.dep any more: modprobe would not load it"
            yield Reason("not-indexed", text)


def _difference(modulesd: Path, file: PlacedFile) -> Reason | None:
    path = modulesd / file.path
    try:
        target = os.readlink(path) if path.is_symlink() else None
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Reason("file-gone", f"{file.path} is gone since it was verified")
    if target != file.target:
        return Reason("link-changed", f"{file.path} leads elsewhere since it was verified")
    if (info.st_size, info.st_mtime_ns) != (file.size, file.mtime_ns):
        return Reason("file-changed", f"{file.path} changed since it was verified")
    return None
