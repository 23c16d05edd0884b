"""Other owners' builds seen from one kernel: which of them a package could be linked to, and what stands there already.

A vendor's package has no source here: it is known by its modules in some kernel, and can only be kept or linked. What
another owner put into this very kernel is left alone, and nothing is linked in its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from autokmod.decide.buildkey import CHOSEN
from autokmod.decide.facts import Facts
from autokmod.model import Build, BuiltModule, ForeignBuild, ModuleFacts, Package, PlacedFile, Recipe

VENDOR = "vendor"  # Package.kind
_NOTHING = Recipe(
    name="",
    version="",
    modules=(),
    make="",
    patches=(),
    autoinstall=True,
    build_depends=(),
    pre_build="",
    post_build="",
    excluded=None,
)


def vendor_packages(facts: Facts) -> tuple[Package, ...]:
    names = {b.package for b in facts.foreign_builds if not b.origin.has_source} - {p.name for p in facts.packages}
    return tuple(Package(name, builds_of(facts, name)[0].version, "", VENDOR, "") for name in sorted(names))


def builds_of(facts: Facts, name: str) -> list[ForeignBuild]:
    """Of one vendor's package. Those of this very kernel first: they say what stands here."""
    mine = [b for b in facts.foreign_builds if b.package == name and not b.origin.has_source]
    return sorted(mine, key=lambda b: b.krel != facts.kernel.krel)


def recipe_of(facts: Facts, package: Package) -> Recipe:
    """A vendor's package promises nothing."""
    if package.kind == VENDOR:
        return _NOTHING
    return facts.recipes[package.id]


def sources_of(facts: Facts, package: Package, recipe: Recipe) -> list[ForeignBuild]:
    """Readable builds of the whole package, in any kernel."""
    if package.kind == VENDOR:
        return [b for b in builds_of(facts, package.name) if b.problem is None]
    promised = promised_names(recipe)
    mine = (b for b in facts.foreign_builds if (b.package, b.version) == (package.name, package.version))
    return [b for b in mine if is_dkms_s(recipe) and b.origin.has_source and b.problem is None and b.names == promised]


def is_dkms_s(recipe: Recipe) -> bool:
    """Whether DKMS builds the same of it: it knows neither autokmod.toml nor the administrator's patches and flags."""
    return recipe.kind == "dkms" and not any(getattr(recipe, name) for name in CHOSEN)


def promised_names(recipe: Recipe) -> frozenset[str]:
    """Kernel names."""
    return frozenset(m.dest_name.replace("-", "_") for m in recipe.modules)


def standing(facts: Facts, names: Set[str]) -> list[ModuleFacts]:
    """Other owners' modules of these names that depmod would pick here, but for ours. It goes by the names of files."""
    return [m for m in facts.foreign if _file_name(m) in names]


def files_here(facts: Facts, modules: Iterable[ModuleFacts]) -> tuple[PlacedFile, ...]:
    """These modules' files, where they lie in this kernel's own directory."""
    names = {_file_name(m) for m in modules}
    here = (b for b in facts.foreign_builds if b.krel == facts.kernel.krel and not b.taken_over and b.problem is None)
    return tuple(f for b in here for f in b.files if f.module in names)


def _file_name(module: ModuleFacts) -> str:
    return module.path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def is_taken(facts: Facts, names: Set[str]) -> bool:
    """Whether another owner put modules of these names here, be they readable or not."""
    here = (b for b in facts.foreign_builds if b.krel == facts.kernel.krel and not b.taken_over)
    return bool(standing(facts, names)) or any(b.names & names for b in here)


def names_of(builds: Iterable[ForeignBuild]) -> frozenset[str]:
    return frozenset(name for build in builds for name in build.names)


def as_build(found: ForeignBuild) -> Build:
    """What candidates are made of. It is in no store: there is no directory."""
    modules = tuple(
        BuiltModule(f.module, f.module, f.path, f.sha256, f.size, m.srcversion, m.vermagic)
        for f, m in zip(found.files, found.modules, strict=True)
    )
    return Build(
        key=found.key,
        source_key="",
        package=found.package,
        version=found.version,
        krel=found.origin.krel,
        ok=True,
        transient=False,
        errors=(),
        modules=modules,
        built_at=0.0,
        duration_s=0.0,
        directory="",
        features=found.origin.features,
    )
