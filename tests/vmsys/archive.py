"""A package archive for a machine without a network, on a disk of its own.

Real packages go in as they are, but for their compression: an emulated machine would unpack for minutes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.corpus import run

TOOL_S = 600


@dataclass(frozen=True, slots=True)
class Archive:
    """A flat apt repository."""

    directory: Path

    def files(self) -> list[Path]:
        return sorted(self.directory.glob("*.deb"))

    def version(self, package: str) -> str:
        """Of the first that was added."""
        return next(f.name.split("_")[1] for f in self.files() if f.name.split("_")[0] == package)

    def add(self, deb: Path) -> None:
        """The package with all its files and maintainer scripts, uncompressed. Raises CorpusError."""
        target = self.directory / deb.name
        if not target.exists():
            with scratch_directory(self.directory) as tree:
                run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], timeout_s=TOOL_S)
                build_deb(tree, target)

    def add_source(self, name: str, version: str, source: Path, edit: Mapping[str, str] | None = None) -> None:
        """What a *-dkms package puts into /usr/src, without DKMS to depend on. `edit`: text of its files → other text.

        Raises CorpusError.
        """
        target = self.directory / f"{name}-source_{version}_all.deb"
        if target.exists():
            return
        with scratch_directory(self.directory) as tree:
            placed = tree / "usr/src" / f"{name}-{version}"
            shutil.copytree(source, placed, symlinks=True)
            for old, new in (edit or {}).items():
                _replace(placed, old, new)
            (tree / "DEBIAN").mkdir()
            (tree / "DEBIAN/control").write_text(_control(f"{name}-source", version))
            build_deb(tree, target)

    def write_disk(self) -> Path:
        """A file system with all of it, and what `apt-get update` reads. Raises CorpusError."""
        index = self.directory / "Packages"
        index.write_text("\n".join(_stanza(deb) for deb in self.files()))
        disk = self.directory.parent / f"archive-{digest(index.read_text())}.img"
        if not disk.exists():
            forget(disk.parent.glob("archive-*.img"))
            make_disk(self.directory, disk, 64 + (sum(f.stat().st_size for f in self.files()) * 11 // 10 >> 20))
        return disk


@contextlib.contextmanager
def scratch_directory(beside: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=beside, prefix=".") as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir(mode=0o755)
        yield tree


def build_deb(tree: Path, target: Path) -> None:
    """Raises CorpusError."""
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), f"{target}.new"]
    run(command, timeout_s=TOOL_S)
    os.replace(f"{target}.new", target)


def make_disk(tree: Path, image: Path, size_mib: int) -> None:
    """An ext4 file system with the tree's content, without mounting anything. Raises CorpusError."""
    scratch = Path(f"{image}.new")
    scratch.unlink(missing_ok=True)
    options = "lazy_itable_init=1,lazy_journal_init=1"
    command = ["mke2fs", "-q", "-t", "ext4", "-E", options, "-m", "0", "-d", str(tree), str(scratch), f"{size_mib}M"]
    run(command, timeout_s=TOOL_S)
    os.replace(scratch, image)


def digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def forget(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink()


def _replace(tree: Path, old: str, new: str) -> None:
    for path in tree.rglob("*"):
        if path.is_file() and old.encode() in (before := path.read_bytes()):
            path.write_bytes(before.replace(old.encode(), new.encode()))


def _control(package: str, version: str) -> str:
    fields = {"Package": package, "Version": version, "Architecture": "all", "Maintainer": "nobody <nobody@invalid>"}
    return "".join(f"{k}: {v}\n" for k, v in fields.items()) + "Description: for tests\n"


def _stanza(deb: Path) -> str:
    fields = subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, text=True, check=True).stdout
    with open(deb, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{fields}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {checksum}\n"
