"""Which modules an image carries for one kernel, with what content, and who made the image."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from autokmod.errors import FormatError
from autokmod.observe.blob import decompress
from autokmod.observe.image.base import entries_of, is_module, is_overlay
from autokmod.observe.image.contents import Image, read_image, resolve
from autokmod.observe.image.cpio import Entry
from autokmod.observe.modtree import SUFFIXES, module_name

INDEXES = ("modules.dep", "modules.dep.bin")
UNREADABLE = ""  # instead of a digest
# What each leaves in every image that it makes.
MARKS = (
    ("initramfs-tools", ("conf/initramfs.conf", "scripts/functions")),
    ("dracut", ("usr/lib/dracut", "lib/dracut", "usr/lib/initrd-release", "etc/initrd-release")),
    ("mkinitcpio", ("init_functions", "buildconfig")),
    ("booster", ("etc/booster.init.yaml",)),
)


@dataclass(frozen=True, slots=True)
class Carried:
    modules: Mapping[str, tuple[str, ...]]  # kernel name → paths below its modules directory
    digests: Mapping[str, str]  # path → sha256 of the uncompressed module, of those that were asked for
    index: bytes  # modules.dep, as text or binary: a path that is not in it is not known to modprobe
    opaque: tuple[str, ...]  # file systems inside, which hide what they hold
    made_by: str | None  # a generator's name
    laid_over: frozenset[str] = frozenset()  # kernel names of what overlays of autokmod's carry


def read_carried(image: str, krel: str, names: Collection[str]) -> Carried:
    """Kernel names in `names` are compared. Raises FormatError, with an offset, and OSError."""
    wanted = frozenset(names)
    return carried_in(read_image(image, lambda path: is_wanted(path, wanted)), krel, wanted)


def carried_in(whole: Image, krel: str, wanted: frozenset[str]) -> Carried:
    """`whole` was read with the content of what `is_wanted`."""
    found = entries_of(whole.files, krel)
    modules: dict[str, tuple[str, ...]] = {}
    for path, entry in sorted(found.items()):
        if is_module(path, entry):
            modules[module_name(path)] = (*modules.get(module_name(path), ()), path)
    digests = {p: _digest(whole, krel, p) for name in wanted & set(modules) for p in modules[name]}
    index = b"\n".join(e.content for n in INDEXES if (e := found.get(n)) is not None and e.content is not None)
    overlays = (s for s in whole.segments if is_overlay(s, krel))
    laid_over = frozenset(module_name(e.path) for s in overlays for e in s.entries if e.path.endswith(SUFFIXES))
    return Carried(modules, digests, index, whole.opaque, made_by(whole), laid_over)


def is_wanted(path: str, names: Collection[str]) -> bool:
    name = posixpath.basename(path)
    return name in INDEXES or (name.endswith(SUFFIXES) and module_name(name) in names)


def _digest(image: Image, krel: str, path: str) -> str:
    """Through a link, as modprobe would find it."""
    entry = next(_entries(image, f"lib/modules/{krel}/{path}"), None)
    if entry is None or entry.content is None:
        return UNREADABLE
    try:
        return hashlib.sha256(decompress(entry.content, path)).hexdigest()
    except FormatError:
        return UNREADABLE


def _entries(image: Image, path: str) -> Iterator[Entry]:
    for candidate in (path, f"usr/{path}"):
        entry = resolve(image.files, candidate)
        if entry is not None and entry.is_file:
            yield entry


def made_by(image: Image) -> str | None:
    return next((name for name, marks in MARKS if any(m in image.files for m in marks)), None)
