"""Real input from the distribution's archive: kernels, headers and *-dkms packages, chosen by what it offers today.

ABI numbers leave the archive as new ones arrive, so nothing here is pinned. Each .deb is downloaded once into a cache
($AUTOKMOD_CACHE, or .cache/ in the checkout) and unpacked once into a layer: a tree with merged /usr that overlayfs
can stack. A layer is published by rename, so an interrupted run leaves nothing half-made, and one lock lets test
runs and demos share a cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
ABI = re.compile(r"linux-headers-(?P<krel>(?P<series>\d+\.\d+)\.(?P<rest>.*))")


class CorpusError(Exception):
    """The archive does not have, or did not give, what is wanted."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One unpacked binary package."""

    package: str
    deb: Path
    tree: Path  # with usr/, and boot/ or etc/ where the package has them


@dataclass(frozen=True, slots=True)
class Archived:
    """One binary package as apt would download it."""

    package: str
    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Trio:
    """Three kernels of one flavour: the first two export the same symbols with the same CRCs, the third does not."""

    first: str
    equal: str
    other: str

    def __iter__(self) -> Iterator[str]:
        return iter((self.first, self.equal, self.other))


class Archive:
    """What apt would say, remembered until its package lists change: each question costs apt half a second."""

    LISTS = Path("/var/lib/apt/lists")

    def __init__(self, directory: Path) -> None:
        self.answers = directory / self._stamp()
        if not self.answers.is_dir():
            shutil.rmtree(directory, ignore_errors=True)
            self.answers.mkdir(parents=True, exist_ok=True)

    def _stamp(self) -> str:
        lists = sorted(p for p in self.LISTS.glob("*") if p.is_file()) if self.LISTS.is_dir() else []
        return hashlib.sha256(repr([(p.name, p.stat().st_mtime_ns) for p in lists]).encode()).hexdigest()[:16]

    def _ask(self, *command: str) -> str:
        answer = self.answers / hashlib.sha256("\0".join(command).encode()).hexdigest()[:24]
        if answer.is_file():
            return answer.read_text()
        output = run(command)
        if os.access(self.answers, os.W_OK):  # the demo looks at the cache from where nothing can be written
            fd, scratch = tempfile.mkstemp(dir=self.answers)
            with os.fdopen(fd, "w") as f:
                f.write(output)
            os.replace(scratch, answer)
        return output

    def names(self, pattern: str) -> tuple[str, ...]:
        listing = self._ask("apt-cache", "search", "--names-only", pattern)
        return tuple(line.split()[0] for line in listing.splitlines())

    def field(self, package: str, name: str) -> str:
        output = self._ask("apt-cache", "show", "--no-all-versions", package)
        return next((v for line in output.splitlines() if (v := line.removeprefix(f"{name}: ")) != line), "")

    def files(self, packages: Sequence[str]) -> tuple[Archived, ...]:
        """What apt would download. Raises CorpusError."""
        output = self._ask("apt-get", "download", "-q", "--print-uris", *packages)
        rows = [row for line in output.splitlines() if (row := re.match(r"'[^']+' (\S+) (\d+)", line))]
        by_name = {name: Archived(name, row[1], int(row[2])) for row in rows if (name := row[1].split("_", 1)[0])}
        missing = [p for p in packages if p not in by_name]
        if missing:
            raise CorpusError(f"the archive does not offer {', '.join(missing)}")
        return tuple(by_name[p] for p in packages)

    def flavours(self) -> tuple[str, ...]:
        """Smallest images first."""
        arch = self._ask("dpkg", "--print-architecture").strip()
        return (f"cloud-{arch}", arch, f"rt-{arch}")

    def kernels(self, flavour: str) -> tuple[str, ...]:
        """What there are headers of, newest first, in the series that the distribution installs by default."""
        default = ABI.search(self.field(f"linux-headers-{flavour}", "Depends"))
        exact = re.compile(r"[^a-z]*(\+deb\d+)?-" + re.escape(flavour))
        found = [m for n in self.names(f"^linux-headers-[0-9].*-{flavour}$") if (m := ABI.fullmatch(n))]
        mine = [m["krel"] for m in found if default and m["series"] == default["series"] and exact.fullmatch(m["krel"])]
        return tuple(sorted(mine, key=version_key, reverse=True))


