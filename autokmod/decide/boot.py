"""After a boot: is loaded what was promised?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from autokmod.model import BootCheck, BootedModule, LoadState, ModuleId


@dataclass(frozen=True, slots=True)
class Promise:
    """A module that stands on disk, verified, for the kernel that runs."""

    module: str
    package: str
    id: ModuleId
    required: bool


def decide_booted(
    promises: Iterable[Promise], loaded: Mapping[str, ModuleId], kept: Collection[str] = ()
) -> tuple[BootedModule, ...]:
    """In the order of the promises. `loaded`: by kernel name. `kept`: what this boot had loaded as promised already;
    that somebody took it out since, or placed another, says nothing of the boot."""
    return tuple(
        BootedModule(
            p.module,
            p.package,
            LoadState.LOADED if p.module in kept else _state(p.id, loaded.get(p.module)),
            p.required,
        )
        for p in promises
    )


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
    others = [f"{m.module} {WORDS[m.state]}" for m in check.modules if m.state is not LoadState.LOADED]
    return "; ".join((f"booted: {good} of {len(check.modules)} loaded as promised", *others))
