"""The symbols that a distribution promises to keep, where it installed such a list (kernel-abi-stablelists of RHEL).

    /lib/modules/kabi-rhel94/kabi_stablelist_x86_64     one list a release; kabi_whitelist_ARCH before RHEL 8.5
    /lib/modules/kabi-current → kabi-rhel94             the newest

    [rhel9_x86_64_stablelist]
            __kmalloc

From RHEL 9 on a list holds for one minor release; before, for all of the major release that follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.model import Stablelist
from autokmod.observe.blob import read_bounded
from autokmod.paths import Paths
from autokmod.release import PER_MINOR, rhel_release

LIMIT = 4 << 20
NAMES = ("kabi_stablelist_", "kabi_whitelist_")


def read_stablelist(paths: Paths, krel: str) -> Stablelist | None:
    """None where the distribution has none, or none for this kernel."""
    for file in _files(paths, krel):
        where = paths.inside(file)
        try:
            return Stablelist(where, parse_stablelist(read_bounded(file, limit=LIMIT), where))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (FormatError, OSError) as exc:
            return Stablelist(where, frozenset(), str(exc))
    return None


def _files(paths: Paths, krel: str) -> Iterator[Path]:
    release = rhel_release(krel)
    if release is None:
        return
    major, minor, arch = release
    directories = [f"kabi-rhel{major}{minor}"] if minor is not None else []
    current = paths.resolve(paths.modules / "kabi-current")
    if (major < PER_MINOR or minor is None) and current.name.startswith(f"kabi-rhel{major}"):
        directories.insert(0, current.name)
    yield from (paths.modules / directory / f"{name}{arch}" for directory in directories for name in NAMES)


def parse_stablelist(data: bytes, path: str) -> frozenset[str]:
    """Raises FormatError that names the first bad line. An empty list is one: RHEL 9.0's."""
    symbols = set()
    for number, line in enumerate(data.split(b"\n"), 1):
        word = line.strip()
        if not word or word.startswith((b"[", b"#")):
            continue
        if not word.isascii() or any(c <= 0x20 or c == 0x7F for c in word):
            raise FormatError(path, f"line {number} is not a symbol")
        symbols.add(word.decode("ascii"))
    return frozenset(symbols)
