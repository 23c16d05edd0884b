"""A look into a kernel's image: what belongs in it, and what is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autokmod.config import Config
from autokmod.decide.image import OPAQUE, Claims, Standing, belonging, judge_image, left_over
from autokmod.errors import FormatError
from autokmod.model import KernelRecord, PlacedFile, Placement, Reason
from autokmod.observe.blob import read_blob
from autokmod.observe.image.carried import Carried, MadeForOther, read_carried
from autokmod.observe.image.named import read_named
from autokmod.observe.modtree import read_needs
from autokmod.paths import OWN, WEAK, Paths


@dataclass(frozen=True, slots=True)
class Examined:
    """One look into an image."""

    expected: Mapping[str, str]  # module → why it belongs there
    problems: tuple[Reason, ...]
    made_by: str | None
    wrong: frozenset[str] | None  # the modules that problems are about; None: the image as a whole
    laid_over: frozenset[str]  # what an overlay carries

    @property
    def is_hidden(self) -> bool:
        """Nothing is known to be wrong, nor to be right."""
        return bool(self.problems) and all(p.kind == OPAQUE for p in self.problems)

    def is_for_overlay(self, overlaid: frozenset[str]) -> bool:
        """Nothing else is wrong than what is to be laid over."""
        return self.wrong is not None and bool(self.wrong) and self.wrong <= overlaid


@dataclass(frozen=True, slots=True)
class Looking:
    paths: Paths
    config: Config
    krel: str
    records: Callable[[], Mapping[str, KernelRecord]]

    def look(self, record: KernelRecord, image: Path, before: Iterable[str] = ()) -> Examined:
        """`before`: what belonged into the image that it is to replace."""
        standing = read_standing(self.paths, record)
        damage: tuple[Reason, ...] = ()
        try:
            carried = read_carried(str(image), self.krel, standing)
        except MadeForOther as exc:
            carried = Carried({}, {}, b"", (), exc.made_by)
            damage = (Reason("initrd-other", str(exc)),)
        except (FormatError, OSError) as exc:
            carried = Carried({}, {}, b"", (), None)
            damage = (Reason("initrd-damaged", f"no kernel would unpack it: {exc}"),)
        expected = self.expected(record, (*carried.modules, *before))
        here = {name: standing[name] for name in expected}
        wrong = judge_image(here, carried.modules, carried.digests, carried.index, carried.opaque)
        wrong |= left_over(_ours(carried), standing)
        problems = damage or tuple(wrong.values())
        return Examined(expected, problems, carried.made_by, None if damage else frozenset(wrong), carried.laid_over)

    def expected(self, record: KernelRecord, carried: Iterable[str]) -> dict[str, str]:
        """Of the modules that stand those that belong in the image, and why. `carried`: kernel names."""
        declared = {p.package for p in record.placements if self.config.package(p.package).initrd}
        claims = Claims(
            carried=frozenset([*carried, *self._carried_elsewhere()]),
            declared=frozenset(f.module for p in record.placements if p.package in declared for f in placed(p)),
            named=read_named(self.paths),
            needs=read_needs(self.paths.modulesd(self.krel)),
        )
        return belonging((f.module for p in record.placements for f in placed(p)), claims)

    def overlaid(self, record: KernelRecord) -> frozenset[str]:
        """Kernel names of what reaches the image by an overlay alone."""
        config = self.config
        chosen = [
            p for p in record.placements if config.initrd.overlay or config.package(p.package).initrd == "overlay"
        ]
        return frozenset(f.module for p in chosen for f in p.files)

    def _carried_elsewhere(self) -> frozenset[str]:
        """What good images of other kernels carry: this one's may have been made before the module was there."""
        others = (r for krel, r in self.records().items() if krel != self.krel and r.initrd_ok)
        return frozenset(m for r in others for m in r.initrd_modules)


def _ours(carried: Carried) -> frozenset[str]:
    """By where they are: whatever name the kernel's own modules have, they are somewhere else."""
    rooms = (f"{OWN}/", f"{WEAK}/")
    return frozenset(name for name, paths in carried.modules.items() if any(p.startswith(rooms) for p in paths))


def read_standing(paths: Paths, record: KernelRecord) -> dict[str, Standing]:
    """What is placed and verified on this kernel. Raises OSError, FormatError: it was verified a moment ago."""
    modulesd = paths.modulesd(record.krel)
    files = [f for p in record.placements for f in placed(p)]
    return {f.module: Standing(f.path, hashlib.sha256(read_blob(modulesd / f.path)).hexdigest()) for f in files}


def placed(placement: Placement) -> tuple[PlacedFile, ...]:
    """Also another owner's that are relied upon: for an image it is all the same who made them."""
    return placement.files or (placement.beside if placement.verified else ())
