"""Refresh a kernel's initrd after modules changed: at most one run of its generator, then a look inside.

The generator's exit status proves nothing (update-initramfs ends with 0 where it was told to do nothing), so the
image's own list of modules is asked afterwards. Contents inside the image are not compared here.
"""

from __future__ import annotations

from pathlib import Path

from autokmod.config import InitrdConfig
from autokmod.errors import CommandFailed, ToolMissing
from autokmod.model import Reason
from autokmod.observe.initrd import find_image, list_modules
from autokmod.paths import Paths
from autokmod.run import run


def generator_cmd(image: Path, krel: str) -> tuple[str, ...]:
    if image.name.startswith("initrd.img-"):
        return ("update-initramfs", "-u", "-k", krel)
    return ("dracut", "-f", "--kver", krel, str(image))


def refresh_initrd(
    paths: Paths, config: InitrdConfig, krel: str, placed: frozenset[str], wanted: frozenset[str], newest_ns: int
) -> tuple[Reason, bool]:
    """The last word on the image, and whether it is a good one.

    `placed`: modules of ours in this kernel; `wanted`: those that belong in the image by the administrator's word;
    `newest_ns`: mtime of the newest of them.
    """
    image = find_image(paths, krel)
    if image is None:
        return Reason("initrd-none", "there is no initrd for this kernel"), True
    if image.stat().st_mtime_ns >= newest_ns:
        return Reason("initrd-newer", f"{paths.inside(image)} was made after the modules were placed"), True
    if paths.root != Path("/"):
        hint = f"run {' '.join(generator_cmd(image, krel))} inside it"
        return Reason("initrd-other-root", "the initrd of another root is not made anew from outside", hint=hint), False
    try:
        return _refresh(config, image, krel, placed, wanted)
    except (ToolMissing, CommandFailed) as exc:
        hint = f"run {' '.join(generator_cmd(image, krel))} and see what it says"
        return Reason("initrd-failed", f"{image} was not refreshed: {exc}", hint=hint), False


def _refresh(
    config: InitrdConfig, image: Path, krel: str, placed: frozenset[str], wanted: frozenset[str]
) -> tuple[Reason, bool]:
    concerned = (list_modules(image) & placed) | wanted
    if not concerned:
        return Reason("initrd-not-concerned", f"{image} carries none of the modules that changed"), True
    if not config.regenerate:
        hint = "set initrd.regenerate, or run " + " ".join(generator_cmd(image, krel))
        return Reason("initrd-stale", f"{image} carries an older {_names(concerned)}", hint=hint), False
    before = image.stat()
    run(generator_cmd(image, krel), timeout_s=config.time_limit_s)
    after = image.stat()
    if (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns):
        return Reason("initrd-failed", f"{generator_cmd(image, krel)[0]} ended well but left {image} as it was"), False
    missing = concerned - list_modules(image)
    if missing:
        return Reason("initrd-failed", f"{image} was made anew but lacks {_names(missing)}"), False
    return Reason("initrd-refreshed", f"{image} was made anew with {_names(concerned)}"), True


def _names(modules: frozenset[str]) -> str:
    return ", ".join(sorted(modules))
