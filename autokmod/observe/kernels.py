"""Kernels, by what is on disk: a directory below /lib/modules is not yet a kernel.

Debian's linux-headers alone makes a directory that holds only `build` and `source`; a package manager in the middle
of its work leaves files under temporary names; files are unpacked in name order, so that modules.order comes last.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from autokmod.errors import FormatError, UnknownKernel
from autokmod.files import read_regular
from autokmod.model import Kernel, KernelState, Reason
from autokmod.paths import Paths

# What `make M=` cannot do without, each where Kbuild looks for it.
HEADER_PARTS = (
    "Makefile",
    "include/config/auto.conf",
    "include/generated/autoconf.h",
    "Module.symvers",
    "scripts/mod/modpost",
)
MODULE_PARTS = ("kernel", "modules.order", "modules.builtin")
# dpkg unpacks to NAME.dpkg-new; rpm to NAME;HEX (rpm's fsm.c).
DPKG_SUFFIXES = (".dpkg-new", ".dpkg-tmp")
KREL_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+~-")


def is_krel(text: str) -> bool:
    """Whether `text` may be a kernel release: also what keeps `..` and `/` out of every path made of one."""
    return 0 < len(text) <= 128 and text[0] not in ".-" and KREL_CHARS.issuperset(text)


def find_kernels(paths: Paths) -> tuple[Kernel, ...]:
    """Every directory below /lib/modules, in name order; none where that directory is missing."""
    return tuple(_read(paths, krel) for krel in list_krels(paths))


def list_krels(paths: Paths) -> tuple[str, ...]:
    """The names alone: nothing of the kernels is looked at."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = [e.name for e in os.scandir(paths.modules) if e.is_dir(follow_symlinks=False)]
        return tuple(sorted(name for name in found if is_krel(name)))
    return ()


def read_kernel(paths: Paths, krel: str) -> Kernel:
    """Raises UnknownKernel."""
    if not is_krel(krel) or not paths.modulesd(krel).is_dir():
        raise UnknownKernel(krel)
    return _read(paths, krel)


def is_remains(kernel: Kernel) -> bool:
    """What a removed linux-image of Debian leaves until it is purged: depmod's index and nothing else."""
    if kernel.state is not KernelState.HEADERS_ONLY:
        return False
    try:
        return all(e.name.startswith("modules.") and e.is_file() for e in os.scandir(kernel.modulesd))
    except OSError:
        return False


def _read(paths: Paths, krel: str) -> Kernel:
    modulesd = paths.modulesd(krel)
    kdir, header_problems = _headers(paths, krel)
    module_problems = _modules(modulesd)
    image = _image(paths, krel)
    if not any((modulesd / part).exists() for part in MODULE_PARTS):
        state, problems = KernelState.HEADERS_ONLY, [_headers_only(krel)]
    elif module_problems:
        state, problems = KernelState.INCOMPLETE, module_problems
    elif header_problems:
        state, problems = KernelState.NO_HEADERS, header_problems
    elif image is None:
        state, problems = KernelState.NO_IMAGE, [_no_image(krel)]
    else:
        state, problems = KernelState.COMPLETE, []
    usable = kdir if not header_problems else None
    source = _source(paths, krel) if kdir is not None else None
    installed_at = _installed_at(modulesd, image)
    changed_at = max(installed_at, _headers_changed_at(modulesd, kdir, source))
    return Kernel(krel, state, str(modulesd), usable, image, tuple(problems), changed_at, installed_at)


def _headers_only(krel: str) -> Reason:
    return Reason("headers-only", f"only headers are here, no modules: nothing boots {krel}")


def _no_image(krel: str) -> Reason:
    return Reason("no-image", f"no boot image: neither /boot/vmlinuz-{krel} nor /lib/modules/{krel}/vmlinuz is there")


def _headers(paths: Paths, krel: str) -> tuple[str | None, list[Reason]]:
    """The kernel build directory, and what it lacks."""
    link = paths.modulesd(krel) / "build"
    hint = f"install the headers of this kernel: on Debian, apt-get install linux-headers-{krel}"
    if not os.path.lexists(link):
        return None, [Reason("headers-missing", "the kernel's headers are not installed", hint=hint)]
    try:
        kdir = paths.resolve(link)
    except FormatError as exc:
        return None, [Reason("headers-broken", str(exc), hint=hint)]
    if not kdir.is_dir():
        text = f"headers are not installed: the build link leads to {paths.inside(kdir)}, which is not there"
        return None, [Reason("headers-missing", text, hint=hint)]
    return str(kdir), list(_header_problems(paths, kdir, krel, hint))


