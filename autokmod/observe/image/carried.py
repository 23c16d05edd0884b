"""Which modules an image carries for one kernel, with what content, and who made the image."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from autokmod.errors import FormatError
from autokmod.observe.blob import decompress
from autokmod.observe.image.base import is_module, is_overlay
from autokmod.observe.image.contents import ROOTS, Image, read_image
from autokmod.observe.image.cpio import Entry
from autokmod.observe.image.depindex import INDEXES, known_paths
from autokmod.observe.image.inside import read_inside
from autokmod.observe.image.kernels import BOOSTER, MODULES, entries_of, flat_entries, is_config, kernels_in, reached
from autokmod.observe.image.layers import resolve
from autokmod.observe.modtree import SUFFIXES, module_name

UNREADABLE = ""  # instead of a digest
# What each leaves in every image that it makes.
MARKS = (
    ("initramfs-tools", ("conf/initramfs.conf", "scripts/functions")),
    ("dracut", ("usr/lib/dracut", "lib/dracut", "usr/lib/initrd-release", "etc/initrd-release")),
    ("mkinitcpio", ("init_functions", "buildconfig")),
    ("booster", (BOOSTER,)),
)


@dataclass(frozen=True, slots=True)
class Carried:
    modules: Mapping[str, tuple[str, ...]]  # kernel name → paths below its modules directory
    digests: Mapping[str, str]  # path → sha256 of the uncompressed module, of those that were asked for
    index: bytes  # a line "PATH:" for each module file that modprobe would know of
    opaque: tuple[str, ...]  # file systems inside, which hide what they hold, and why they cannot be opened
    made_by: str | None  # a generator's name
    laid_over: frozenset[str] = frozenset()  # kernel names of what overlays of autokmod's carry


class MadeForOther(FormatError):
    """It has modules, and none for this kernel."""

    def __init__(self, path: str, krel: str, kernels: Collection[str], made_by: str | None) -> None:
        super().__init__(path, f"it was made for {', '.join(sorted(kernels))}, and has nothing for {krel}")
        self.made_by = made_by


def read_carried(image: str, krel: str, names: Collection[str]) -> Carried:
    """Kernel names in `names` are compared. Raises FormatError, with an offset, and OSError."""
    wanted = frozenset(names)
    whole = read_image(image, lambda path: is_wanted(path, wanted))
    kernels = kernels_in(whole)
    if kernels and krel not in kernels:
        raise MadeForOther(image, krel, kernels, made_by(whole))
    outer = carried_in(whole, krel, wanted)
    if not whole.opaque:
        return outer
    opened, closed = read_inside(whole, lambda path: is_wanted(path, wanted))
    # Its loader leaves behind what it finds beside the new root: an overlay is seen by nobody.
    left = outer.laid_over if any(path in ROOTS for path in whole.opaque) else frozenset[str]()
    inner = tuple(carried_in(i, krel, wanted) for i in opened.values())
    why = tuple(f"{path} ({reason})" for path, reason in closed.items())
    return replace(_together(_without(outer, left), inner), opaque=why)


def carried_in(whole: Image, krel: str, wanted: frozenset[str]) -> Carried:
    """`whole` was read with the content of what `is_wanted`."""
    is_flat = BOOSTER in whole.files
    top = MODULES if is_flat else reached(whole.files, krel)
    found = _entries(whole.files, top, flat=is_flat)
    modules: dict[str, tuple[str, ...]] = {}
    for path in sorted(path for path, entry in found.items() if is_module(path, entry)):
        modules[module_name(path)] = (*modules.get(module_name(path), ()), path)
    # What lies where modprobe does not look is known of, and nowhere.
    elsewhere = (path for path, entry in entries_of(whole.files, krel).items() if is_module(path, entry))
    modules |= {module_name(path): () for path in elsewhere if module_name(path) not in modules}
    digests = {p: _digest(whole, f"{top}/{p}") for name in wanted & set(modules) for p in modules[name]}
    index = b"".join(_line(p) for p in sorted(found if is_flat else _known(whole, f"{top}/") & set(found)))
    overlays = (s for s in whole.segments if is_overlay(s, krel))
    laid_over = frozenset(module_name(e.path) for s in overlays for e in s.entries if e.path.endswith(SUFFIXES))
    return Carried(modules, digests, index, whole.opaque, made_by(whole), laid_over)


def _entries(files: Mapping[str, Entry], top: str | None, *, flat: bool) -> dict[str, Entry]:
    if flat:
        return flat_entries(files)
    return {path[len(top) + 1 :]: e for path, e in files.items() if path.startswith(f"{top}/")} if top else {}


def _known(image: Image, top: str) -> set[str]:
    there = {name: entry for name in INDEXES if (entry := resolve(image.files, top + name)) is not None}
    indexes = {name: entry.content or b"" for name, entry in there.items()}
    return {path.decode("utf-8", "surrogateescape") for path in known_paths(indexes)}


def _without(carried: Carried, names: frozenset[str]) -> Carried:
    """They are known of, and nowhere."""
    return replace(carried, modules={name: () if name in names else p for name, p in carried.modules.items()})


def _together(outer: Carried, inner: tuple[Carried, ...]) -> Carried:
    """Right is a module that is right in each of them that carries it."""
    layers = (outer, *inner)
    modules = {name: _paths(name, layers) for name in sorted({n for layer in layers for n in layer.modules})}
    paths = {p for found in modules.values() for p in found}
    known = [frozenset(layer.index.splitlines(keepends=True)) for layer in layers]
    lines = {p: [k for k, layer in zip(known, layers, strict=True) if _has(layer, p)] for p in paths}
    index = b"".join(_line(p) for p, where in sorted(lines.items()) if all(_line(p) in k for k in where))
    digests: dict[str, str] = {}
    for path, digest in (item for layer in layers for item in layer.digests.items()):
        digests[path] = digest if digests.get(path, digest) == digest else UNREADABLE
    return replace(outer, modules=modules, digests=digests, index=index)


def _paths(name: str, layers: tuple[Carried, ...]) -> tuple[str, ...]:
    return tuple(sorted({p for layer in layers for p in layer.modules.get(name, ())}))


def _has(layer: Carried, path: str) -> bool:
    return path in layer.modules.get(module_name(path), ())


def _line(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape") + b":\n"


def is_wanted(path: str, names: Collection[str]) -> bool:
    name = posixpath.basename(path)
    return name in INDEXES or is_config(path) or (name.endswith(SUFFIXES) and module_name(name) in names)


def _digest(image: Image, path: str) -> str:
    """Through a link, as modprobe would find it."""
    entry = resolve(image.files, path)
    if entry is None or not entry.is_file or entry.content is None:
        return UNREADABLE
    try:
        return hashlib.sha256(decompress(entry.content, path)).hexdigest()
    except FormatError:
        return UNREADABLE


def made_by(image: Image) -> str | None:
    return next((name for name, marks in MARKS if any(m in image.files for m in marks)), None)
