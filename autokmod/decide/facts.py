"""Everything the planner looks at for one kernel. Made anew by the engine for each look; never kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autokmod.config import Config
from autokmod.decide.signing import Signing
from autokmod.model import (
    Build,
    ForeignBuild,
    Kernel,
    KernelAbi,
    KernelRecord,
    ModuleFacts,
    Package,
    Placement,
    Reason,
    Recipe,
    Stablelist,
)


@dataclass(frozen=True, slots=True)
class Facts:
    kernel: Kernel
    abi: KernelAbi
    config: Config
    packages: tuple[Package, ...]
    recipes: Mapping[str, Recipe] = field(default_factory=dict)  # package id → recipe for this kernel
    recipe_problems: Mapping[str, Reason] = field(default_factory=dict)  # package id → why there is none
    source_keys: Mapping[str, str] = field(default_factory=dict)  # package id → source key
    keys: Mapping[str, str] = field(default_factory=dict)  # package id → build key on this kernel
    builds: tuple[Build, ...] = ()  # the whole store
    contents: Mapping[str, tuple[ModuleFacts, ...]] = field(default_factory=dict)  # build key → its modules
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # build key → other krels with own files of it
    record: KernelRecord | None = None
    intact: frozenset[str] = frozenset()  # names of packages whose placement here is on disk as recorded
    foreign: tuple[ModuleFacts, ...] = ()  # other owners' out-of-tree modules that depmod picks here
    foreign_builds: tuple[ForeignBuild, ...] = ()  # other owners' builds in any kernel, to be linked to
    stable: Stablelist | None = None  # the distribution's list of stable symbols for this kernel
    build_problem: Reason | None = None  # nothing can be built for this kernel now: toolchain, sandbox
    signing_problem: Reason | None = None  # unsigned modules would be refused by this kernel
    force: bool = False  # a person asked: failed builds are tried again
    tried: Mapping[str, Reason | None] = field(default_factory=dict)  # build keys of this run → why not even tried
    lost: tuple[tuple[Placement, Reason], ...] = ()  # what stands here or elsewhere, and its source is out of sight
    signing: Signing | None = None  # with which key modules are signed here; None: nothing is known of that
