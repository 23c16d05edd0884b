"""Which kernels and sources the machine is given, from what the archive offers today."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.corpus import Corpus, CorpusError
from tests.vmsys.archive import Archive
from tests.vmsys.base import make_system
from tests.vmsys.redress import redress

HERE = Path(__file__).resolve().parent
OTHERS = 3
# One file each: an emulated machine takes ten to thirty times as long to compile it.
SOURCES = ("vpoll", "acpi-call")
LOADER = ("systemd-boot", "systemd-boot-efi")
BROKEN = "crumbling"  # does not compile
UPGRADED, CUT = SOURCES  # by and by; and with the power failing
NEWER = "9.0"  # version of both, beside the real one; their modules say so under this name
LICENCE, MADE = 'MODULE_LICENSE("GPL");', f' MODULE_INFO(made, "{NEWER}");'


@dataclass(frozen=True, slots=True)
class Kernels:
    """All of one flavour. The second takes the first one's modules; the others take nobody's."""

    first: str
    equal: str
    others: tuple[str, ...]

    @property
    def replaced(self) -> str:
        """Comes with other symbols later, under the same release."""
        return self.others[0]

    def __iter__(self) -> Iterator[str]:
        return iter((self.first, self.equal, *self.others))


@dataclass(frozen=True, slots=True)
class World:
    kernels: Kernels
    versions: tuple[str, str]  # of the kernel that is replaced, and of what replaces it
    sources: Mapping[str, str]  # name → the version to begin with
    system: Path  # raw disk: Debian with the first kernel and its headers
    archive: Path  # raw disk: what apt may install


def make_world(corpus: Corpus) -> World:
    """Raises CorpusError."""
    kernels = choose_kernels(corpus)
    with _place(corpus) as place:
        archive = Archive(place / "debs")
        versions = add_kernels(corpus, archive, kernels)
        sources = add_sources(corpus, archive)
        for layer in corpus.layers(LOADER):
            archive.add(layer.deb)
        common = (f"linux-headers-{'-'.join(krel.split('-')[:2])}-common" for krel in kernels)
        installed = (f"linux-image-{kernels.first}", f"linux-headers-{kernels.first}", *common)
        disk = archive.write_disk()
        return World(kernels, versions, sources, make_system(corpus, archive, installed), disk)


def add_kernels(corpus: Corpus, archive: Archive, kernels: Kernels) -> tuple[str, str]:
    """Raises CorpusError."""
    depends = corpus.archive.field(f"linux-headers-{kernels.first}", "Depends")
    compiler = next(word for word in depends.replace(",", " ").split() if word.startswith("linux-compiler-"))
    archive.add(corpus.layer(compiler).deb)
    for krel in kernels:
        for layer in (corpus.image(krel), *corpus.headers(krel)):
            archive.add(layer.deb)
    version = corpus.archive.field(f"linux-image-{kernels.replaced}", "Version")
    redress(archive, kernels.others[1], kernels.replaced, f"{version}.1")
    return version, f"{version}.1"


def choose_kernels(corpus: Corpus) -> Kernels:
    """Raises CorpusError."""
    first, equal, _ = corpus.trio
    flavour = first.split("-", 2)[2]
    seen, found = [corpus.symvers(first)], []
    for krel in corpus.archive.kernels(flavour):
        if krel not in (first, equal) and (symvers := corpus.symvers(krel)) not in seen:
            seen.append(symvers)
            found.append(krel)
        if len(found) == OTHERS:
            return Kernels(first, equal, tuple(found))
    raise CorpusError(f"fewer than {OTHERS} kernels with other symbols than {first}: {', '.join(found)}")


def add_sources(corpus: Corpus, archive: Archive) -> dict[str, str]:
    """Raises CorpusError."""
    versions = {BROKEN: "1.0"}
    for name in SOURCES:
        (source,) = corpus.layer(f"{name}-dkms").tree.glob(f"usr/src/{name}-*")
        versions[name] = version = source.name.removeprefix(f"{name}-")
        archive.add_source(name, version, source)
        archive.add_source(name, NEWER, source, {f'VERSION="{version}"': f'VERSION="{NEWER}"', LICENCE: LICENCE + MADE})
    archive.add_source(BROKEN, versions[BROKEN], HERE / BROKEN)
    return versions


@contextlib.contextmanager
def _place(corpus: Corpus) -> Iterator[Path]:
    place = corpus.directory / "vmsys"
    (place / "debs").mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place
