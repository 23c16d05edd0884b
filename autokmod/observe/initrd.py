"""A kernel's initrd: where it is, and which modules it carries by its generator's own lister."""

from __future__ import annotations

from pathlib import Path

from autokmod.observe.modtree import module_name
from autokmod.paths import Paths
from autokmod.run import run

TIME_LIMIT_S = 120.0


def find_image(paths: Paths, krel: str) -> Path | None:
    candidates = (f"initrd.img-{krel}", f"initramfs-{krel}.img", f"initrd-{krel}")
    return next((paths.boot / c for c in candidates if (paths.boot / c).is_file()), None)


def list_modules(image: Path) -> frozenset[str]:
    """Kernel names of the modules in the image. Raises ToolMissing, CommandFailed."""
    lister = "lsinitramfs" if image.name.startswith("initrd.img-") else "lsinitrd"
    out = run((lister, str(image)), timeout_s=TIME_LIMIT_S, stdout_only=True).output
    files = (line.split()[-1].rsplit("/", 1)[-1] for line in out.splitlines() if line.strip())
    return frozenset(module_name(name) for name in files if ".ko" in name)