def version_key(krel: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", krel))


class Corpus:
    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path(os.environ.get("AUTOKMOD_CACHE") or CHECKOUT / ".cache")
        for name in ("debs", "layers", "partial"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self.archive = Archive(self.directory / "answers")

    # ---- packages ----

    def layers(self, packages: Sequence[str]) -> tuple[Layer, ...]:
        """Download and unpack what is not there yet. Raises CorpusError."""
        wanted = self.archive.files(packages)
        layers = tuple(Layer(a.package, self.directory / "debs" / a.file, self._tree(a.file)) for a in wanted)
        if not all(layer.tree.is_dir() and layer.deb.is_file() for layer in layers):
            with self._locked():
                self._download(wanted)
                for layer in layers:
                    unpack(layer.deb, layer.tree)
        return layers

    def layer(self, package: str) -> Layer:
        return self.layers((package,))[0]

    def _tree(self, file: str) -> Path:
        return self.directory / "layers" / file.removesuffix(".deb")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.directory / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _download(self, wanted: Sequence[Archived]) -> None:
        """apt checks each file's hash, and goes on with a partial one; only whole files get to debs/."""
        missing = [a for a in wanted if not (self.directory / "debs" / a.file).is_file()]
        if not missing:
            return
        partial = self.directory / "partial"
        command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=", *(a.package for a in missing)]
        output = run(command, cwd=partial, timeout_s=1800)
        for a in missing:
            if not (partial / a.file).is_file() or (partial / a.file).stat().st_size != a.size:
                raise CorpusError(f"apt-get did not bring {a.file}: is the archive reachable?\n{output}")
            os.replace(partial / a.file, self.directory / "debs" / a.file)

    # ---- kernels ----

    def image(self, krel: str) -> Layer:
        return self.layer(f"linux-image-{krel}")

    def headers(self, krel: str) -> tuple[Layer, ...]:
        """The headers and what they lean on: the flavours' common part, and Kbuild's programs."""
        package = f"linux-headers-{krel}"
        depends = re.split(r"[,|]\s*", self.archive.field(package, "Depends"))
        names = [d.split()[0] for d in depends if d.strip()]
        return self.layers((package, *(n for n in names if n.startswith(("linux-headers-", "linux-kbuild-")))))

    def symvers(self, krel: str) -> Mapping[str, str]:
        """Symbol → CRC, from the headers' Module.symvers; only the small header package is downloaded."""
        tree = self.layer(f"linux-headers-{krel}").tree
        text = (tree / f"usr/src/linux-headers-{krel}/Module.symvers").read_text()
        rows = (line.split("\t") for line in text.splitlines())
        return {row[1]: row[0] for row in rows}

    @cached_property
    def trio(self) -> Trio:
        """Of the flavour with the smallest images that has one, newest kernels first. Raises CorpusError."""
        tried: list[str] = []
        for flavour in self.archive.flavours():
            krels = self.archive.kernels(flavour)
            found = self._trio_of(krels)
            if found:
                return found
            tried += krels
        among = ", ".join(tried) or "none at all"
        raise CorpusError(f"no two kernels with equal CRCs and a third one without, among: {among}")

    def _trio_of(self, krels: Sequence[str]) -> Trio | None:
        """`krels` newest first. Neighbours in age are the likeliest to be equal."""
        for newer, older in itertools.pairwise(krels):
            same = self.symvers(newer)
            if same == self.symvers(older):
                before, after = krels[: krels.index(newer)], krels[krels.index(older) + 1 :]
                other = next((k for k in (*reversed(before), *after) if self.symvers(k) != same), None)
                return Trio(older, newer, other) if other else None
        return None


def unpack(deb: Path, tree: Path) -> None:
    """Unpack as onto a system with merged /usr: lib/ means usr/lib/. Raises CorpusError."""
    if tree.is_dir():
        return
    scratch = Path(tempfile.mkdtemp(prefix=".", dir=tree.parent))
    try:
        extract(deb, scratch)
        scratch.chmod(0o755)
        scratch.rename(tree)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def extract(deb: Path, root: Path) -> None:
    """The package's files into `root`, in the package's order, through the merged-/usr links. Raises CorpusError."""
    made = [name for name in MERGED if not os.path.lexists(root / name)]
    for name in made:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as source:
        tar = ["tar", "-x", "--keep-directory-symlink", "-C", str(root)]
        sink = subprocess.run(tar, stdin=source.stdout, capture_output=True, text=True, timeout=600)
    if source.returncode != 0 or sink.returncode != 0:
        raise CorpusError(f"{deb} cannot be unpacked (delete it to have it downloaded again): {sink.stderr}")
    for name in made:
        (root / name).unlink()
        with contextlib.suppress(OSError):  # not empty: the package put something there
            (root / "usr" / name).rmdir()


def run(command: Sequence[str], *, cwd: Path | None = None, timeout_s: float = 120) -> str:
    """Standard output. Raises CorpusError with what the tool said."""
    what, devnull = " ".join(command), subprocess.DEVNULL
    try:
        done = subprocess.run(command, cwd=cwd, stdin=devnull, capture_output=True, text=True, timeout=timeout_s)
    except FileNotFoundError as exc:
        raise CorpusError(f"{command[0]} is not here: the corpus comes from Debian's archive, through apt") from exc
    except subprocess.TimeoutExpired as exc:
        raise CorpusError(f"{what} took longer than {timeout_s:.0f} s: is the archive reachable?") from exc
    if done.returncode != 0:
        raise CorpusError(f"{what} failed: {done.stderr.strip()}\n(are the package lists missing? apt-get update)")
    return done.stdout
