"""A whole system to work on, without copying one: an overlay for each top directory.

usr/ is the host's, below it nothing of the host's kernels and sources (opaque directories hide them), above it the
layers of the corpus, topmost a tmpfs that takes every write. An overlay of / itself would fail with ELOOP as soon as
it lies inside what it shows, hence one for each top directory. All mounts live in a mount namespace of this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from autokmod.paths import Paths
from tests.corpus import CHECKOUT, MERGED, Corpus, Layer, extract

BUILD_USER = "autokmod-build"
BUILD_UID = 64917  # of no system's own range: below it ends what adduser gives, above it is nobody
PLAIN = ("boot", "dev", "home", "proc", "root", "run", "sys", "tmp", "var/cache", "var/lib", "var/log", "var/tmp")
HIDDEN_USR = ("lib/modules", "lib/autokmod", "src")
HIDDEN_ETC = ("autokmod", "depmod.d", "dkms", "kernel")
TOPS = (("usr", HIDDEN_USR, Path("/usr")), ("etc", HIDDEN_ETC, Path("/etc")), ("boot", (), None))
CLONE_NEWNS = 0x00020000


@dataclass(frozen=True, slots=True)
class RealRoot:
    path: Path
    corpus: Corpus

    @property
    def paths(self) -> Paths:
        return Paths(self.path)

    def add_kernel(self, krel: str, *, image: bool = True, headers: bool = True) -> None:
        """Unpack it now, file by file, in the packages' order: headers first, as apt often does."""
        for layer in self.corpus.headers(krel) if headers else ():
            extract(layer.deb, self.path)
        if image:
            extract(self.corpus.image(krel).deb, self.path)

    def add_package(self, package: str) -> None:
        extract(self.corpus.layer(package).deb, self.path)

    def add_source(self, name: str, version: str, files: dict[str, str]) -> Path:
        """/usr/src/NAME-VERSION with these files, made for a test."""
        source = self.paths.usr_src / f"{name}-{version}"
        for file, text in files.items():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_text(text)
        return source

    def install_autokmod(self) -> None:
        """As a package would: the program, the hooks, the service's files."""
        command = ["make", "-s", "-C", str(CHECKOUT), "install", f"DESTDIR={self.path}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def remove_kernel(self, krel: str, *, image: bool = True, headers: bool = True) -> None:
        """As dpkg does: its own files, and directories that this leaves empty; what others put there stays."""
        if headers:
            self._remove_files(self.corpus.layer(f"linux-headers-{krel}"))
        if image:
            self._remove_files(self.corpus.image(krel))
            for made in self.paths.modulesd(krel).glob("modules.*"):  # by depmod: the image's postrm does this
                made.unlink()
            with contextlib.suppress(OSError):
                self.paths.modulesd(krel).rmdir()

    def _remove_files(self, layer: Layer) -> None:
        listing = subprocess.run(
            f'dpkg-deb --fsys-tarfile "{layer.deb}" | tar -t', shell=True, check=True, capture_output=True, text=True
        )
        for name in reversed(listing.stdout.splitlines()):
            path = self.path / name
            if not name.endswith("/"):
                path.unlink(missing_ok=True)
            elif path.is_dir() and path.parent != self.path:
                with contextlib.suppress(OSError):
                    path.rmdir()

    def chroot(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of this system inside it. Standard error comes with standard output."""
        if not (self.path / "proc/self").exists():
            mount("-t", "proc", "proc", str(self.path / "proc"))
            mount("--rbind", "/dev", str(self.path / "dev"))
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            ["chroot", str(self.path), *argv],
            env={**path, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )


@contextlib.contextmanager
def made(
    scratch: Path, corpus: Corpus, *, kernels: Sequence[str] = (), packages: Sequence[str] = ()
) -> Iterator[RealRoot]:
    """A root that has these kernels (image and headers) and *-dkms packages. `scratch` is an empty directory."""
    layers = {layer.tree: layer for krel in kernels for layer in (corpus.image(krel), *corpus.headers(krel))}
    layers |= {layer.tree: layer for layer in map(corpus.layer, packages)}
    private_mounts()
    let_others_in(scratch)
    mount("-t", "tmpfs", "-o", "mode=755", "autokmod-test", str(scratch))
    try:
        root = scratch / "root"
        for name in PLAIN:
            (root / name).mkdir(parents=True)
        for name in ("tmp", "var/tmp"):
            (root / name).chmod(0o1777)
        for top, hidden, host in TOPS:
            trees = [t / top for t in layers]
            overlay(scratch / "overlay" / top, root / top, trees=trees, hidden=hidden, host=host)
        for name in MERGED:
            if (root / "usr" / name).is_dir():
                (root / name).symlink_to(f"usr/{name}")
        add_build_user(root)
        yield RealRoot(root, corpus)
    finally:
        _unmount(scratch)


def _unmount(tree: Path) -> None:
    """A process that was just killed may still be leaving, on a machine that has other work."""
    done = subprocess.run(["umount", "--recursive", str(tree)], capture_output=True)
    if done.returncode != 0:
        subprocess.run(["umount", "--recursive", "--lazy", str(tree)], check=True)


def overlay(
    side: Path, target: Path, *, trees: Sequence[Path] = (), hidden: Sequence[str] = (), host: Path | None = None
) -> None:
    """Mount on `target`, topmost first: what is written (kept in `side`), the trees, the host's without `hidden`.

    Layers go by short relative names: mount(2) takes one page of options at most.
    """
    for name in ("upper", "work", "hide"):
        (side / name).mkdir(parents=True)
    for name in hidden:
        (side / "hide" / name).mkdir(parents=True)
        os.setxattr(side / "hide" / name, "trusted.overlay.opaque", b"y")
    lower = [t for t in trees if t.is_dir()] + [side / "hide"] + ([host] if host else [])
    for i, tree in enumerate(lower):
        (side / str(i)).symlink_to(tree)
    target.mkdir(exist_ok=True)
    names = ":".join(str(i) for i in range(len(lower)))
    mount("-t", "overlay", "-o", f"lowerdir={names},upperdir=upper,workdir=work", "overlay", str(target), cwd=side)


def let_others_in(scratch: Path) -> None:
    """The build user has to reach the root, and pytest closes its directories to others."""
    top = Path(tempfile.gettempdir())
    for directory in scratch.parents:
        if directory.is_relative_to(top) and directory != top:
            directory.chmod(directory.stat().st_mode | 0o011)


def add_build_user(root: Path) -> None:
    """Unless the host has it already: its /etc shows through."""
    with contextlib.suppress(KeyError):
        pwd.getpwnam(BUILD_USER)
        return
    with open(root / "etc/passwd", "a", encoding="utf-8") as f:
        f.write(f"{BUILD_USER}:x:{BUILD_UID}:{BUILD_UID}:builds kernel modules:/nonexistent:/usr/sbin/nologin\n")
    with open(root / "etc/group", "a", encoding="utf-8") as f:
        f.write(f"{BUILD_USER}:x:{BUILD_UID}:\n")


def mount(*args: str, cwd: Path | None = None) -> None:
    done = subprocess.run(["mount", *args], cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"mount {' '.join(args)}: {done.stderr.strip()}")


@cache
def private_mounts() -> None:
    """Leave the host's mount namespace, once: whatever becomes of this process, its mounts go with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    mount("--make-rprivate", "/")


def is_possible() -> str | None:
    """Why no such root can be made here; None if it can."""
    if os.geteuid() != 0:
        return "needs root, to mount overlays"
    missing = [tool for tool in ("mount", "umount", "dpkg-deb", "tar", "apt-get") if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}" if missing else None
