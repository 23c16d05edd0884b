"""depmod, once for a kernel, and the proof that it picks what was placed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from autokmod.files import read_regular
from autokmod.model import PlacedFile, Reason
from autokmod.observe.modtree import read_modules_dep
from autokmod.paths import OWN, WEAK, Paths
from autokmod.run import run

TIME_LIMIT_S = 300.0


def depmod_cmd(paths: Paths, krel: str) -> tuple[str, ...]:
    """With another root, its own depmod.d: depmod's -b changes where modules are looked for, not configuration."""
    if paths.root == Path("/"):
        return ("depmod", krel)
    config = [str(d) for d in paths.depmod_d if d.is_dir()]
    options = [part for directory in config or ["/dev/null"] for part in ("-C", directory)]
    return ("depmod", *options, "-b", str(paths.root), krel)


def run_depmod(paths: Paths, krel: str) -> None:
    """Raises CommandFailed, ToolMissing."""
    run(depmod_cmd(paths, krel), timeout_s=TIME_LIMIT_S)


def verify_placed(paths: Paths, krel: str, files: Iterable[PlacedFile]) -> tuple[Reason, ...]:
    """What is wrong: a module that depmod does not pick from where it was placed, or whose bytes are not those."""
    picked = read_modules_dep(paths.modulesd(krel))
    return tuple(reason for file in files for reason in _problems(paths.modulesd(krel), picked.get(file.module), file))


def _problems(modulesd: Path, picked: str | None, file: PlacedFile) -> Iterator[Reason]:
    if picked is None:
        yield Reason("not-indexed", f"{file.module}: modules.dep does not know it")
    elif picked != file.path:
        text = f"{file.module}: modprobe would load {picked}, not {file.path}"
        yield Reason("other-file-wins", text, hint=_what_to_do(picked, file.path))
    try:
        digest = hashlib.sha256(read_regular(modulesd / file.path)).hexdigest()
    except OSError as exc:
        yield Reason("not-readable", f"{file.path}: {exc.strerror}")
        return
    if digest != file.sha256:
        yield Reason("content-differs", f"{file.path} is not what was placed there")


def _what_to_do(picked: str, path: str) -> str:
    rival = next((picked.split("/")[2] for base in (OWN, WEAK) if picked.startswith(f"{base}/")), None)
    if rival is not None:
        return f"two packages have this module: remove {rival} or {path.split('/')[2]}, or disable one of them"
    return f"remove {picked}, or let depmod.d prefer {path.split('/')[0]}"
