"""A small archive to be unpacked over an initrd: modules, what they need, an index that knows these and the image's.

It is made in a fraction of the time that a generator takes, is the same byte by byte for the same files, and may be
appended to the image, or be handed to a boot loader as one more initrd behind it. Nothing in it lies below `lib`: as a
directory that would replace the image's link to usr/lib. Modules are uncompressed: busybox's modprobe wants them so.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autokmod.act.archive import archive
from autokmod.act.former import beside
from autokmod.act.initrd import Draft, InitrdFailed, check_space
from autokmod.files import write_file
from autokmod.observe.blob import decompress, read_blob, read_bounded
from autokmod.observe.image.base import MARK, Base, without_overlays
from autokmod.observe.image.contents import SIZE_LIMIT
from autokmod.observe.image.kernels import MODULES
from autokmod.observe.initrd import NEW
from autokmod.observe.modtree import module_name, read_modules_dep, read_needs
from autokmod.paths import Paths
from autokmod.run import run

DEPMOD_LIMIT_S = 300.0
FROM_KERNEL = ("modules.builtin", "modules.builtin.modinfo")  # depmod makes others of them
ORDER = "modules.order"
IN_MEMORY = "/dev/shm"  # a thousand links are made and removed: on a disk that takes longer than all the rest


@dataclass(frozen=True, slots=True)
class Overlay:
    data: bytes
    modules: tuple[str, ...]  # kernel names


def make_overlay(
    paths: Paths, krel: str, base: Base, wanted: Collection[str], conf: Mapping[str, bytes] | None = None
) -> Overlay:
    """`wanted`: kernel names that modprobe knows on disk; `conf`: file name → content, for modprobe.d.

    Raises FormatError, CommandFailed, ToolMissing, OSError.
    """
    modulesd = paths.modulesd(krel)
    known = read_modules_dep(modulesd)
    carried = {module_name(path) for path in base.modules}
    names = with_needs(wanted, read_needs(modulesd), carried) & set(known)
    modules = {plain_path(known[name]): read_blob(modulesd / known[name]) for name in sorted(names)}
    top = f"{MODULES}/{krel}"
    files = {f"{top}/{path}": data for path, data in modules.items()}
    files |= {f"{top}/{name}": data for name, data in _index(paths, krel, base, modules).items()}
    files[f"{top}/{MARK}"] = _mark(modules)
    files |= {f"etc/modprobe.d/{name}": data for name, data in (conf or {}).items()}
    return Overlay(archive(dict(sorted(files.items()))), tuple(sorted(names)))


def with_needs(wanted: Collection[str], needs: Mapping[str, frozenset[str]], carried: Collection[str]) -> set[str]:
    """Also what is needed, all the way down, unless the image has it."""
    found, todo = set(wanted), list(wanted)
    while todo:
        new = needs.get(todo.pop(), frozenset()) - found - set(carried)
        found |= new
        todo += new
    return found


def plain_path(path: str) -> str:
    head, dot, _ = path.rpartition(".ko")
    return head + dot


def _mark(modules: Mapping[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in modules.items()).encode()


# ---- the index


def _index(paths: Paths, krel: str, base: Base, modules: Mapping[str, bytes]) -> dict[str, bytes]:
    """depmod's own, of a directory that holds what the image will hold."""
    memory = IN_MEMORY if os.access(IN_MEMORY, os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="autokmod-overlay-", dir=memory) as scratch:
        stage = Path(scratch) / MODULES / krel
        stage.mkdir(parents=True)
        (Path(scratch) / "lib").symlink_to("usr/lib")
        given = _stage(stage, paths.modulesd(krel), base, modules)
        config = [part for d in paths.depmod_d if d.is_dir() for part in ("-C", str(d))] or ["-C", os.devnull]
        run(("depmod", *config, "-b", scratch, krel), timeout_s=DEPMOD_LIMIT_S)
        made = sorted(f for f in stage.glob("modules.*") if f.name not in given)
        return {file.name: file.read_bytes() for file in made}


def _stage(stage: Path, modulesd: Path, base: Base, modules: Mapping[str, bytes]) -> frozenset[str]:
    """What the image has is linked to on disk, where it is the same file."""
    replaced = {module_name(path) for path in modules}
    kept = {path: content for path, content in base.modules.items() if module_name(path) not in replaced}
    for directory in sorted({os.path.dirname(path) for path in (*kept, *modules)}):
        os.makedirs(f"{stage}/{directory}", exist_ok=True)
    for path, content in kept.items():
        if content is None:
            os.symlink(f"{modulesd}/{path}", f"{stage}/{path}")
        else:
            (stage / path).write_bytes(decompress(content, path))
    for path, content in modules.items():
        (stage / path).write_bytes(content)
    for name in FROM_KERNEL:
        if (modulesd / name).is_file():
            (stage / name).symlink_to(modulesd / name)
    (stage / ORDER).write_text(_order(modulesd, {plain_path(p) for p in (*base.modules, *modules)}))
    return frozenset((ORDER, *FROM_KERNEL))


def _order(modulesd: Path, paths: Iterable[str]) -> str:
    """Every module has its place in it, or depmod would go by the order in which directories give their entries."""
    try:
        listed = (modulesd / ORDER).read_text(encoding="utf-8", errors="surrogateescape").split()
    except FileNotFoundError:
        listed = []
    return "".join(f"{path}\n" for path in dict.fromkeys((*listed, *sorted(paths))))


# ---- appended


@contextmanager
def overlaid(paths: Paths, image: Path, base: Base, overlay: Overlay) -> Iterator[Draft]:
    """The image with this overlay instead of former ones, beside it. Raises InitrdFailed, OSError."""
    draft = Draft(image, beside(image, NEW))
    check_space(paths, image)
    try:
        draft.path.unlink(missing_ok=True)
        append(paths, image, draft.path, base, overlay)
        yield draft
    finally:
        if not draft.published:
            draft.path.unlink(missing_ok=True)


def append(paths: Paths, image: Path, target: Path, base: Base, overlay: Overlay) -> None:
    """`image` is what `base` was read of; `target` may be the same. Raises InitrdFailed, OSError."""
    if base.is_uki:
        hint = "let the generator make it anew, or have an overlay made for the boot loader: autokmodctl initrd overlay"
        raise InitrdFailed(paths.inside(image), "to a unified kernel image nothing can be appended", hint)
    data = without_overlays(read_bounded(image, limit=SIZE_LIMIT), base)
    mode = stat.S_IMODE(image.stat().st_mode)
    write_file(target, data + bytes(-len(data) % 4) + overlay.data, mode=mode)
