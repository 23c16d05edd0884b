"""What modules of one kernel must agree with: its symvers, its configuration, and one of its own modules.

Only a module that was built with the kernel says what vermagic and sizeof(struct module) the running kernel has.
Nothing here raises for what is wrong on disk: it becomes a problem of the KernelAbi, and verdicts are unknown.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from autokmod.errors import FormatError
from autokmod.model import Kernel, KernelAbi, ModuleFacts, Reason
from autokmod.observe import symvers
from autokmod.observe.blob import read_blob
from autokmod.observe.ko import read_module
from autokmod.observe.modtree import NOT_WALKED, SUFFIXES, module_name
from autokmod.observe.symvers import Symvers, parse_symvers
from autokmod.paths import Paths

T = TypeVar("T")
SYMVERS_SUFFIXES = ("", ".gz", ".xz", ".zst")
CONFIG_LIMIT = 4 << 20
REFERENCES = 8  # in-tree modules that are tried


def read_abi(paths: Paths, kernel: Kernel) -> KernelAbi:
    problems: list[Reason] = []
    symvers_path, symvers_data, exports = _read_first(
        paths, _symvers_files(paths, kernel), "symvers", symvers.LIMIT, parse_symvers, problems
    )
    _, config_data, config = _read_first(
        paths, _config_files(paths, kernel), "config", CONFIG_LIMIT, parse_config, problems
    )
    reference = _read_reference(paths, kernel, problems)
    modversions = _has_modversions(config, reference)
    offered = exports if exports is not None else Symvers({})
    problems += _disagreements(reference, offered, symvers_path) if modversions else ()
    return KernelAbi(
        krel=kernel.krel,
        ident=reference.ident if reference else None,
        vermagic=reference.vermagic if reference else None,
        struct_size=reference.struct_size if reference else None,
        modversions=modversions,
        exports=offered,
        symvers_path=symvers_path,
        symvers_digest=_digest(symvers_data),
        config_digest=_digest(config_data),
        config=config or {},
        problems=tuple(problems),
        reference=reference.path if reference else None,
        absent=_absent(Path(kernel.modulesd), offered) if reference else frozenset(),
    )


def parse_config(data: bytes, path: str) -> dict[str, str]:
    """CONFIG_… → value as it stands there, strings with their quotes. Raises FormatError where nothing is set."""
    text = data.decode("utf-8", "backslashreplace")
    pairs = (line.partition("=") for line in text.split("\n") if line.startswith("CONFIG_"))
    config = {key: value for key, equals, value in pairs if equals}
    if not config:
        raise FormatError(path, "sets no CONFIG_ option: not a kernel configuration")
    return config


def _has_modversions(config: Mapping[str, str] | None, reference: ModuleFacts | None) -> bool:
    if config is not None:
        return config.get("CONFIG_MODVERSIONS") == "y"
    return reference is not None and "modversions" in (reference.vermagic or "").split()


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


# ---- symvers and configuration: the first of several places counts, good or bad


def _symvers_files(paths: Paths, kernel: Kernel) -> Iterator[Path]:
    if kernel.kdir is not None:
        yield Path(kernel.kdir) / "Module.symvers"
    yield from (paths.boot / f"symvers-{kernel.krel}{suffix}" for suffix in SYMVERS_SUFFIXES)
    yield from (Path(kernel.modulesd) / f"symvers{suffix}" for suffix in SYMVERS_SUFFIXES)


def _config_files(paths: Paths, kernel: Kernel) -> Iterator[Path]:
    if kernel.kdir is not None:
        yield Path(kernel.kdir) / ".config"
    yield paths.boot / f"config-{kernel.krel}"
    yield Path(kernel.modulesd) / "config"


def _read_first(
    paths: Paths,
    files: Iterable[Path],
    what: str,
    limit: int,
    parse: Callable[[bytes, str], T],
    problems: list[Reason],
) -> tuple[str | None, bytes | None, T | None]:
    """Host path, text and value of the first file that exists; what is wrong with it goes to `problems`."""
    for file in files:
        try:
            host = str(paths.resolve(file))
            data = read_blob(host, limit=limit)
            return host, data, parse(data, host)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (FormatError, OSError) as exc:
            problems.append(Reason(f"{what}-unreadable", f"the kernel's {what} cannot be read: {exc}"))
            return str(file), None, None
    problems.append(Reason(f"{what}-missing", f"no {what} of this kernel is on this machine", hint=_HINTS.get(what)))
    return None, None, None


_HINTS = {"symvers": "install the kernel's headers"}


# ---- one of the kernel's own modules


def _read_reference(paths: Paths, kernel: Kernel, problems: list[Reason]) -> ModuleFacts | None:
    """The first usable one of the smallest among the first in name order: the same one every time, and cheap."""
    why = "there is none below kernel/"
    for file in _reference_files(Path(kernel.modulesd) / "kernel"):
        try:
            facts = read_module(file)
        except (FormatError, OSError) as exc:
            why = str(exc)
            continue
        unfit = _unfit(facts, kernel.krel)
        if unfit is None:
            return facts
        why = f"{file}: {unfit}"
    text = f"no module of the kernel itself could be read, so its vermagic is not known: {why}"
    problems.append(Reason("reference-missing", text))
    return None


def _unfit(facts: ModuleFacts, krel: str) -> str | None:
    if not facts.intree:
        return "not built with the kernel"
    if facts.release != krel:
        return f"built for {facts.release}"
    return facts.problems[0].text if facts.problems else None


def _reference_files(directory: Path, among: int = 4 * REFERENCES) -> list[Path]:
    found: list[tuple[int, str]] = []
    for top, dirs, names in os.walk(directory):
        dirs.sort()
        files = [os.path.join(top, n) for n in sorted(names) if n.endswith(SUFFIXES)]
        found += [(os.lstat(f).st_size, f) for f in files if not os.path.islink(f)]
        if len(found) >= among:
            break
    return [Path(f) for _, f in sorted(found[:among])[:REFERENCES]]


def _disagreements(reference: ModuleFacts | None, exports: Symvers, path: str | None) -> Iterator[Reason]:
    """A kernel's own module agrees with its symvers in every CRC; if not, the symvers is another kernel's."""
    if reference is None or not exports:
        return
    wanted = reference.ext_versions or reference.versions or {}
    for name, crc in wanted.items():
        if name in exports and exports[name].crc != crc:
            text = f"{path} does not belong to this kernel: {reference.path} has another CRC for `{name}`"
            yield Reason("symvers-mismatch", text, name, crc, exports[name].crc)
            return


def _absent(modulesd: Path, exports: Symvers) -> frozenset[str]:
    """Exporters that are not on disk: distributions split a kernel's modules into packages."""
    there = _module_names(modulesd)
    return frozenset(e for e in exports.exporters() if e != "vmlinux" and module_name(e) not in there)


def _module_names(modulesd: Path) -> set[str]:
    names: set[str] = set()
    for top, dirs, files in os.walk(modulesd):
        dirs[:] = [d for d in dirs if d not in NOT_WALKED] if top == str(modulesd) else dirs
        names.update(module_name(f) for f in files if f.endswith(SUFFIXES))
    return names