def _header_problems(paths: Paths, kdir: Path, krel: str, hint: str) -> Iterator[Reason]:
    where = paths.inside(kdir)
    missing = [part for part in HEADER_PARTS if not _is_there(paths, kdir / part)]
    if missing:
        yield Reason("headers-incomplete", f"the headers in {where} lack {', '.join(missing)}", hint=hint)
    yield from _source_problems(paths, kdir, krel, hint)
    if _in_transit(kdir):
        yield Reason("headers-incomplete", f"the package manager is still unpacking {where}")
    release = _release(kdir)
    if release not in (None, krel):
        yield Reason("headers-other-kernel", f"the headers in {where} are those of {release}", hint=hint)


def _source_problems(paths: Paths, kdir: Path, krel: str, hint: str) -> Iterator[Reason]:
    """Debian's and SUSE's headers lie in two directories, and come in two packages: `source` leads to the other one."""
    source = _source(paths, krel)
    if source is None or source == kdir:
        return
    if not (source / "Makefile").is_file():
        text = f"the headers need those in {paths.inside(source)}, which are not there"
        yield Reason("headers-incomplete", text, hint=hint)
    elif _in_transit(source):
        yield Reason("headers-incomplete", f"the package manager is still unpacking {paths.inside(source)}")


def _source(paths: Paths, krel: str) -> Path | None:
    link = paths.modulesd(krel) / "source"
    with contextlib.suppress(FormatError):
        return paths.resolve(link) if link.is_symlink() else None
    return None


def _is_there(paths: Paths, path: Path) -> bool:
    try:
        found = paths.resolve(path)
        return found.exists() and (found.name != "Module.symvers" or found.stat().st_size > 0)
    except (FormatError, PermissionError):
        return False


def _release(kdir: Path) -> str | None:
    """What the headers say that they are for; None where they do not say.

    Not include/config/kernel.release: Debian's holds the upstream version there.
    """
    try:
        text = read_regular(kdir / "include/generated/utsrelease.h").decode("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r'^#define UTS_RELEASE "([^"\n]{1,128})"', text, re.MULTILINE)
    return found.group(1) if found else None


def _modules(modulesd: Path) -> list[Reason]:
    missing = [part for part in MODULE_PARTS if not (modulesd / part).exists()]
    if missing:
        text = f"the modules directory lacks {', '.join(missing)}: it is being unpacked or removed, or is damaged"
        return [Reason("modules-incomplete", text)]
    if _in_transit(modulesd):
        return [Reason("modules-incomplete", "the package manager is still unpacking the modules directory")]
    return []


def _in_transit(directory: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return any(e.name.endswith(DPKG_SUFFIXES) or ";" in e.name for e in os.scandir(directory))
    return False


def _image(paths: Paths, krel: str) -> str | None:
    candidates = (
        paths.boot / f"vmlinuz-{krel}",
        paths.boot / f"vmlinux-{krel}",
        paths.boot / f"Image-{krel}",
        paths.boot / f"kernel-{krel}",
        paths.modulesd(krel) / "vmlinuz",
    )
    return next((str(c) for c in candidates if c.exists()), None)


def _installed_at(modulesd: Path, image: str | None) -> float:
    """The newest ctime of what unpacking touches; not of the modules directory itself, which depmod writes to."""
    looked_at = [*(modulesd / part for part in MODULE_PARTS), *([Path(image)] if image else [])]
    return _newest(looked_at)


def _headers_changed_at(modulesd: Path, kdir: str | None, source: Path | None) -> float:
    looked_at = [modulesd / "build"]
    if kdir is not None:
        looked_at += [Path(kdir), *(Path(kdir) / part for part in HEADER_PARTS)]
    if source is not None:
        looked_at += [source, source / "Makefile"]
    return _newest(looked_at)


def _newest(paths: list[Path]) -> float:
    return max((t for t in map(_ctime, paths) if t is not None), default=0.0)


def _ctime(path: Path) -> float | None:
    try:
        return os.lstat(path).st_ctime
    except OSError:
        return None
