"""Reading autokmod.toml, its drop-ins and packages.d, with systemd's rules of precedence.

The main file is the first of /etc/autokmod/autokmod.toml, /run/autokmod/…, /usr/lib/autokmod/…. Drop-ins from
autokmod.toml.d/ of all three come on top in the order of their names; of namesakes only the one in /etc (then /run)
counts. An empty file or a link to /dev/null hides its namesakes. packages.d/NAME.toml follows the same rule.

What keys there are, and what their values may be, is read from the dataclasses of config.py.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from autokmod.config import AtLeast, Config, PackageConfig
from autokmod.errors import ConfigError, FormatError
from autokmod.paths import Paths

SUFFIX = ".toml"
MAIN = "autokmod" + SUFFIX
SIZE_LIMIT = 1 << 20


def load_config(paths: Paths) -> Config:
    """Raises ConfigError for the first thing that is wrong."""
    merged: dict[str, dict[str, Any]] = {}
    for file in (*_main_file(paths), *_files(paths, MAIN + ".d")):
        for section, values in _read_sections(paths, file).items():
            merged.setdefault(section, {}).update(values)
    hints = _hints(Config)
    sections = {name: hints[name](**values) for name, values in merged.items()}
    packages = tuple((f.name.removesuffix(SUFFIX), _read_package(paths, f)) for f in _files(paths, "packages.d"))
    return Config(**sections, packages=packages)


# ---- which files ---------------------------------------------------------------------------------


def config_dirs(paths: Paths) -> tuple[Path, ...]:
    """The highest precedence last."""
    return (paths.vendor, paths.at("run/autokmod"), paths.etc)


def _main_file(paths: Paths) -> list[Path]:
    there = [d / MAIN for d in config_dirs(paths) if os.path.lexists(d / MAIN)]
    return [f for f in there[-1:] if not _is_mask(f)]


def _files(paths: Paths, subdir: str) -> list[Path]:
    winners: dict[str, Path] = {}
    for directory in config_dirs(paths):
        winners.update({f.name: f for f in _toml_files(directory / subdir)})
    return [winners[name] for name in sorted(winners) if not _is_mask(winners[name])]


def _toml_files(directory: Path) -> list[Path]:
    try:
        return [directory / n for n in os.listdir(directory) if n.endswith(SUFFIX) and not n.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_mask(file: Path) -> bool:
    return file.is_symlink() and os.readlink(file) == os.devnull


# ---- what they say -------------------------------------------------------------------------------


def _read_sections(paths: Paths, file: Path) -> dict[str, dict[str, Any]]:
    hints = {n: cls for n, cls in _hints(Config).items() if isinstance(cls, type) and dataclasses.is_dataclass(cls)}
    result = {}
    for section, table in _read_toml(paths, file).items():
        if section not in hints:
            raise ConfigError(str(file), section, _unknown("section", section, hints))
        result[section] = _check_table(file, hints[section], table, section)
    return result


def _read_package(paths: Paths, file: Path) -> PackageConfig:
    return PackageConfig(**_check_table(file, PackageConfig, _read_toml(paths, file), ""))


def _read_toml(paths: Paths, file: Path) -> dict[str, Any]:
    try:
        with open(paths.resolve(file), "rb") as f:
            data = f.read(SIZE_LIMIT + 1)
    except (OSError, FormatError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc.what
        raise ConfigError(str(file), "", f"cannot be read: {why}") from exc
    if len(data) > SIZE_LIMIT:
        raise ConfigError(str(file), "", f"larger than {SIZE_LIMIT} bytes")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as exc:
        raise ConfigError(str(file), "", f"not UTF-8 (at line {_line(data[: exc.start])})") from exc
    except tomllib.TOMLDecodeError as exc:
        text = str(exc).replace("at end of document", f"at line {_line(data)}, the end")
        raise ConfigError(str(file), "", f"not TOML: {text}") from exc
    except RecursionError as exc:
        raise ConfigError(str(file), "", "not TOML: nested too deeply") from exc


def _line(data: bytes) -> int:
    return data.count(b"\n") + 1


def _check_table(file: Path, cls: type, table: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(str(file), prefix, f"a section, [{prefix}], expected, not {_shown(table)}")
    hints = _hints(cls)
    checked = {}
    for name, value in table.items():
        key = f"{prefix}.{name}" if prefix else name
        if name not in hints:
            raise ConfigError(str(file), key, _unknown("key", name, hints))
        wanted = _expected(hints[name])
        if not _fits(hints[name], value):
            raise ConfigError(str(file), key, f"{wanted} expected, not {_shown(value)}")
        checked[name] = tuple(value) if isinstance(value, list) else value
    return checked


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown {what}; did you mean {near[0]}?" if near else f"unknown {what}; known: {', '.join(known)}"


def _shown(value: Any) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fits(hint: Any, value: Any) -> bool:
    args = get_args(hint)
    if get_origin(hint) is Annotated:
        return _fits(args[0], value) and all(value >= a.minimum for a in args[1:] if isinstance(a, AtLeast))
    if get_origin(hint) is Literal:
        return value in args
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(args[0], item) for item in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


def _expected(hint: Any) -> str:
    args = get_args(hint)
    if get_origin(hint) is Annotated:
        bounds = (f", at least {a.minimum:g}" for a in args[1:] if isinstance(a, AtLeast))
        return _expected(args[0]) + "".join(bounds)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f'"{a}"' for a in args)
    if get_origin(hint) is tuple:
        return "a list of texts" if args[0] is str else f"a list, each item {_expected(args[0])}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[hint]
