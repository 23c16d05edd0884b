"""The archive's own DKMS on a real root: what it makes of every *-dkms package of the archive, on one kernel.

That takes minutes, and depends on nothing but the .debs of DKMS, of the packages and of the headers, and on the
compiler: outcomes are kept in the corpus' cache by these.

    python -m tests.dkms KREL…    fill the cache
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tests import realroot
from tests.corpus import Corpus, Layer
from tests.cost import Cost, measured

FORMAT = 1
DKMS = "dkms"
NOT_MODULES = ("dh-dkms",)  # what builds packages
# A compiler's first complaint. On purpose not autokmod's own reading of logs, with which it is compared.
ERROR = re.compile(r"^(?P<file>[^\s:]+):(?P<line>\d+):(?:\d+:)? (?:fatal )?error: (?P<text>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one package on one kernel, by DKMS."""

    package: str  # Debian's name
    id: str  # NAME/VERSION
    state: str  # installed, failed, or untouched: excluded by itself, or without AUTOINSTALL
    modules: tuple[str, ...] = ()  # file names without .ko that it put into the modules directory
    log: str = ""  # make.log of a failure


def packages(corpus: Corpus) -> tuple[str, ...]:
    """Every one of the archive, in name order."""
    return tuple(sorted(n for n in corpus.archive.names(".*-dkms$") if n.endswith("-dkms") and n not in NOT_MODULES))


def source_of(layer: Layer) -> str:
    """NAME-VERSION, the directory in /usr/src."""
    return next((layer.tree / "usr/src").glob("*/dkms.conf")).parent.name


# ---- running it ----------------------------------------------------------------------------------


def add_all(root: realroot.RealRoot, sources: Sequence[str]) -> None:
    """As the packages' postinst does."""
    (root.path / "var/lib/dkms").mkdir()
    for source in sources:
        done = root.chroot("dkms", "add", f"/usr/src/{source}")
        if done.returncode != 0:
            raise AssertionError(f"dkms add {source}: {done.stdout}")


def autoinstall(root: realroot.RealRoot, krel: str, log: Path) -> Cost:
    """It ends with 0 or, where a package failed, with something else."""
    return measured(["chroot", str(root.path), "dkms", "autoinstall", "--kernelver", krel], log)


def outcomes(root: realroot.RealRoot, krel: str, sources: Mapping[str, str]) -> Iterator[Outcome]:
    """`sources`: Debian package → NAME-VERSION."""
    ids = ["/".join(home.parts[-2:]) for home in (root.path / "var/lib/dkms").glob("*/*") if home.is_dir()]
    by_source = {id_.replace("/", "-"): id_ for id_ in ids}
    said = root.chroot("dkms", "status", "-k", krel).stdout
    installed = {m[1] for m in re.finditer(rf"^(\S+), {re.escape(krel)}, \S+: installed", said, re.MULTILINE)}
    for package, source in sources.items():
        yield _outcome(root, krel, package, by_source[source], installed)


def _outcome(root: realroot.RealRoot, krel: str, package: str, id_: str, installed: set[str]) -> Outcome:
    home = root.path / "var/lib/dkms" / id_
    log = home / "build/make.log"
    if id_ in installed:
        names = {file.name.partition(".ko")[0] for file in home.glob(f"{krel}/*/module/*.ko*")}
        there = {file.name.partition(".ko")[0] for file in root.paths.modulesd(krel).glob("updates/dkms/*.ko*")}
        return Outcome(package, id_, "installed", tuple(sorted(names & there)))
    if log.is_file():
        return Outcome(package, id_, "failed", log=log.read_text(errors="replace"))
    return Outcome(package, id_, "untouched")


# ---- remembering it ------------------------------------------------------------------------------


def reference(corpus: Corpus, krel: str, names: Sequence[str]) -> dict[str, Outcome]:
    """Debian package → outcome. DKMS runs for those that are not known."""
    known = {name: outcome for name in names if (outcome := recall(corpus, krel, name)) is not None}
    missing = [name for name in names if name not in known]
    if missing:
        with (
            tempfile.TemporaryDirectory() as scratch,
            realroot.made(Path(scratch), corpus, kernels=(krel,), packages=(DKMS, *missing)) as root,
        ):
            sources = {name: source_of(corpus.layer(name)) for name in missing}
            add_all(root, tuple(sources.values()))
            autoinstall(root, krel, root.path / "var/log/autoinstall")
            known |= {o.package: keep(corpus, krel, o) for o in outcomes(root, krel, sources)}
    return {name: known[name] for name in names}


def recall(corpus: Corpus, krel: str, package: str) -> Outcome | None:
    place = _place(corpus, krel, package)
    if not place.is_file():
        return None
    value = json.loads(place.read_text())
    return Outcome(**{**value, "modules": tuple(value["modules"])})


def keep(corpus: Corpus, krel: str, outcome: Outcome) -> Outcome:
    place = _place(corpus, krel, outcome.package)
    place.parent.mkdir(exist_ok=True)
    scratch = place.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(outcome), indent=1))
    scratch.rename(place)
    return outcome


def _place(corpus: Corpus, krel: str, package: str) -> Path:
    layers = (*map(corpus.layer, (DKMS, package)), corpus.image(krel), *corpus.headers(krel))
    inputs = (str(FORMAT), _compiler(), *(layer.deb.name for layer in layers))
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]
    return corpus.directory / "dkms" / f"{package}-{krel}-{digest}.json"


@cache
def _compiler() -> str:
    return subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def main() -> int:
    corpus = Corpus()
    for krel in sys.argv[1:]:
        for outcome in reference(corpus, krel, packages(corpus)).values():
            error = ERROR.search(outcome.log)
            said = error[0] if error else ", ".join(outcome.modules)
            print(f"{krel}  {outcome.package:<28} {outcome.state:<10} {said}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
