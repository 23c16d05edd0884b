"""Reading autokmod.toml, its drop-ins and packages.d, with systemd's rules of precedence.

The main file is the first of /etc/autokmod/autokmod.toml, /run/autokmod/…, /usr/lib/autokmod/…. Drop-ins from
autokmod.toml.d/ of all three come on top in the order of their names; of namesakes only the one in /etc (then /run)
counts. An empty file or a link to /dev/null hides its namesakes. packages.d/NAME.toml follows the same rule.

What keys there are, and what their values may be, is read from the dataclasses of config.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from autokmod.config import Config, PackageConfig
from autokmod.errors import ConfigError, FormatError
from autokmod.paths import Paths
from autokmod.tomltable import Text, TomlError, hints_of, read_fields, read_table, read_text, unknown

T = TypeVar("T")
SUFFIX = ".toml"
MAIN = "autokmod" + SUFFIX


def load_config(paths: Paths) -> Config:
    """Raises ConfigError for the first thing that is wrong."""
    merged: dict[str, dict[str, Any]] = {}
    for file in (*_main_file(paths), *_files(paths, MAIN + ".d")):
        for section, values in _read_sections(paths, file).items():
            merged.setdefault(section, {}).update(values)
    hints = hints_of(Config)
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
    hints = {n: cls for n, cls in hints_of(Config).items() if isinstance(cls, type) and dataclasses.is_dataclass(cls)}
    text = _read_toml(paths, file)
    result = {}
    for section, table in text.table.items():
        if section not in hints:
            raise ConfigError(str(file), section, unknown("section", section, hints), text.line((section,)))
        result[section] = _checked(file, text, partial(read_fields, hints[section], table, (section,)))
    return result


def _read_package(paths: Paths, file: Path) -> PackageConfig:
    text = _read_toml(paths, file)
    return _checked(file, text, partial(read_table, PackageConfig, text.table))


def _checked(file: Path, text: Text, read: Callable[[], T]) -> T:
    try:
        return read()
    except TomlError as exc:
        raise ConfigError(str(file), exc.name, exc.why, text.line(exc.key)) from exc


def _read_toml(paths: Paths, file: Path) -> Text:
    try:
        return read_text(paths.resolve(file))
    except (OSError, FormatError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc.what
        raise ConfigError(str(file), "", f"cannot be read: {why}") from exc
    except TomlError as exc:
        raise ConfigError(str(file), "", exc.why) from exc
