"""Kernels, packages and records of a few bytes each: what the quick look looks at, without a real kernel."""

from __future__ import annotations

import os
import time
from pathlib import Path

from autokmod.act.place import placed_file
from autokmod.act.records import write_record
from autokmod.model import DecisionKind, KernelRecord, Placement, Reason
from autokmod.observe.kernels import HEADER_PARTS
from autokmod.paths import Paths

OLD = time.time() - 1000  # when the kernels were made


def add_kernel(paths: Paths, krel: str, *, headers: bool = True, image: bool = True, modules: bool = True) -> Path:
    modulesd = paths.modulesd(krel)
    modulesd.mkdir(parents=True)
    if modules:
        (modulesd / "kernel").mkdir()
        for name in ("modules.order", "modules.builtin", "modules.dep"):
            (modulesd / name).touch()
    if headers:
        add_headers(paths, krel)
    if image:
        paths.boot.mkdir(exist_ok=True)
        (paths.boot / f"vmlinuz-{krel}").write_bytes(b"kernel")
    return modulesd


def add_headers(paths: Paths, krel: str) -> None:
    kdir = paths.usr_src / f"linux-headers-{krel}"
    for part in HEADER_PARTS:
        (kdir / part).parent.mkdir(parents=True, exist_ok=True)
        (kdir / part).write_text("x")
    (paths.modulesd(krel) / "build").symlink_to(f"/usr/src/linux-headers-{krel}")


def add_source(paths: Paths, name: str, version: str) -> Path:
    source = paths.usr_src / f"{name}-{version}"
    source.mkdir(parents=True)
    (source / "dkms.conf").write_text(f'PACKAGE_NAME="{name}"\nPACKAGE_VERSION="{version}"\n')
    return source


def place(paths: Paths, krel: str, name: str, version: str = "1.0") -> Placement:
    """An own file, as depmod would know it."""
    path = paths.own_dir(krel, name) / f"{name}.ko"
    path.parent.mkdir(parents=True)
    path.write_bytes(f"module {name} of {krel}".encode())
    return _placement(paths, krel, name, version, path, None, Reason("no-build", "it was never built on this machine"))


def link(paths: Paths, krel: str, name: str, owner: str, version: str = "1.0") -> Placement:
    path = paths.link_dir(krel, name) / f"{name}.ko"
    path.parent.mkdir(parents=True)
    path.symlink_to(os.path.relpath(paths.own_dir(owner, name) / f"{name}.ko", path.parent))
    why = Reason("compatible-build", f"the build for {owner} is compatible: all 61 symbol versions agree")
    return _placement(paths, krel, name, version, path, owner, why)


def _placement(
    paths: Paths, krel: str, name: str, version: str, path: Path, owner: str | None, why: Reason
) -> Placement:
    with open(paths.modulesd(krel) / "modules.dep", "a") as index:
        index.write(f"{path.relative_to(paths.modulesd(krel))}:\n")
    kind = DecisionKind.LINK if owner else DecisionKind.BUILD
    key = f"key-{name}"
    log = str(paths.builds / key / "build.log")
    files = (placed_file(paths, krel, name, path),)
    return Placement(name, version, kind, (why,), key, "source-key", owner, 61, files, verified=True, log=log)


def record(paths: Paths, krel: str, *placements: Placement) -> KernelRecord:
    """Made after the kernel's files, as a real one is."""
    made = KernelRecord(krel, time.time() + 1, placements)
    write_record(paths, made)
    return made
