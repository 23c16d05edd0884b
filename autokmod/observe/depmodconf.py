"""depmod.d, read as depmod reads it (kmod's tools/depmod.c: cfg_load, cfg_file_parse)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.model import Reason
from autokmod.observe.blob import read_bounded
from autokmod.observe.modtree import CONF_LIMIT, DepmodConfig
from autokmod.observe.posixregex import matches
from autokmod.paths import Paths

ESCAPE = re.compile(r"\\(.|\n|$)")
JOINT = "\0"  # stands where two lines were joined
IGNORED = frozenset({"include", "make_map_files"})  # depmod says "not implemented yet"


def read_depmod_config(paths: Paths, krel: str) -> DepmodConfig:
    """What depmod could not read or understand is passed over, as it does, and named in `problems`."""
    config = DepmodConfig(search=())
    for file in _files(paths):
        try:
            text = _read(paths, file)
        except (OSError, FormatError) as exc:
            config = _add_problem(config, f"{paths.inside(file)}: {exc}")
        else:
            config = parse_depmod_conf(text, paths.inside(file), krel, config)
    return replace(config, search=config.search or ("updates",))


def _files(paths: Paths) -> list[Path]:
    chosen: dict[str, Path] = {}
    for directory in paths.depmod_d:
        for name in _listdir(paths.resolve(directory)):
            file = paths.resolve(directory) / name
            if name != ".conf" and not name.startswith(".") and not paths.resolve(file).is_dir():
                chosen.setdefault(name, file)
    return [chosen[n] for n in sorted(chosen, key=os.fsencode)]


def _listdir(directory: Path) -> list[str]:
    try:
        return [n for n in os.listdir(directory) if n.endswith(".conf")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(paths: Paths, file: Path) -> str:
    if file.is_symlink() and os.readlink(file) == "/dev/null":  # the way to mask a vendor's file
        return ""
    return read_bounded(paths.resolve(file), limit=CONF_LIMIT).decode("utf-8", "backslashreplace")


def parse_depmod_conf(text: str, path: str, krel: str, config: DepmodConfig) -> DepmodConfig:
    """`config` with what the file adds to it."""
    for number, line in _logical_lines(text):
        words = [w for w in line.replace("\t", " ").split(" ") if w]
        if line.startswith("#") or not words or words[0] in IGNORED:
            continue
        try:
            config = _COMMANDS[words[0]](config, words[1:], krel)
        except (KeyError, ValueError):
            config = _add_problem(config, f"{path}: line {number} is not understood: {line[:80]}")
    return config


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """A backslash joins a line with the next; before anything else it just goes (freadline_wrapped)."""
    joined = ESCAPE.sub(lambda m: JOINT if m[1] == "\n" else m[1], text.replace(JOINT, " "))
    number = 1
    for line in joined.split("\n"):
        yield number, line.replace(JOINT, "")
        number += 1 + line.count(JOINT)


def _add_problem(config: DepmodConfig, text: str) -> DepmodConfig:
    return replace(config, problems=(*config.problems, Reason("depmod-config", text)))


def _applies(pattern: str, krel: str) -> bool:
    return pattern == "*" or matches(pattern, krel)


def _search(config: DepmodConfig, words: list[str], _krel: str) -> DepmodConfig:
    return replace(config, search=(*config.search, *words))


def _override(config: DepmodConfig, words: list[str], krel: str) -> DepmodConfig:
    name, pattern, directory = words[:3]
    if not _applies(pattern, krel):
        return config
    return replace(config, overrides=(f"{directory}/{name}", *config.overrides))


def _external(config: DepmodConfig, words: list[str], krel: str) -> DepmodConfig:
    pattern, directory = words[:2]
    return replace(config, externals=(*config.externals, directory)) if _applies(pattern, krel) else config


def _exclude(config: DepmodConfig, words: list[str], _krel: str) -> DepmodConfig:
    return replace(config, excludes=config.excludes | set(words))


_COMMANDS: dict[str, Callable[[DepmodConfig, list[str], str], DepmodConfig]] = {
    "search": _search,
    "override": _override,
    "external": _external,
    "exclude": _exclude,
}
