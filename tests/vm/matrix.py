"""Real packages, built for several kernels: every module against every one of the kernels to be asked.

Nothing is pinned to a version: kernels and packages are what the archive offers. What is built stays in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from autokmod.act.build import build_package
from autokmod.config import Config
from autokmod.decide.buildkey import build_key, source_key
from autokmod.errors import RecipeError
from autokmod.jobs.tokens import TokenPool
from autokmod.model import Package
from autokmod.observe.abi import read_abi
from autokmod.observe.kernels import read_kernel
from autokmod.observe.recipe import read_recipe
from autokmod.observe.sources import find_packages
from autokmod.observe.toolchain import read_toolchain
from autokmod.run import Cancel
from tests import realroot
from tests.corpus import ABI, Corpus, CorpusError, version_key
from tests.vm.sources import publish

# Most compile in seconds; together they have modules that provide symbols to one another, within a package and between
# two, in-tree twins, and modules for hardware that the machine does not have.
PACKAGES: tuple[str, ...] = (
    *("acpi-call-dkms", "adv-17v35x-dkms", "bbswitch-dkms", "dahdi-dkms", "digimend-dkms", "dm-writeboost-dkms"),
    *("dpdk-kmods-dkms", "gost-crypto-dkms", "lime-forensics-dkms", "nat-rtsp-dkms", "openvpn-dco-dkms"),
    *("rapiddisk-dkms", "rtpengine-kernel-dkms", "tp-smapi-dkms", "v4l2loopback-dkms", "vpoll-dkms"),
    *("west-chamber-dkms", "xtables-addons-dkms", "xtrx-dkms"),
)
FEW: tuple[str, ...] = ("acpi-call-dkms", "gost-crypto-dkms", "rapiddisk-dkms", "vpoll-dkms")
FORMAT = "1"  # of the cache
LOG = "build.log"


@dataclass(frozen=True, slots=True)
class Kernels:
    built_for: Mapping[str, Sequence[str]]  # krel → Debian packages
    asked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """One module file."""

    package: str
    krel: str  # that it was built for
    path: Path


def choose_kernels(corpus: Corpus) -> Kernels:
    """An older one and its equal, and one that differs from both; the next flavours; another series."""
    small, full, realtime = corpus.archive.flavours()
    first, equal, other = corpus.trio
    whole, newer = corpus.archive.kernels(full)[0], newest_series(corpus, small)
    built_for = dict.fromkeys((first, other, whole, newer), PACKAGES)
    built_for |= dict.fromkeys(corpus.archive.kernels(realtime)[:1], FEW)
    return Kernels(built_for, (equal, other, whole, newer))


def newest_series(corpus: Corpus, flavour: str) -> str:
    """The newest kernel of all, whatever the distribution installs by default. Raises CorpusError."""
    names = corpus.archive.names(f"^linux-headers-[0-9].*-{flavour}$")
    found = [m for n in names if (m := ABI.fullmatch(n))]
    if not found:
        raise CorpusError(f"no kernels of flavour {flavour}")
    return max((m["krel"] for m in found), key=version_key)


# ---- building


def build_all(corpus: Corpus, built_for: Mapping[str, Sequence[str]]) -> tuple[Built, ...]:
    """What compiles: not every package does on every kernel, and its build.log tells why."""
    places = {(p, k): _place(corpus, p, k) for k, packages in built_for.items() for p in packages}
    missing = {pair: place for pair, place in places.items() if not place.is_dir()}
    if missing:
        packages = sorted({p for p, _ in missing})
        with tempfile.TemporaryDirectory() as scratch, realroot.made(Path(scratch), corpus, packages=packages) as root:
            _build_missing(root, missing)
    return tuple(Built(p, k, file) for (p, k), place in places.items() for file in sorted(place.glob("*.ko")))


def _place(corpus: Corpus, package: str, krel: str) -> Path:
    """By everything that decides what comes out; compilers change with Debian's point releases only."""
    inputs = (FORMAT, corpus.layer(package).deb.name, *(layer.deb.name for layer in corpus.headers(krel)))
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]
    return corpus.directory / "vm" / f"{package}-{krel}-{digest}"


def _build_missing(root: realroot.RealRoot, missing: Mapping[tuple[str, str], Path]) -> None:
    """All at once, over packages and kernels: the job tokens decide how many compilers run."""
    for krel in sorted({k for _, k in missing}):
        root.add_kernel(krel, image=False)
    packages = {Path(p.source).name: p for p in find_packages(root.paths, Config())}
    pool, cancel = TokenPool(0), Cancel()

    def build(pair: tuple[str, str]) -> None:
        source = next((root.corpus.layer(pair[0]).tree / "usr/src").iterdir()).name
        log, modules = _build(root, packages[source], pair[1], pool, cancel)
        publish(modules, missing[pair], {LOG: log})

    with contextlib.closing(pool), ThreadPoolExecutor(pool.tokens) as threads:
        try:
            list(threads.map(build, missing))
        finally:
            cancel.cancel()


def _build(
    root: realroot.RealRoot, package: Package, krel: str, pool: TokenPool, cancel: Cancel
) -> tuple[str, list[Path]]:
    """The log, and the modules that came out."""
    paths, config, kernel = root.paths, Config(), read_kernel(root.paths, krel)
    abi = read_abi(paths, kernel)
    try:
        recipe = read_recipe(paths, config, package, kernel, abi)
    except RecipeError as exc:
        return f"{exc}\n", []
    if recipe.excluded:
        return f"{recipe.excluded.text}\n", []
    toolchain, _ = read_toolchain(paths, kernel, abi, config)
    keys = build_key(package, recipe, abi, toolchain), source_key(package, recipe)
    build = build_package(paths, config, package, recipe, kernel, abi, *keys, pool, cancel)
    if build.transient:
        raise AssertionError(f"{package.id} for {krel}: {build.errors}")  # not to be remembered
    directory = Path(build.directory)
    return (directory / "build.log").read_text(errors="replace"), [directory / m.file for m in build.modules]
