"""One kernel's packages dressed as another release: what a distribution does that changes symbols and not the release.

Debian does not, so it has to be made: every file, name, maintainer script and module says the other release, of equal
length. Symbols and CRCs stay those of the kernel that it is.
"""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

from tests.corpus import CorpusError, run
from tests.vmsys.archive import Archive, build_deb, scratch_directory

SIGNATURE = b"~Module signature appended~\n"
# linux/Documentation/arch/x86/boot.rst
SETUP_SECTS, PAYLOAD_OFFSET = 0x1F1, 0x248
SECTOR = 512
SIZE = 4  # behind the packed kernel: how large it is unpacked
LITERAL = 6  # so much of a string is likely to be in one piece


def redress(archive: Archive, krel: str, as_krel: str, version: str) -> None:
    """Add `krel`'s image and headers under the name of `as_krel`, in this version. Raises CorpusError."""
    if len(krel) != len(as_krel):
        raise CorpusError(f"{krel} cannot be dressed as {as_krel}: their names are not of one length")
    for kind in ("image", "headers"):
        (deb,) = archive.directory.glob(f"linux-{kind}-{krel}_*.deb")
        target = archive.directory / f"linux-{kind}-{as_krel}_{version}_{deb.stem.rsplit('_', 1)[1]}.deb"
        if not target.exists():
            with scratch_directory(archive.directory) as tree:
                run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], timeout_s=600)
                rename(tree, krel.encode(), as_krel.encode())
                _set_version(tree / "DEBIAN/control", version)
                build_deb(tree, target)


def _set_version(control: Path, version: str) -> None:
    lines = [f"Version: {version}" if x.startswith("Version:") else x for x in control.read_text().splitlines()]
    control.write_text("\n".join(lines) + "\n")


def rename(tree: Path, old: bytes, new: bytes) -> None:
    for directory, names, files in os.walk(os.fsencode(tree), topdown=False):
        for name in (*files, *names):
            path = os.path.join(directory, name)
            if os.path.islink(path):
                _relink(path, old, new)
            elif name in files:
                _rewrite(Path(os.fsdecode(path)), old, new)
            if old in name:
                os.rename(path, os.path.join(directory, name.replace(old, new)))


def _relink(path: bytes, old: bytes, new: bytes) -> None:
    target = os.readlink(path)
    if old in target:
        os.unlink(path)
        os.symlink(target.replace(old, new), path)


def _rewrite(path: Path, old: bytes, new: bytes) -> None:
    before = path.read_bytes()
    after = unsigned(before) if path.suffix == ".ko" else before
    if path.name.startswith("vmlinuz-"):
        after = _redressed(after, old, new)
    after = after.replace(old, new)
    if after != before:
        path.write_bytes(after)


def unsigned(module: bytes) -> bytes:
    """A changed module with a signature is refused; one without is loaded."""
    if not module.endswith(SIGNATURE):
        return module
    (size,) = struct.unpack(">I", module[-len(SIGNATURE) - 4 : -len(SIGNATURE)])
    return module[: -len(SIGNATURE) - 12 - size]


def _redressed(image: bytes, old: bytes, new: bytes) -> bytes:
    """A bzImage, packed with lz4: what it says of itself stands in it nearly as it is, whole or in parts.

    Raises CorpusError where that does not do.
    """
    offset, length = struct.unpack_from("<II", image, PAYLOAD_OFFSET)
    start = (image[SETUP_SECTS] + 1) * SECTOR + offset
    packed = image[start : start + length - SIZE]
    changed = packed
    first = next(i for i in range(len(old)) if old[i] != new[i])
    last = max(i for i in range(len(old)) if old[i] != new[i]) + 1
    number = old.rfind(b"-", 0, first) + 1
    for part in (slice(0, last), slice(number, last + LITERAL)):
        changed = changed.replace(old[part], new[part])
    if _unpacked(changed) != _unpacked(packed).replace(old, new):
        raise CorpusError(f"the kernel {old.decode()} cannot be dressed as {new.decode()}")
    return image[:start] + changed + image[start + length - SIZE :]


def _unpacked(packed: bytes) -> bytes:
    done = subprocess.run(["lz4", "-dc"], input=packed, capture_output=True)
    if done.returncode != 0 or not done.stdout:
        raise CorpusError(f"the kernel image is not packed with lz4: {done.stderr.decode(errors='replace')}")
    return done.stdout
