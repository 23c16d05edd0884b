"""After a boot: is loaded what was promised?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from autokmod.model import BootCheck, BootedModule, LoadState, ModuleId


@dataclass(frozen=True, slots=True)
class Promise:
    """A module that stands on disk, verified, for the kernel that runs."""

    module: str
    package: str
    id: ModuleId | None  # None: the file says nothing
    required: bool
    is_new: bool = False  # placed since the boot


def decide_booted(
    promises: Iterable[Promise], loaded: Mapping[str, ModuleId], kept: Collection[str] = ()
) -> tuple[BootedModule, ...]:
    """In the order of the promises. `loaded`: by kernel name. `kept`: what this boot had loaded as promised already;
    that somebody took it out since, or placed another, says nothing of the boot. Nor does what is new, and not loaded
    yet, unless it is required."""
    return tuple(m for p in promises if (m := _booted(p, loaded, kept)) is not None)


def _booted(promise: Promise, loaded: Mapping[str, ModuleId], kept: Collection[str]) -> BootedModule | None:
    name = promise.module
    if name in kept:
        state = LoadState.LOADED
    elif promise.id is not None:
        state = _state(promise.id, loaded.get(name))
    else:
        return None
    is_nothing = promise.is_new and not promise.required and state is not LoadState.LOADED
    return None if is_nothing else BootedModule(name, promise.package, state, promise.required)


def decide_lacking(promises: Sequence[Promise], required: Iterable[str], kept: Collection[str] = ()) -> tuple[str, ...]:
    """Of the packages that are required, those of which no module is in place, or one that cannot be compared."""
    silent = {p.package for p in promises if p.id is None and p.module not in kept}
    whole = {p.package for p in promises} - silent
    return tuple(name for name in required if name not in whole)


def _state(built: ModuleId, found: ModuleId | None) -> LoadState:
    """Source versions may be equal where builds differ; build ids are not. One that differs is enough."""
    if found is None:
        return LoadState.NOT_LOADED
    pairs = ((built.srcversion, found.srcversion), (built.build_id, found.build_id))
    known = [a == b for a, b in pairs if a is not None and b is not None]
    if not known:
        return LoadState.UNTOLD
    return LoadState.LOADED if all(known) else LoadState.OTHER


WORDS = {
    LoadState.OTHER: "is another than stands on disk",
    LoadState.UNTOLD: "is loaded, and does not say what it is",
    LoadState.NOT_LOADED: "is not loaded",
}


def boot_sentence(check: BootCheck) -> str:
    good = sum(m.state is LoadState.LOADED for m in check.modules)
    promised = [f"{good} of {len(check.modules)} loaded as promised"] if check.modules else []
    others = [f"{m.module} {WORDS[m.state]}" for m in check.modules if m.state is not LoadState.LOADED]
    lacking = [f"{name} is required, and not in place" for name in check.lacking]
    return f"booted: {'; '.join((*promised, *others, *lacking))}"


def boot_word(check: BootCheck | None) -> str:
    """For programs."""
    if check is None or check.is_about_nothing:
        return "unknown"
    return "as-promised" if check.is_good else "differs"
