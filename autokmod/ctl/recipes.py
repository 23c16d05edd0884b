"""new, lint: recipes, for those who write them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autokmod.config import Config
from autokmod.config_load import load_config
from autokmod.ctl.render import RED, YELLOW, clean, paint
from autokmod.ctl.view import FAILED, OK, output_of, paths_of
from autokmod.errors import FormatError, UnknownPackage, UsageError
from autokmod.jsonvalue import to_json
from autokmod.model import Package
from autokmod.observe.kbuild import find_modules
from autokmod.observe.lint import ERROR, Finding, lint
from autokmod.observe.sources import (
    CONF,
    RECIPE,
    find_packages,
    is_package_name,
    said_names,
    split_directory,
    split_name,
)
from autokmod.paths import Paths

COLOURS = {"error": RED, "warning": YELLOW}
SIZE_LIMIT = 1 << 20
_VERSION = re.compile(r'^\s*MODULE_VERSION\s*\(\s*"([^"]+)"\s*\)', re.MULTILINE)


def add_parser(sub: Any) -> None:
    new = sub.add_parser(
        "new",
        help="write a recipe for a source tree",
        description=f"Write {RECIPE} for a tree with a kbuild Makefile. The modules are those that the Makefile names "
        "plainly; what only make could tell is refused. Nothing is overwritten.",
    )
    new.add_argument("name", metavar="NAME", help="the package's")
    new.add_argument("source", metavar="SRC", help="the directory of the source")
    new.add_argument("--version", dest="package_version", metavar="V", help="otherwise MODULE_VERSION, or SRC's name")
    new.add_argument("--output", metavar="FILE", help=f"otherwise SRC/{RECIPE}")
    new.set_defaults(run=run_new)
    check = sub.add_parser(
        "lint",
        help="say what is wrong with a recipe",
        description="Read the recipe of a package as if for every kernel that is here, and name what is wrong with it "
        "and what looks wrong. Exit status: 0 if there is no error, else 1.",
    )
    check.add_argument("package", metavar="PACKAGE|DIR", help="NAME, NAME/VERSION, or a directory with a recipe")
    check.set_defaults(run=run_lint)


# ---- new -----------------------------------------------------------------------------------------


def run_new(args: argparse.Namespace) -> int:
    output, source = output_of(args), Path(args.source)
    if not source.is_dir():
        raise UsageError(f"{source}: no such directory")
    version: str = args.package_version or find_version(source)
    if not is_package_name(args.name, version):
        raise UsageError(f"{args.name}-{version}: names and versions are of letters, digits and . _ + ~ : -")
    modules = find_modules(source)
    if not modules:
        raise FormatError(str(source), "its Makefile names no modules (obj-m)")
    target = Path(args.output) if args.output else source / RECIPE
    write_new(target, recipe_text(args.name, version, modules))
    place = f"/usr/src/{args.name}-{version}"
    if output.json != "off":
        output.data({"recipe": str(target), "name": args.name, "package_version": version, "modules": list(modules)})
    else:
        names = ", ".join(Path(m).name for m in modules)
        output.lines([f"{target}: {args.name} {version}, {names}", f"The source belongs in {place}."])
    return OK


def write_new(target: Path, text: str) -> None:
    try:
        with open(target, "x", encoding="utf-8") as f:
            f.write(text)
    except FileExistsError as exc:
        raise UsageError(f"{target} is there already, and is left as it is") from exc


def recipe_text(name: str, version: str, modules: Sequence[str]) -> str:
    """Names and versions hold nothing that TOML would want escaped."""
    head = f'[package]\nname = "{name}"\nversion = "{version}"\n'
    return head + "".join(f'\n[[module]]\nname = "{Path(m).name}"\npath = "{m}.ko"\n' for m in modules)


def find_version(source: Path) -> str:
    """Raises UsageError where the source does not tell, or tells more than one."""
    said: set[str] = {
        v for file in sorted(source.rglob("*.c")) for v in _VERSION.findall(_text(file)) if is_package_name(v)
    }
    if len(said) == 1:
        return next(iter(said))
    named = re.fullmatch(r".+?-v?(\d[^/]*)", source.resolve().name)
    if not said and named:
        return str(named[1])
    why = f"its sources say {', '.join(sorted(said))}" if said else "neither sources nor directory tell"
    raise UsageError(f"{source}: which version is it? {why}: give it with --version")


def _text(file: Path) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as f:
            return f.read(SIZE_LIMIT)
    except OSError:
        return ""


# ---- lint ----------------------------------------------------------------------------------------


def run_lint(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    config = load_config(paths)
    packages = find_wanted(paths, config, args.package)
    found = [(package, lint(paths, config, package)) for package in packages]
    if output.json != "off":
        output.data({"packages": [_as_json(paths, package, findings) for package, findings in found]})
    else:
        output.lines([line for package, findings in found for line in _lines(paths, package, findings, output.style)])
    return FAILED if any(f.severity == ERROR for _, findings in found for f in findings) else OK


def find_wanted(paths: Paths, config: Config, wish: str) -> list[Package]:
    """Raises UnknownPackage, UsageError."""
    if wish in (".", "..") or ("/" in wish and Path(wish).is_dir()):
        return [package_at(paths, config, Path(wish).resolve())]
    found = [p for p in find_packages(paths, config) if wish in (p.name, p.id, f"{p.name}-{p.version}")]
    if not found and Path(wish).is_dir():
        return [package_at(paths, config, Path(wish).resolve())]
    if not found:
        raise UnknownPackage(wish)
    return found


def package_at(paths: Paths, config: Config, directory: Path) -> Package:
    """A source anywhere. In /usr/src it is the package itself, with its problems."""
    known = next((p for p in find_packages(paths, config) if Path(p.source) == directory), None)
    if known is not None:
        return known
    kind = next((k for k, f in (("toml", RECIPE), ("dkms", CONF)) if (directory / f).is_file()), None)
    if kind is None:
        raise UsageError(f"{directory} holds neither {RECIPE} nor {CONF}")
    return Package(*_names(directory, kind), str(directory), kind, "")


def _names(directory: Path, kind: str) -> tuple[str, str]:
    """A directory that is not named NAME-VERSION is taken for what its recipe says."""
    text = _text(directory / (RECIPE if kind == "toml" else CONF))
    if kind == "dkms":
        return split_name(directory.name, text)
    name, version = said_names(text)
    if name and version and is_package_name(name, version):
        return name, version
    return split_directory(directory.name, name, version)


def _as_json(paths: Paths, package: Package, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "name": package.name,
        "package_version": package.version,
        "source": paths.inside(package.source),
        "findings": [{**to_json(f), "file": paths.inside(f.file)} for f in findings],
    }


def _lines(paths: Paths, package: Package, findings: Sequence[Finding], style: Any) -> Iterator[str]:
    for f in findings:
        where = ":".join((clean(paths.inside(f.file)), *([str(f.line)] if f.line else [])))
        key = f"{clean(f.key)}: " if f.key else ""
        yield f"{paint(f.severity, COLOURS[f.severity], style)}: {where}: {key}{clean(f.text)}"
    errors = sum(f.severity == ERROR for f in findings)
    yield f"{clean(package.id)}: {_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
