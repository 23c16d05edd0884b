"""Packages, found where DKMS packages already put themselves: /usr/src/NAME-VERSION, with a dkms.conf or autokmod.toml.

A package whose source cannot be used is still found, with its problem: it shows in the status, and the others are
served.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from autokmod.config import Config
from autokmod.errors import FormatError
from autokmod.files import open_regular, read_regular
from autokmod.jsonvalue import to_json
from autokmod.model import Package, Reason
from autokmod.observe.tree import Tree, identify_tree, link_problem, read_tree, tree_digest, unreadable
from autokmod.paths import Paths

CONF = "dkms.conf"
RECIPE = "autokmod.toml"  # counts where both are there
CONF_LIMIT = 1 << 20  # bytes; the longest of Debian's archive has 13 KiB
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:-]*")
_LITERAL = r"^[ \t]*{key}=([\"']?)([A-Za-z0-9._+~:-]+)\1[ \t]*(?:#.*)?\r?$"


# Source → what stat said of all in it, and its digest.
Digests = dict[str, tuple[tuple[object, ...], str]]


def find_packages(paths: Paths, config: Config, known: Digests | None = None) -> tuple[Package, ...]:
    """In order of name and version; none where there is no /usr/src. `known` is for who looks again and again."""
    known = known if known is not None else {}
    return tuple(_read_package(paths, config, name, known) for name in list_sources(paths))


def list_sources(paths: Paths) -> list[str]:
    """The names of the directories in /usr/src that are packages."""
    try:
        names = sorted(os.listdir(paths.usr_src))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name in names if _has_conf(paths, name)]


def _has_conf(paths: Paths, name: str) -> bool:
    return "-" in name.strip("-") and find_conf(paths, paths.usr_src / name) is not None


def find_conf(paths: Paths, source: Path) -> str | None:
    """The name of the recipe's file."""
    try:
        top = paths.resolve(source)
    except FormatError:  # a link in circles: nothing that could be a package
        return None
    return next((name for name in (RECIPE, CONF) if os.path.lexists(top / name)), None)


def _read_package(paths: Paths, config: Config, directory: str, known: Digests) -> Package:
    source = paths.usr_src / directory
    name, version = read_names(paths, directory)
    kind = "toml" if find_conf(paths, source) == RECIPE else "dkms"
    digest, problem = _read_source(paths, config, source, name, version, known)
    if not is_package_name(name, version):
        text = f"/usr/src/{ascii(directory)[1:-1]} is not named NAME-VERSION, of letters, digits and . _ + ~ : -"
        problem = Reason("bad-package-name", text, hint="rename the directory")
    return Package(name, version, str(source), kind, digest if problem is None else "", problem)


def is_package_name(*names: str) -> bool:
    return all(_NAME.fullmatch(name) for name in names)


def read_names(paths: Paths, directory: str) -> tuple[str, str]:
    """Name and version of a package in /usr/src, whatever else is wrong with it."""
    source = paths.usr_src / directory
    if find_conf(paths, source) != RECIPE:
        return split_name(directory, _conf_text(paths, source, CONF))
    return split_directory(directory, *said_names(_conf_text(paths, source, RECIPE)))


def said_names(text: str) -> tuple[str | None, str | None]:
    """What an autokmod.toml calls itself; None where that cannot be told."""
    try:
        package = tomllib.loads(text).get("package")
    except (tomllib.TOMLDecodeError, RecursionError):
        return None, None
    said = package if isinstance(package, dict) else {}
    name, version = said.get("name"), said.get("version")
    return name if isinstance(name, str) else None, version if isinstance(version, str) else None


def split_name(directory: str, conf: str) -> tuple[str, str]:
    """Of a package with a dkms.conf."""
    return split_directory(directory, _literal("PACKAGE_NAME", conf), _literal("PACKAGE_VERSION", conf))


def split_directory(directory: str, name: str | None, version: str | None) -> tuple[str, str]:
    """Both halves may hold dashes (xtrx-0.0.1-3.2, adv-17v35x-5.0.7.0): what the conf says plainly decides."""
    if name and directory.startswith(f"{name}-") and len(directory) > len(name) + 1:
        return name, directory[len(name) + 1 :]
    if version and directory.endswith(f"-{version}") and len(directory) > len(version) + 1:
        return directory[: -len(version) - 1], version
    before_digit = re.match(r"(.+?)-(\d.*)", directory, re.DOTALL)
    if before_digit:
        return before_digit[1], before_digit[2]
    head, _, tail = directory.rpartition("-")
    return head, tail


