"""The recipe of a DKMS package for one kernel, evaluated once and kept.

Evaluating takes a sandboxed bash, some 20 ms; with everything known it is read from a file. What counts as known:
the source and its overrides, the kernel's configuration and symbols, and which other packages there are, for some
confs look for them in /usr/src. A conf that cannot be evaluated is kept as well, or an endless loop would cost its
time limit whenever anyone looks; only that one answer grows old.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from autokmod import __version__
from autokmod.config import Config
from autokmod.errors import FormatError, RecipeError
from autokmod.files import read_json, write_json
from autokmod.jsonvalue import from_json, to_json
from autokmod.model import ElfIdent, Kernel, KernelAbi, Package, Recipe
from autokmod.observe.dkmseval import SCRIPT, evaluate
from autokmod.observe.dkmsfields import KernelFacts
from autokmod.observe.dkmsrecipe import make_recipe
from autokmod.paths import Paths

FORMAT = 1
ERROR_AGE_S = 3600.0  # a time limit may have been missed because the machine was busy

# e_machine, bits, endian → uname -m
MACHINES = {
    (62, 64, "little"): "x86_64",
    (3, 32, "little"): "i686",
    (183, 64, "little"): "aarch64",
    (40, 32, "little"): "armv7l",
    (21, 64, "little"): "ppc64le",
    (21, 64, "big"): "ppc64",
    (22, 64, "big"): "s390x",
    (243, 64, "little"): "riscv64",
    (258, 64, "little"): "loongarch64",
}


@dataclass(frozen=True, slots=True)
class Kept:
    """One file of the cache: the recipe, or why there is none (path, key, why)."""

    format: int
    known_by: str
    recipe: Recipe | None
    error: tuple[str, ...]


def read_dkms_recipe(
    paths: Paths,
    config: Config,
    package: Package,
    kernel: Kernel,
    abi: KernelAbi | None,
    neighbours: Sequence[str],
) -> Recipe:
    """`neighbours`: the directories of /usr/src that are packages. Raises RecipeError, and SandboxUnavailable where
    nothing can be evaluated."""
    known_by = _known_by(config, package, kernel, abi, neighbours)
    place = paths.cache / "recipes" / f"{package.name}-{package.version}" / f"{kernel.krel}.json"
    kept = _read_kept(place, known_by)
    if kept is None:
        kept = _evaluate(paths, config, package, kernel, abi, known_by)
        _keep(place, kept)
    if kept.recipe is None:
        path, key, why = kept.error
        raise RecipeError(path, key, why)
    return kept.recipe


def kernel_arch(abi: KernelAbi | None) -> str:
    """As `uname -m` says it: of the kernel's modules where known, else of this machine."""
    ident: ElfIdent | None = abi.ident if abi else None
    known = MACHINES.get((ident.machine, ident.bits, ident.endian)) if ident else None
    return known or os.uname().machine


def _evaluate(
    paths: Paths, config: Config, package: Package, kernel: Kernel, abi: KernelAbi | None, known_by: str
) -> Kept:
    arch = kernel_arch(abi)
    facts = KernelFacts(kernel.krel, arch, abi.config if abi is not None and kernel.kdir is not None else None)
    try:
        recipe = make_recipe(package, facts, evaluate(paths, config, package, kernel, arch))
    except RecipeError as exc:
        return Kept(FORMAT, known_by, None, (exc.path, exc.key, exc.why))
    return Kept(FORMAT, known_by, recipe, ())


def _known_by(
    config: Config, package: Package, kernel: Kernel, abi: KernelAbi | None, neighbours: Sequence[str]
) -> str:
    kernel_side = (kernel.krel, kernel.kdir, kernel_arch(abi), abi and abi.config_digest, abi and abi.symvers_digest)
    program = (__version__, FORMAT, _script_digest())
    settings = (config.build.eval_limit_s, config.build.jobs, config.build.allow_unsandboxed)
    parts: Sequence[object] = (program, package.id, package.source, package.digest, kernel_side, settings, neighbours)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@cache
def _script_digest() -> str:
    return hashlib.sha256(SCRIPT.read_bytes()).hexdigest()


def _read_kept(place: Path, known_by: str) -> Kept | None:
    """Whatever is wrong with a cache, the answer is to do without."""
    try:
        kept = from_json(Kept, read_json(place), str(place))
        age_s = time.time() - place.stat().st_mtime
    except (OSError, FormatError):
        return None
    if (kept.format, kept.known_by) != (FORMAT, known_by):
        return None
    if kept.recipe is None and (len(kept.error) != 3 or not 0 <= age_s < ERROR_AGE_S):
        return None
    return kept


def _keep(place: Path, kept: Kept) -> None:
    with contextlib.suppress(OSError):  # a read-only or full disk only costs time
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, to_json(kept))
