"""Other owners' builds, as sources of links: what DKMS and vendors' packages put into the kernels of this machine, and
what autokmod took over of that from a kernel that went.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import replace

from autokmod.act.place import is_intact
from autokmod.decide.fingerprint import fingerprint
from autokmod.errors import FormatError, UnknownKernel
from autokmod.jobs.known import Known
from autokmod.model import (
    ForeignBuild,
    ForeignOrigin,
    KernelRecord,
    ModuleFacts,
    Package,
    PlacedFile,
    Placement,
    Reason,
    Recipe,
)
from autokmod.observe.external_owner import DKMS, Installed, find_installed, has_external
from autokmod.observe.kernels import list_krels, read_kernel
from autokmod.paths import Paths

NO_VERSION = "unversioned"
LOST = "foreign-lost"


def find_foreign(
    paths: Paths,
    known: Known,
    packages: Collection[Package],
    recipes: Mapping[str, Recipe],
    records: Collection[KernelRecord],
) -> tuple[ForeignBuild, ...]:
    """In every kernel that stays, the one that is looked at included: what stands there is left alone."""
    ids, names = frozenset(p.id for p in packages), {p.name for p in packages}
    promised = {_kernel_name(m.dest_name) for recipe in recipes.values() for m in recipe.modules}
    going = {r.krel for r in records if r.going}
    krels = [k for k in list_krels(paths) if k not in going and has_external(paths, k)]
    found = [b for krel in krels for b in _in_kernel(paths, known, krel, ids)]
    ours = (b for b in found if b.origin.has_source or not (b.package in names or b.names & promised))
    return (*ours, *_taken_over(paths, known, records))


def _kernel_name(dest_name: str) -> str:
    return dest_name.replace("-", "_")


# ---- in their own places -------------------------------------------------------------------------


def _in_kernel(paths: Paths, known: Known, krel: str, ids: frozenset[str]) -> tuple[ForeignBuild, ...]:
    """Remembered as long as nothing of it changed: every look at any kernel needs all of them."""
    before = known.foreign.get((krel, ids))
    if before is not None:
        return before
    try:
        installed = find_installed(paths, krel, known.external(krel), known.digest)
    except (FormatError, OSError):  # that kernel's own job says so
        return ()
    features: dict[str, dict[str, str] | None] = {}
    read = [_read(paths, known, krel, one, ids, features) for one in installed]
    found = tuple(b for b in read if not any(m.intree for m in b.modules))  # kernel-modules-extra: the kernel's own
    depends = _depends_on(paths, krel, [rel for one in installed for rel in one.files.values()])
    depends |= {name for built_for in {krel, *features} for name in _configured_by(paths, built_for)}
    return known.foreign.keep((krel, ids), found, depends)


def _depends_on(paths: Paths, krel: str, files: Iterable[str]) -> set[str]:
    """Files, the directories above them; and depmod's index, which is made anew for whatever comes from elsewhere."""
    top = paths.modulesd(krel)
    found = {str(top), str(paths.at("var/lib/dkms"))}
    found |= {str(top / name) for name in ("modules.order", "modules.dep", "extra", "updates", "updates/dkms")}
    for directory in paths.depmod_d:
        found |= {str(directory), *(str(conf) for conf in directory.glob("*.conf"))}
    for file in files:
        parts = file.split("/")
        found |= {f"{top}/{'/'.join(parts[:i])}" for i in range(1, len(parts) + 1)}
    return found


def _configured_by(paths: Paths, krel: str) -> Iterator[str]:
    top = paths.modulesd(krel)
    yield from (str(paths.boot / f"config-{krel}"), str(top / "config"), str(top / "build"))
    with contextlib.suppress(FormatError):  # links in circles: as good as no headers
        yield str(paths.resolve(top / "build") / ".config")