def _literal(key: str, conf: str) -> str | None:
    found = re.findall(_LITERAL.format(key=key), conf, re.MULTILINE)
    return found[-1][1] if found else None


def _conf_text(paths: Paths, source: Path, conf: str) -> str:
    """Empty where it cannot be read: the problem is found and told by reading the tree."""
    try:
        with open_regular(paths.resolve(source / conf)) as f:
            return f.read(CONF_LIMIT).decode("utf-8", "replace")
    except (OSError, FormatError):
        return ""


def _read_source(
    paths: Paths, config: Config, source: Path, name: str, version: str, known: Digests
) -> tuple[str, Reason | None]:
    """The digest of the source and of all that is put on top of it, or why there is none."""
    try:
        top = paths.resolve(source)
        tree = read_tree(top)
        problem = tree.problem or link_problem(paths, tree, paths.inside(source))
        if problem is not None:
            return "", problem
        return _digest(paths, config, tree, name, version, source, known), None
    except OSError as exc:
        return "", unreadable(source, exc)
    except FormatError as exc:
        return "", Reason("source-unreadable", str(exc))


def _digest(paths: Paths, config: Config, tree: Tree, name: str, version: str, source: Path, known: Digests) -> str:
    """Where nothing has changed by what stat says, and nothing is put on top, it is that of the last look."""
    cache = paths.cache / "sources" / f"{source.name}.json"
    if find_overrides(paths, name, version) or has_additions(paths, config, name):
        return package_digest(paths, config, tree, name, version, cache)
    seen = identify_tree(tree)
    before = known.get(str(source))
    if before is not None and seen is not None and before[0] == seen:
        return before[1]
    digest = package_digest(paths, config, tree, name, version, cache)
    if seen is not None:
        known[str(source)] = seen, digest
    return digest


def package_digest(paths: Paths, config: Config, tree: Tree, name: str, version: str, cache: Path | None = None) -> str:
    """Hex sha256 of all that decides what is built: the source tree, what /etc/dkms says of the package, and the
    administrator's patches and flags.

    `tree` may be a copy of the source. OSError where something vanished or cannot be read, FormatError where the
    administrator's patches are no files.
    """
    whole = hashlib.sha256(tree_digest(tree, cache).encode())
    for override, digest in (*_override_digests(paths, name, version), *_addition_digests(paths, config, name)):
        whole.update(os.fsencode(f"\0{override}\0{digest}"))
    return whole.hexdigest()


# ---- what the administrator puts on top ----------------------------------------------------------


def patches_directory(paths: Paths, name: str) -> Path:
    return paths.packages_d / name / "patches"


def list_patches(paths: Paths, name: str) -> tuple[str, ...]:
    """The administrator's, in the order in which they apply."""
    try:
        names = sorted(os.listdir(patches_directory(paths, name)))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(n for n in names if n.endswith(".patch") and not n.startswith("."))


def has_additions(paths: Paths, config: Config, name: str) -> bool:
    mine = config.package(name)
    return bool(mine.patch or mine.define or mine.flags or list_patches(paths, name))


def _addition_digests(paths: Paths, config: Config, name: str) -> Iterator[tuple[str, str]]:
    mine = config.package(name)
    if mine.patch or mine.define or mine.flags:
        text = json.dumps(to_json((mine.patch, mine.define, mine.flags)), sort_keys=True)
        yield "packages.d", hashlib.sha256(text.encode()).hexdigest()
    for patch in list_patches(paths, name):
        content = read_regular(paths.resolve(patches_directory(paths, name) / patch))
        yield f"packages.d/patches/{patch}", hashlib.sha256(content).hexdigest()


# ---- /etc/dkms -----------------------------------------------------------------------------------


def _override_digests(paths: Paths, name: str, version: str) -> Iterator[tuple[str, str]]:
    for override in find_overrides(paths, name, version):
        if override.is_dir():
            yield override.name, tree_digest(read_tree(override))
        else:
            yield override.name, hashlib.sha256(read_regular(override)).hexdigest()


def find_overrides(paths: Paths, name: str, version: str) -> tuple[Path, ...]:
    """In /etc/dkms: NAME/ (patches, scripts), NAME.conf, and those of a version, a kernel, an architecture."""
    try:
        found = sorted(os.listdir(paths.at("etc/dkms")))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(paths.at("etc/dkms") / f for f in found if is_override(f, name, version))


def is_override(file: str, name: str, version: str) -> bool:
    if file in (name, f"{name}.conf", f"{name}-{version}.conf"):
        return True
    return file.endswith(".conf") and file.startswith((f"{name}-{version}-", f"{name}--"))
