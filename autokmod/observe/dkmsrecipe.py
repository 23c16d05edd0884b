"""From what bash had to a Recipe: the border behind which a dkms.conf is a checked value. Pure.

The rules are DKMS 3.4's. Where they differ here: versions compare as numbers (autokmod/versions), scripts that DKMS
would run as root at installation are not run, and DEST_MODULE_LOCATION, though it has to be there, does not decide
where modules go.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from autokmod.model import Package, Reason, Recipe, RecipeModule
from autokmod.observe.dkmseval import RawConf
from autokmod.observe.dkmsexclude import exclusion
from autokmod.observe.dkmsfields import Conf, KernelFacts, key_of
from autokmod.observe.sources import CONF

MAX_MODULES = 1000
MAX_VALUE = 16_384  # characters; the longest of Debian's archive has 700
MODULE_ARRAYS = ("BUILT_MODULE_NAME", "BUILT_MODULE_LOCATION", "DEST_MODULE_NAME", "DEST_MODULE_LOCATION")
DEST_TOPS = ("/kernel", "/updates", "/extra")
DEPRECATED = (
    "REMAKE_INITRD",
    "MODULES_CONF",
    "MODULES_CONF_OBSOLETES",
    "MODULES_CONF_ALIAS_TYPE",
    "MODULES_CONF_OBSOLETE_ONLY",
)
ROOT_SCRIPTS = ("POST_ADD", "PRE_INSTALL", "POST_INSTALL", "POST_REMOVE")
_MODULE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:-]*")
_OBJECT = re.compile(r"\.k?o(\.gz|\.xz|\.zst)?$")


def make_recipe(package: Package, kernel: KernelFacts, raw: RawConf) -> Recipe:
    """Raises RecipeError that names the conf, the key and what is wrong with it."""
    conf = Conf(raw, f"{package.source}/{CONF}")
    _check_text(conf)
    for name in ("PACKAGE_NAME", "PACKAGE_VERSION"):
        if not conf.scalar(name):
            raise conf.error(name, "is missing")
    all_modules = _modules(conf)
    excluded = {i: reason for i in range(len(all_modules)) if (reason := exclusion(conf, kernel, i)) is not None}
    everywhere = excluded.get(0)
    kept = tuple(m for i, m in enumerate(all_modules) if i not in excluded)
    if not all_modules:
        everywhere = Reason("excluded-modules", f"the recipe names no module for kernel {kernel.krel}")
    elif everywhere is None and not kept:
        everywhere = excluded[max(excluded)]
    return Recipe(
        name=package.name,
        version=package.version,
        modules=kept if everywhere is None else all_modules,
        make=_make(conf),
        patches=_patches(conf),
        autoinstall=conf.yes_no("AUTOINSTALL"),
        build_depends=_depends(conf),
        pre_build=conf.scalar("PRE_BUILD"),
        post_build=conf.scalar("POST_BUILD"),
        excluded=everywhere,
        warnings=tuple(_warnings(conf, package, excluded, all_modules)),
        link_allowed=not conf.yes_no("NO_WEAK_MODULES"),
    )


def _check_text(conf: Conf) -> None:
    for name, array in conf.raw.values.items():
        for index, value in array.items():
            if len(value) > MAX_VALUE:
                raise conf.error(key_of(name, index), f"is longer than {MAX_VALUE} characters")
            try:
                value.encode()
            except UnicodeEncodeError as exc:
                raise conf.error(key_of(name, index), "is not UTF-8") from exc


# ---- modules -------------------------------------------------------------------------------------


def _modules(conf: Conf) -> tuple[RecipeModule, ...]:
    count = max((max(conf.array(name), default=-1) + 1 for name in MODULE_ARRAYS), default=0)
    if count > MAX_MODULES:
        raise conf.error("BUILT_MODULE_NAME", f"names {count} modules, more than {MAX_MODULES}")
    modules = tuple(_module(conf, index, count) for index in range(count))
    _check_twins(conf, "BUILT_MODULE_NAME", [f"{m.built_location}/{m.built_name}" for m in modules])
    _check_twins(conf, "DEST_MODULE_NAME", [m.dest_name.replace("-", "_") for m in modules])
    return modules


def _module(conf: Conf, index: int, count: int) -> RecipeModule:
    built = conf.at("BUILT_MODULE_NAME", index) or (conf.scalar("PACKAGE_NAME") if count == 1 else "")
    if not built:
        raise conf.error(key_of("BUILT_MODULE_NAME", index), f"is missing: the conf has {count} modules")
    _check_module_name(conf, key_of("BUILT_MODULE_NAME", index), built)
    dest = conf.at("DEST_MODULE_NAME", index) or built
    _check_module_name(conf, key_of("DEST_MODULE_NAME", index), dest)
    _check_dest_location(conf, index)
    return RecipeModule(built, _built_location(conf, index), dest, _strip(conf, index))


def _check_module_name(conf: Conf, key: str, name: str) -> None:
    if _OBJECT.search(name):
        raise conf.error(key, f"'{name}' has to be without '.ko'")
    if "/" in name:
        raise conf.error(key, f"'{name}' holds a slash: directories belong in BUILT_MODULE_LOCATION")
    if not _MODULE_NAME.fullmatch(name):
        raise conf.error(key, f"{name!a} is not the name of a module")


def _check_dest_location(conf: Conf, index: int) -> None:
    location = conf.at("DEST_MODULE_LOCATION", index)
    key = key_of("DEST_MODULE_LOCATION", index)
    if not location:
        raise conf.error(key, "is missing")
    if not location.startswith(DEST_TOPS):
        raise conf.error(key, f"'{location}' begins with none of {', '.join(DEST_TOPS)}")
    if ".." in location.split("/"):
        raise conf.error(key, f"'{location}' leaves the modules directory")


def _built_location(conf: Conf, index: int) -> str:
    location = conf.at("BUILT_MODULE_LOCATION", index)
    if location.startswith("/") or ".." in location.split("/") or not location.isprintable():
        raise conf.error(key_of("BUILT_MODULE_LOCATION", index), f"{location!a} leaves the build directory")
    clean = posixpath.normpath(location) if location else ""
    return "" if clean == "." else clean


def _strip(conf: Conf, index: int) -> bool:
    own = conf.at("STRIP", index) or conf.at("STRIP", 0)
    return not own.lower().startswith("n")


def _check_twins(conf: Conf, name: str, values: list[str]) -> None:
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        if value in seen:
            raise conf.error(key_of(name, index), f"names the same module as {key_of(name, seen[value])}")
        seen[value] = index


# ---- commands ------------------------------------------------------------------------------------


def _make(conf: Conf) -> str:
    """The last MAKE whose MAKE_MATCH matches; MAKE[0] where it has no condition."""
    makes, conditions = conf.array("MAKE"), conf.array("MAKE_MATCH")
    chosen = makes.get(0, "") if not conditions.get(0) else ""
    for index in sorted(makes):
        if makes[index] and conditions.get(index) and conf.is_matched("MAKE_MATCH", index):
            chosen = makes[index]
    return chosen.strip()


def _patches(conf: Conf) -> tuple[str, ...]:
    patches, conditions = conf.array("PATCH"), conf.array("PATCH_MATCH")
    chosen = [(i, patches[i].strip()) for i in sorted(patches) if patches[i].strip()]
    wanted = [(i, p) for i, p in chosen if not conditions.get(i) or conf.is_matched("PATCH_MATCH", i)]
    for index, patch in wanted:
        if patch.startswith("/") or ".." in patch.split("/") or not patch.isprintable():
            raise conf.error(key_of("PATCH", index), f"{patch!a} leaves the patches directory")
    return tuple(patch for _, patch in wanted)


def _depends(conf: Conf) -> tuple[str, ...]:
    names = [
        name for index in sorted(conf.array("BUILD_DEPENDS")) for name in conf.array("BUILD_DEPENDS")[index].split()
    ]
    for name in names:
        if not _PACKAGE_NAME.fullmatch(name):
            raise conf.error("BUILD_DEPENDS", f"{name!a} is not the name of a package")
    conf.yes_no("BUILD_DEPENDS_REBUILD")
    return tuple(dict.fromkeys(names))


# ---- what a person may want to know --------------------------------------------------------------


def _warnings(
    conf: Conf, package: Package, excluded: Mapping[int, Reason], modules: tuple[RecipeModule, ...]
) -> Iterator[Reason]:
    said = f"{conf.scalar('PACKAGE_NAME')}-{conf.scalar('PACKAGE_VERSION')}"
    named = f"{package.name}-{package.version}"
    if said != named:
        text = f"the directory is named {named}, but its dkms.conf says {said}: the directory's name counts"
        yield Reason("package-name-differs", text, hint="rename the directory")
    if not modules:
        text = "BUILT_MODULE_NAME is missing: the conf names no module"
        yield Reason("no-modules", text, hint="that may be meant where the kernel has the driver itself")
    for name in (*DEPRECATED, "OBSOLETE_BY"):
        if any(conf.array(name).values()):
            yield Reason("deprecated", f"{name} is deprecated" + (" and ignored" if name in DEPRECATED else ""))
    for name in ROOT_SCRIPTS:
        if conf.scalar(name):
            yield Reason("script-not-run", f"{name}='{conf.scalar(name)}' is not run: no package's script runs as root")
    if 0 not in excluded:
        yield from (Reason("module-excluded", f"{modules[i].dest_name}: {r.text}") for i, r in excluded.items())
