"""Does a kernel's initrd carry what it should? Which modules belong in it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from autokmod.model import Reason

OPAQUE = "initrd-opaque"


@dataclass(frozen=True, slots=True)
class Standing:
    """A module that modprobe would take on the kernel."""

    path: str  # below its modules directory
    digest: str  # sha256, uncompressed


@dataclass(frozen=True, slots=True)
class Claims:
    """Why a module may belong in an image. All are kernel names."""

    carried: frozenset[str] = frozenset()  # in this kernel's image, or in one that was good for another kernel
    declared: frozenset[str] = frozenset()  # by the administrator or the recipe
    named: frozenset[str] = frozenset()  # by the generator's configuration
    needs: Mapping[str, frozenset[str]] | None = (
        None  # module of the kernel → what modules.dep and softdeps say it needs
    )


def belonging(standing: Iterable[str], claims: Claims) -> dict[str, str]:
    """Of the modules that stand: those that belong in the image, and why, in words."""
    mine = frozenset(standing)
    claimed = dict.fromkeys(claims.carried, "the image carries it")
    claimed |= dict.fromkeys(claims.named, "the generator's configuration names it")
    claimed |= dict.fromkeys(claims.declared, "its package asks for it")
    found = {n: why for n, why in claimed.items() if n in mine}
    for name in sorted(claimed):
        for needed in sorted((claims.needs or {}).get(name, frozenset()) & mine):
            found.setdefault(needed, f"{name} needs it")
    return dict(sorted(found.items()))


def judge_image(
    expected: Mapping[str, Standing],
    carried: Mapping[str, tuple[str, ...]],
    digests: Mapping[str, str],
    index: bytes,
    opaque: tuple[str, ...] = (),
) -> dict[str, Reason]:
    """Kernel name → what is wrong with it; nothing if the image would load what stands on disk."""
    return {
        name: reason
        for name, standing in sorted(expected.items())
        if (reason := _judge(name, standing, carried.get(name, ()), digests, index, opaque)) is not None
    }


def left_over(ours: Collection[str], standing: Collection[str]) -> dict[str, Reason]:
    """Kernel name → what is wrong with it. `ours`: the image carries them where autokmod places modules."""
    gone = sorted(frozenset(ours).difference(standing))
    return {name: Reason("initrd-left-over", f"it still carries {name}, which is placed no more") for name in gone}


def _judge(
    name: str,
    standing: Standing,
    paths: tuple[str, ...],
    digests: Mapping[str, str],
    index: bytes,
    opaque: tuple[str, ...],
) -> Reason | None:
    if opaque:  # right or not beside it: what is hidden may come first
        return Reason(OPAQUE, f"whether it carries {name} is hidden in {', '.join(opaque)}")
    if not paths:
        return Reason("initrd-lacks", f"it lacks {name}")
    lines = {line.partition(b":")[0] for line in index.splitlines()}
    known = [p for p in paths if p.encode("utf-8", "surrogateescape") in lines]
    if not known:
        return Reason("initrd-unlisted", f"it carries {name}, but its modules.dep does not know it")
    if any(digests.get(p) != standing.digest for p in known):
        return Reason("initrd-stale", f"it carries another {name} than stands on disk")
    return None
