"""What modules of one kernel must agree with: its symvers, its configuration, and one of its own modules.

Only a module that was built with the kernel says what vermagic and sizeof(struct module) the running kernel has.
Nothing here raises for what is wrong on disk: it becomes a problem of the KernelAbi, and verdicts are unknown.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

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


@dataclass(frozen=True, slots=True)
class _Read(Generic[T]):
    """One of the kernel's texts, or what is wrong with it."""

    path: str | None = None  # host
    digest: str | None = None  # sha256 of the text, however it is stored
    value: T | None = None
    problem: Reason | None = None


def read_abi(paths: Paths, kernel: Kernel) -> KernelAbi:
    table = _read_first(paths, kernel, _symvers_files(paths, kernel), "symvers", symvers.LIMIT, parse_symvers)
    config = _read_first(paths, kernel, _config_files(paths, kernel), "config", CONFIG_LIMIT, parse_config)
    reference, reference_problem = _read_reference(Path(kernel.modulesd), kernel.krel)
    modversions = _has_modversions(config.value, reference)
    exports = table.value if table.value is not None else Symvers({})
    mismatch = _mismatch(reference, exports, table.path) if modversions and reference else None
    return KernelAbi(
        krel=kernel.krel,
        ident=reference.ident if reference else None,
        vermagic=reference.vermagic if reference else None,
        struct_size=reference.struct_size if reference else None,
        modversions=modversions,
        exports=exports,
        symvers_path=table.path,
        symvers_digest=table.digest,
        config_digest=config.digest,
        config=config.value or {},
        problems=tuple(p for p in (table.problem, config.problem, reference_problem, mismatch) if p),
        reference=reference.path if reference else None,
        absent=_absent(Path(kernel.modulesd), exports) if reference else frozenset(),
    )


def abi_inputs(paths: Paths, kernel: Kernel, abi: KernelAbi) -> Iterator[str]:
    """Host paths of all that `abi` was read from, those included where something better may appear."""
    for file in (*_symvers_files(paths, kernel), *_config_files(paths, kernel)):
        try:
            yield str(paths.resolve(file))
        except FormatError:
            yield str(file)
    if abi.reference is not None:
        yield abi.reference
    yield from _module_directories(Path(kernel.modulesd))


def read_config(paths: Paths, kernel: Kernel) -> Mapping[str, str] | None:
    """The configuration alone; None where it cannot be read."""
    return _read_first(paths, kernel, _config_files(paths, kernel), "config", CONFIG_LIMIT, parse_config).value


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
    paths: Paths, kernel: Kernel, files: Iterable[Path], what: str, limit: int, parse: Callable[[bytes, str], T]
) -> _Read[T]:
    for file in files:
        try:
            host = str(paths.resolve(file))
            data = read_blob(host, limit=limit)
            return _Read(host, hashlib.sha256(data).hexdigest(), parse(data, host))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (FormatError, OSError) as exc:
            problem = Reason(f"{what}-unreadable", f"the kernel's {what} cannot be read: {exc}")
            return _Read(str(file), problem=problem)
    return _Read(problem=_missing(kernel, what))


def _missing(kernel: Kernel, what: str) -> Reason:
    """Headers that are there but of no use are why, and say what helps."""
    cause = kernel.problems[0] if kernel.kdir is None and kernel.problems else None
    text = f"no {what} of {kernel.krel} can be read"
    return Reason(f"{what}-missing", f"{text}: {cause.text}" if cause else text, hint=cause.hint if cause else None)


# ---- one of the kernel's own modules


def _read_reference(modulesd: Path, krel: str) -> tuple[ModuleFacts | None, Reason | None]:
    """The first usable one of the smallest among the first in name order: the same one every time, and cheap."""
    why = "there is none below kernel/"
    for file in _reference_files(modulesd / "kernel"):
        try:
            facts = read_module(file)
        except (FormatError, OSError) as exc:
            why = str(exc)
            continue
        unfit = _unfit(facts, krel)
        if unfit is None:
            return facts, None
        why = f"{file}: {unfit}"
    text = f"no module of the kernel itself could be read, so its vermagic is not known: {why}"
    return None, Reason("reference-missing", text)


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


def _mismatch(reference: ModuleFacts, exports: Symvers, path: str | None) -> Reason | None:
    """A kernel's own module agrees with its symvers in every CRC; if not, the symvers is another kernel's."""
    wanted = reference.ext_versions or reference.versions or {}
    for name, crc in wanted.items():
        if name in exports and exports[name].crc != crc:
            text = f"{path} does not belong to this kernel: {reference.path} has another CRC for `{name}`"
            return Reason("symvers-mismatch", text, name, crc, exports[name].crc)
    return None


def _absent(modulesd: Path, exports: Symvers) -> frozenset[str]:
    """Exporters that are not on disk: distributions split a kernel's modules into packages."""
    there = _module_names(modulesd)
    return frozenset(e for e in exports.exporters() if e != "vmlinux" and module_name(e) not in there)


def _module_names(modulesd: Path) -> set[str]:
    walk = _walk(modulesd)
    return {module_name(f) for _, files in walk for f in files if f.endswith(SUFFIXES)}


def _module_directories(modulesd: Path) -> list[str]:
    return [top for top, _ in _walk(modulesd)]


def _walk(modulesd: Path) -> Iterator[tuple[str, list[str]]]:
    for top, dirs, files in os.walk(modulesd):
        dirs[:] = [d for d in dirs if d not in NOT_WALKED] if top == str(modulesd) else dirs
        yield top, files
