"""What is wrong with a recipe, as far as that can be told before any kernel comes."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autokmod.config import Config
from autokmod.errors import FactMissing, RecipeError
from autokmod.model import Kernel, KernelAbi, KernelState, Package, Recipe
from autokmod.observe.abi import read_abi
from autokmod.observe.dkmsconf import kernel_arch
from autokmod.observe.dkmseval import RawConf, evaluate
from autokmod.observe.kernels import find_kernels
from autokmod.observe.machine import find_sources
from autokmod.observe.recipe import read_recipe
from autokmod.observe.sources import CONF, RECIPE
from autokmod.observe.tomlfile import TomlRecipe, read_recipe_file
from autokmod.observe.toolchain import find_program
from autokmod.paths import Paths
from autokmod.tomllines import Key

ERROR, WARNING = "error", "warning"
CONFIG_LIMIT = 4 << 20
NEAR = 0.88  # of 1: how alike two options' names are before one is taken for the other
_OPTION = re.compile(r"^(?:# )?(CONFIG_\w+)(?:=| is not set)", re.MULTILINE)
_RUNNING = re.compile(r"\buname\s+-r\b")


@dataclass(frozen=True, slots=True)
class Finding:
    severity: str
    file: str
    line: int  # 0 where it is about the whole file, or its reader cannot tell
    key: str
    text: str


def lint(paths: Paths, config: Config, package: Package) -> tuple[Finding, ...]:
    """Errors first. Raises SandboxUnavailable where a dkms.conf cannot be evaluated."""
    conf = f"{package.source}/{RECIPE if package.kind == 'toml' else CONF}"
    if package.problem is not None:
        return (Finding(ERROR, package.source, 0, "", package.problem.text),)
    kernels = [k for k in find_kernels(paths) if k.kdir is not None] or [_no_kernel(paths)]
    found: list[Finding] = []
    recipes: list[Recipe] = []
    for kernel in kernels:
        abi = read_abi(paths, kernel) if kernel.kdir is not None else None
        recipes += _recipe(paths, config, package, kernel, abi, found)
    found += (Finding(WARNING, conf, 0, "", w.text) for r in recipes for w in r.warnings)
    if recipes:
        check = _toml if package.kind == "toml" else _dkms
        found += check(paths, config, package, kernels[-1], recipes)
        found += _means(paths, conf, recipes)
    return tuple(sorted(dict.fromkeys(found), key=lambda f: (f.severity != ERROR, f.line)))


def _no_kernel(paths: Paths) -> Kernel:
    """Some name has to be there for a conf to be evaluated with."""
    krel = os.uname().release
    return Kernel(krel, KernelState.HEADERS_ONLY, str(paths.modulesd(krel)), None, None, (), 0.0)


def _recipe(
    paths: Paths, config: Config, package: Package, kernel: Kernel, abi: KernelAbi | None, found: list[Finding]
) -> Iterator[Recipe]:
    try:
        yield read_recipe(paths, config, package, kernel, abi)
    except FactMissing as exc:
        found.append(Finding(WARNING, exc.path, exc.line, exc.key, exc.why))
    except RecipeError as exc:
        found.append(Finding(ERROR, exc.path, exc.line, exc.key, exc.why))


def _means(paths: Paths, conf: str, recipes: Sequence[Recipe]) -> Iterator[Finding]:
    """Programs and packages that building it takes."""
    tools = {t: "package.tools" for r in recipes for t in r.tools}
    if any(r.patches or r.series for r in recipes):
        tools.setdefault("patch", "")
    for tool, key in tools.items():
        if find_program(paths, tool) is None:
            yield Finding(ERROR, conf, 0, key, f"{tool} is not installed, and it cannot be built without it")
    names = {s.name for s in find_sources(paths)}
    for needed in dict.fromkeys(d for r in recipes for d in r.build_depends):
        if needed not in names:
            yield Finding(WARNING, conf, 0, "", f"it needs the package {needed}, which is not on this machine")


# ---- autokmod.toml -------------------------------------------------------------------------------


def _toml(
    paths: Paths, config: Config, package: Package, kernel: Kernel, recipes: Sequence[Recipe]
) -> Iterator[Finding]:
    del config, kernel, recipes
    recipe = read_recipe_file(paths, Path(package.source))
    for command in ("configure", "make", "install"):
        if _RUNNING.search(getattr(recipe.file.build, command)):
            yield _at(recipe, ("build", command), WARNING, BUILDS_FOR_RUNNING)
    known = known_options(paths)
    for key, option in _asked_options(recipe):
        why = misspelt(option, known)
        if why is not None:
            yield _at(recipe, key, WARNING, why)


def _at(recipe: TomlRecipe, key: Key, severity: str, text: str) -> Finding:
    return Finding(severity, recipe.path, recipe.text.line(key), recipe.error(key, "").key, text)


def _asked_options(recipe: TomlRecipe) -> Iterator[tuple[Key, str]]:
    file = recipe.file
    tables: Mapping[str, Sequence[object]] = {
        name: getattr(file, name) for name in ("module", "source", "patch", "define", "flags")
    }
    parts: list[tuple[Key, object]] = [(("package",), file.package)]
    parts += [((name, i), part) for name, items in tables.items() for i, part in enumerate(items)]
    for key, part in parts:
        when = getattr(part, "when", None)
        for option in when.texts("config") if when is not None else ():
            yield (*key, "when"), option.partition("=")[0]


BUILDS_FOR_RUNNING = "'uname -r' is the running kernel, not the one that is built for: $kernelver is"


# ---- dkms.conf -----------------------------------------------------------------------------------


def _dkms(
    paths: Paths, config: Config, package: Package, kernel: Kernel, recipes: Sequence[Recipe]
) -> Iterator[Finding]:
    """All that the conf says, also for kernels that are not here."""
    conf = f"{package.source}/{CONF}"
    raw = evaluate(paths, config, package, kernel, kernel_arch(None))
    yield from _missing_patches(paths, package, raw, conf)
    for name in ("PRE_BUILD", "POST_BUILD"):
        for script in dict.fromkeys(c.split()[0] for r in recipes if (c := getattr(r, name.lower()))):
            if not _is_script(paths, package, script):
                yield Finding(
                    WARNING, conf, 0, name, f"{script} is not there or not executable: it would be passed over"
                )
    for index, make in raw.values.get("MAKE", {}).items():
        if _RUNNING.search(make):
            yield Finding(WARNING, conf, 0, f"MAKE[{index}]", BUILDS_FOR_RUNNING)
    known = known_options(paths)
    for words in raw.values.get("BUILD_EXCLUSIVE_CONFIG", {}).values():
        for word in words.split():
            why = misspelt(word.removeprefix("!"), known)
            if why is not None:
                yield Finding(WARNING, conf, 0, "BUILD_EXCLUSIVE_CONFIG", why)


def _missing_patches(paths: Paths, package: Package, raw: RawConf, conf: str) -> Iterator[Finding]:
    places = (paths.at(f"etc/dkms/{package.name}/patches"), paths.resolve(package.source) / "patches")
    for index, patch in raw.values.get("PATCH", {}).items():
        if patch.strip() and not any((place / patch.strip()).is_file() for place in places):
            yield Finding(ERROR, conf, 0, f"PATCH[{index}]", f"there is no patches/{patch.strip()}")


def _is_script(paths: Paths, package: Package, script: str) -> bool:
    places = (paths.at(f"etc/dkms/{package.name}"), paths.resolve(package.source))
    return any(os.access(place / script, os.X_OK) for place in places)


# ---- options of the kernel -----------------------------------------------------------------------


def known_options(paths: Paths) -> frozenset[str]:
    """Of all kernels here, set or not."""
    found: set[str] = set()
    for kernel in find_kernels(paths):
        if kernel.kdir is not None:
            found |= _options(Path(kernel.kdir) / ".config")
    return frozenset(found)


def _options(path: Path) -> set[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return set(_OPTION.findall(f.read(CONFIG_LIMIT)))
    except OSError:
        return set()


def misspelt(option: str, known: frozenset[str]) -> str | None:
    """Only where another name is near: options whose dependencies are off are in no configuration at all."""
    if not known or option in known:
        return None
    names = [name.removeprefix("CONFIG_") for name in known]
    near = difflib.get_close_matches(option.removeprefix("CONFIG_"), names, n=1, cutoff=NEAR)
    return f"no kernel here knows {option}; did you mean CONFIG_{near[0]}?" if near else None
