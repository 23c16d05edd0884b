"""The directory in which one package is built for one kernel, and what of it the sandbox shows.

WORK/                        root's; what is not below dkms/ is never written by the build
WORK/log                     all output
WORK/dkms/                   the build user's, /var/lib/dkms inside
WORK/dkms/NAME/VERSION/build the copy; also at /usr/src/NAME-VERSION, where some packages write as root would
WORK/dkms/NAME/VERSION/source            → /usr/src/NAME-VERSION
WORK/dkms/NAME/VERSION/KREL/ARCH/module/   results
WORK/dkms/.patches/          the administrator's
WORK/dkms/DEP/…              what the builds of BUILD_DEPENDS left, for their users
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autokmod.act.buildscript import PATCHES
from autokmod.act.copytree import copy_tree
from autokmod.act.store import SYMVERS
from autokmod.config import Config
from autokmod.model import Build, Kernel, KernelAbi, Package, Recipe
from autokmod.observe.dkmsconf import kernel_arch
from autokmod.observe.dkmseval import DKMS_TREE, dkms_variables
from autokmod.observe.sources import package_digest, patches_directory
from autokmod.observe.toolchain import Toolchain, exported
from autokmod.observe.tree import Tree, read_tree
from autokmod.paths import Paths
from autokmod.sandbox import closed_directory, kernel_mounts, open_sandbox
from autokmod.sandboxcmd import Mount, Sandbox, User


@dataclass(frozen=True, slots=True)
class Order:
    """All that one build is about."""

    paths: Paths
    config: Config
    package: Package
    recipe: Recipe
    kernel: Kernel
    abi: KernelAbi
    toolchain: Toolchain
    depends: tuple[Build, ...]

    @property
    def arch(self) -> str:
        return kernel_arch(self.abi)

    @property
    def home(self) -> tuple[str, ...]:
        """The package's, below WORK."""
        return ("dkms", self.package.name, self.package.version)

    @property
    def place(self) -> tuple[str, ...]:
        """Of the results, below WORK."""
        return (*self.home, self.kernel.krel, self.arch)


def prepare(order: Order, work: Path, user: User | None) -> bool:
    """Whether the copy is the source that was asked for. OSError travels."""
    package, paths = order.package, order.paths
    tree = read_tree(paths.resolve(package.source))
    home = _make(work, order.home, user)
    copy_tree(tree, home / "build", user)
    (home / "source").symlink_to(paths.inside(package.source))
    _make(work, order.place, user)
    for build in order.depends:
        _offer(order, build, work, user)
    copied = read_tree(home / "build")
    _add_patches(order, work)
    return tree.problem is None and _is_as_asked(order, copied)


def _is_as_asked(order: Order, copied: Tree) -> bool:
    package = order.package
    return package_digest(order.paths, order.config, copied, package.name, package.version) == package.digest


def _add_patches(order: Order, work: Path) -> None:
    """The administrator's that apply, where the build can read them and nothing else of /etc/autokmod."""
    own = [patch.file for patch in order.recipe.series if patch.own]
    if own:
        place = _make(work, ("dkms", PATCHES), None)
        for name in own:
            source = order.paths.resolve(patches_directory(order.paths, order.package.name) / name)
            (place / name).write_bytes(source.read_bytes())
            (place / name).chmod(0o644)


def _make(top: Path, parts: Sequence[str], owner: User | None) -> Path:
    """top/PARTS…, whatever the umask is."""
    for part in parts:
        top = top / part
        with contextlib.suppress(FileExistsError):
            top.mkdir()
            _give(top, owner)
    return top


def _give(path: Path, owner: User | None) -> None:
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)


def _offer(order: Order, build: Build, work: Path, owner: User | None) -> None:
    """As DKMS leaves a package that it built, and its exports beside that."""
    place = _make(work, ("dkms", build.package, build.version, order.kernel.krel, order.arch, "module"), owner)
    files = [(place, module.file) for module in build.modules] + [(place.parent, SYMVERS)]
    for directory, name in files:
        with contextlib.suppress(FileNotFoundError):  # exports are not made by every package
            (directory / name).write_bytes(Path(build.directory, name).read_bytes())
            _give(directory / name, owner)


def open_room(order: Order, work: Path) -> Sandbox:
    """Raises SandboxUnavailable."""
    paths, package = order.paths, order.package
    mounts = [*kernel_mounts(paths, order.kernel.modulesd), Mount(str(work / "dkms"), DKMS_TREE, writable=True)]
    if not Path(package.source).is_symlink():
        build = work.joinpath(*order.home, "build")
        mounts.append(Mount(str(build), paths.inside(package.source), writable=True))
    return open_sandbox(paths, order.config, cwd="/", mounts=mounts)


def closed_way(box: Sandbox) -> Path | None:
    """The first directory on the way to anything that is to be shown, which the build user may not enter."""
    ways = (closed_directory(Path(mount.host).parent, box.user) for mount in box.mounts)
    return next((way for way in ways if way is not None), None)


def environment(order: Order, tree: str, makeflags: str) -> dict[str, str]:
    """Variable definitions behind `--` in MAKEFLAGS win over those in Makefiles, in every make.

    KCFLAGS is what kbuild adds to its compiler's options, and is nobody else's. It is in the environment as well for
    trees that take MAKEFLAGS away from the makes that they call.
    """
    flags = {"KCFLAGS": " ".join(order.recipe.flags)} if order.recipe.flags else {}
    overrides = [*order.toolchain.overrides, *order.recipe.variables, *(f"{k}={v}" for k, v in flags.items())]
    variables = dkms_variables(order.package, order.kernel, order.arch, order.config)
    symvers = [f"{tree}/{b.package}/{b.version}/{order.kernel.krel}/{order.arch}/{SYMVERS}" for b in order.depends]
    offered = {"KBUILD_EXTRA_SYMBOLS": " ".join(symvers)} if symvers else {}
    makeflags += f" -- {' '.join(map(_escaped, overrides))}" if overrides else ""
    return {**variables, **exported(order.toolchain), **offered, **flags, "dkms_tree": tree, "MAKEFLAGS": makeflags}


def _escaped(definition: str) -> str:
    """As make reads a word of MAKEFLAGS: a backslash keeps blanks together, a dollar is doubled."""
    return re.sub(r"([\\ \t])", r"\\\1", definition).replace("$", "$$")
