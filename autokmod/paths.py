"""Every location, from one root.

With a root other than "/", absolute symlinks below it mean what they would mean after chroot(2): `resolve`
follows them inside the root. Nothing else in autokmod spells out a system path.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autokmod.errors import FormatError

DEPMOD_D = ("etc/depmod.d", "run/depmod.d", "usr/local/lib/depmod.d", "usr/lib/depmod.d", "lib/depmod.d")
MAX_LINKS = 40  # as the kernel's MAXSYMLINKS
NO_LINK = (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class Paths:
    root: Path = Path("/")

    def at(self, path: str) -> Path:
        """The host path of `path` as seen from inside the root; no link is followed."""
        return self.root / path.lstrip("/")

    def inside(self, host: str | os.PathLike[str]) -> str:
        """The inverse of `at`: the absolute path that a program inside the root would use."""
        root, path = os.fspath(self.root), os.fspath(host)
        if root == "/":
            return path
        if path.startswith(f"{root}/") and not path.endswith("/") and "/." not in path and "//" not in path:
            return path[len(root) :]
        return "/" + os.path.relpath(path, root)

    def command(self, argv: Sequence[str]) -> tuple[str, ...]:
        """What starts this program inside the root."""
        return tuple(argv) if self.root == Path("/") else ("chroot", str(self.root), *argv)

    def resolve(self, path: str | os.PathLike[str]) -> Path:
        """A host path below the root with every link followed as chroot would follow it.

        Raises FormatError on a loop. The result need not exist.
        """
        root = os.fspath(self.root).rstrip("/")
        todo = [p for p in self.inside(path).split("/") if p][::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            text = _read_link("/".join((root, *done, part))) if part != "." else None
            if text is not None:
                links += 1
                if links > MAX_LINKS:
                    raise FormatError(os.fspath(path), "too many levels of symbolic links")
                done = [] if text.startswith("/") else done
                todo += [p for p in text.split("/") if p][::-1]
            elif part != ".":
                done.append(part)
        return self.root.joinpath(*done)

    # the machine's
    @property
    def modules(self) -> Path:
        merged = self.at("usr/lib/modules")
        return merged if merged.is_dir() or self.at("lib").is_symlink() else self.at("lib/modules")

    def modulesd(self, krel: str) -> Path:
        return self.modules / krel

    @property
    def usr_src(self) -> Path:
        return self.at("usr/src")

    @property
    def boot(self) -> Path:
        return self.at("boot")

    @property
    def depmod_d(self) -> tuple[Path, ...]:
        """In order of precedence: a file in an earlier directory masks its namesake in a later one."""
        return tuple(self.at(d) for d in DEPMOD_D)

    # autokmod's own
    @property
    def etc(self) -> Path:
        return self.at("etc/autokmod")

    @property
    def vendor(self) -> Path:
        return self.at("usr/lib/autokmod")

    @property
    def packages_d(self) -> Path:
        return self.etc / "packages.d"

    @property
    def state(self) -> Path:
        return self.at("var/lib/autokmod")

    @property
    def spool(self) -> Path:
        return self.state / "spool"

    @property
    def queue(self) -> Path:
        """What the daemon knows of its jobs beside the spool: numbers and attempts."""
        return self.state / "queue.json"

    @property
    def builds(self) -> Path:
        return self.state / "builds"

    @property
    def work(self) -> Path:
        """Private directories of running builds; emptied at start."""
        return self.state / "work"

    @property
    def cache(self) -> Path:
        """May be deleted at any time: digests of files by stat, evaluated recipes, parsed symvers."""
        return self.at("var/cache/autokmod")

    @property
    def kernels(self) -> Path:
        return self.state / "kernels"

    def record(self, krel: str) -> Path:
        return self.kernels / f"{krel}.json"

    @property
    def boot_guard(self) -> Path:
        """Which boot entry was put in another's place, and until when."""
        return self.state / "bootguard.json"

    @property
    def keys(self) -> Path:
        """autokmod's own signing key, for root alone; no build sees /var."""
        return self.state / "keys"

    @property
    def adopted(self) -> Path:
        """What was taken over from DKMS, and how to give it back."""
        return self.state / "adopted.json"

    @property
    def lock(self) -> Path:
        """Held (flock) while modules directories are being changed: daemon, hook and --oneshot exclude each other."""
        return self.state / "lock"

    @property
    def build_lock(self) -> Path:
        """Held (flock) while packages of one kernel are being compiled: one process at a time spends job tokens.

        Taken before `lock` where both are needed.
        """
        return self.state / "build.lock"

    @property
    def daemon_lock(self) -> Path:
        """Held (flock) by the daemon as long as it lives. Only root may open it: others look into /proc/locks."""
        return self.at("run/autokmod/daemon.lock")

    def own_dir(self, krel: str, package: str) -> Path:
        return self.modulesd(krel) / OWN / package

    def link_dir(self, krel: str, package: str) -> Path:
        return self.modulesd(krel) / WEAK / package


OWN = "updates/autokmod"
WEAK = "weak-updates/autokmod"


def _read_link(path: str) -> str | None:
    """None for what is no link."""
    try:
        return os.readlink(path)
    except OSError as exc:
        if exc.errno in NO_LINK:
            return None
        raise