def _read(
    paths: Paths,
    known: Known,
    krel: str,
    installed: Installed,
    ids: Set[str],
    features: dict[str, dict[str, str] | None],
) -> ForeignBuild:
    """`features`: those that are known already, by kernel."""
    has_source = installed.owner == DKMS and f"{installed.package}/{installed.version}" in ids
    origin = ForeignOrigin(installed.owner, krel, installed.place, has_source)
    try:
        files = tuple(_file(paths, known, krel, module, rel) for module, rel in installed.files.items())
        modules = tuple(known.module(paths.modulesd(krel) / file.path) for file in files)
    except (FormatError, OSError) as exc:
        why = Reason("foreign-unreadable", f"the modules in {installed.place} of {krel} cannot be read: {exc}")
        files = tuple(PlacedFile(module, rel, None, "", 0, 0) for module, rel in installed.files.items())
        version = installed.version or NO_VERSION
        return ForeignBuild("", installed.package, version, krel, origin, files, (), problem=why)
    version = installed.version or next((m.version for m in modules if m.version), NO_VERSION)
    origin = replace(origin, krel=modules[0].release or krel)
    key = _key(installed, files)
    if origin.krel not in features:
        features[origin.krel] = _features(paths, known, origin.krel)
    origin = replace(origin, features=features[origin.krel])
    return ForeignBuild(key, installed.package, version, krel, origin, files, modules)


def _file(paths: Paths, known: Known, krel: str, module: str, rel: str) -> PlacedFile:
    path = paths.modulesd(krel) / rel
    info = path.stat()
    return PlacedFile(module, rel, None, known.digest(path), info.st_size, info.st_mtime_ns)


def _key(installed: Installed, files: Iterable[PlacedFile]) -> str:
    """Hex sha256: other content is another build."""
    said = [installed.owner, installed.package, installed.version, sorted((f.module, f.sha256) for f in files)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _features(paths: Paths, known: Known, krel: str) -> dict[str, str] | None:
    """None where that kernel is not here, or does not say how it was configured."""
    try:
        abi = known.abi(read_kernel(paths, krel))
    except (FormatError, OSError, UnknownKernel):
        return None
    return fingerprint(abi.config) if abi.config_digest is not None else None


# ---- taken over ----------------------------------------------------------------------------------


def _taken_over(paths: Paths, known: Known, records: Iterable[KernelRecord]) -> Iterator[ForeignBuild]:
    """Copies that stand among our own files, since the kernel that had them went."""
    for record in records:
        for placement in record.placements if not record.going else ():
            own = placement.foreign is not None and placement.key is not None and placement.link_from is None
            if own and is_intact(paths, record.krel, placement):
                yield from _copy(paths, known, record.krel, placement)


def _copy(paths: Paths, known: Known, krel: str, placement: Placement) -> Iterator[ForeignBuild]:
    """None where it cannot be read any more: nothing can be linked to it then."""
    modules: list[ModuleFacts] = []
    for file in placement.files:
        try:
            modules.append(known.module(paths.modulesd(krel) / file.path))
        except (FormatError, OSError):
            return
    if placement.foreign is not None and placement.key is not None:
        name, version = placement.package, placement.version
        origin, files = placement.foreign, placement.files
        yield ForeignBuild(placement.key, name, version, krel, origin, files, tuple(modules), taken_over=True)


# ---- out of sight --------------------------------------------------------------------------------


def find_lost_foreign(
    paths: Paths, record: KernelRecord | None, foreign: Iterable[ForeignBuild]
) -> tuple[tuple[Placement, Reason], ...]:
    """What this kernel was linked to, went together with the kernel that had it, and nobody told us before.

    Where that kernel still stands, the owner took the modules away: then they are wanted no more.
    """
    known = {b.package for b in foreign}
    mine = [p for p in (record.placements if record else ()) if p.foreign is not None and not p.foreign.has_source]
    return tuple((p, _lost(p)) for p in mine if p.package not in known and _went(paths, p))


def _went(paths: Paths, placement: Placement) -> bool:
    if placement.link_from is None:
        return any(reason.kind == LOST for reason in placement.reasons)
    return not paths.modulesd(placement.link_from).is_dir()


def _lost(placement: Placement) -> Reason:
    before = next((r for r in placement.reasons if r.kind == LOST), None)
    text = f"the modules that it linked to, in {placement.link_from}, went together with that kernel"
    return Reason(LOST, before.text if before else text, hint="install the vendor's package for this kernel")
