"""Every *-dkms package of the archive, on kernels of two series: at least what DKMS installs, the same complaint else.

`make test-corpus`. What DKMS makes of them is kept in the corpus' cache (tests/dkms.py). The tables are printed, and
kept there as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest

from autokmod.model import Placement
from autokmod.observe.records import read_record
from tests import dkms
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.cost import measured
from tests.mainjob import program
from tests.realroot import RealRoot
from tests.vm.matrix import newest_series

pytestmark = [pytest.mark.root, pytest.mark.corpus]
FLAVOUR = "AUTOKMOD_TEST_FLAVOUR"  # of the kernels; by default the one with the smallest images
MAX_TEXT = 300  # characters of an error


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one package, by both."""

    theirs: dkms.Outcome
    ours: Placement | None

    @property
    def modules(self) -> frozenset[str]:
        files = self.ours.files if self.ours is not None and self.ours.verified else ()
        return frozenset(file.module for file in files)

    @property
    def missing(self) -> frozenset[str]:
        return frozenset(name.replace("-", "_") for name in self.theirs.modules) - self.modules

    @property
    def their_errors(self) -> tuple[str, ...]:
        log = self.theirs.log.replace(f"/var/lib/dkms/{self.theirs.id}/build/", "")
        return tuple(f"{m['file']}:{m['line']}: {m['text'].strip()[:MAX_TEXT]}" for m in dkms.ERROR.finditer(log))

    @property
    def our_error(self) -> str:
        errors = self.ours.errors if self.ours is not None else ()
        return f"{errors[0].file}:{errors[0].line}: {errors[0].text}" if errors else ""

    @property
    def judgement(self) -> str:
        if self.missing:
            return f"MISSING {', '.join(sorted(self.missing))}"
        if self.theirs.state == "installed":
            return "both install it"
        if self.modules:
            return "autokmod alone installs it"
        if self.theirs.state == "failed" and self.their_errors:
            return self._compared()
        return "neither installs it"

    def _compared(self) -> str:
        """Two compilers run at once: of several files with errors, another one may complain first."""
        if self.our_error == self.their_errors[0]:
            return "the same first error"
        return "the same errors, another first" if self.our_error in self.their_errors else "ANOTHER ERROR"


@pytest.mark.parametrize("series", ["default", "newest"])
def test_all_that_dkms_installs(
    series: str, real_root: MakeRoot, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    flavour = os.environ.get(FLAVOUR) or corpus.archive.flavours()[0]
    krel = corpus.archive.kernels(flavour)[0] if series == "default" else newest_series(corpus, flavour)
    names = dkms.packages(corpus)
    reference = dkms.reference(corpus, krel, names)
    root = real_root(kernels=(krel,), packages=names)
    rows = compare(root, krel, reference)
    table = "\n".join([f"{krel}: {len(rows)} packages", *lines(rows), *summary(rows), ""])
    (corpus.directory / "dkms" / f"table-{krel}.txt").write_text(table)
    with capsys.disabled():
        print(f"\n{table}")
    assert len(rows) > 20
    assert not [row.theirs.package for row in rows if row.judgement.startswith(("MISSING", "ANOTHER"))]


def compare(root: RealRoot, krel: str, reference: Mapping[str, dkms.Outcome]) -> list[Row]:
    log = root.path / "var/log/autokmod"
    cost = measured(program("autokmod.daemon.main", root, "--oneshot", "--kernel", krel), log)
    said = log.read_text(errors="replace")
    assert cost.returncode in (0, 1), said
    assert "Traceback" not in said, said
    record = read_record(root.paths, krel)
    assert record is not None, said
    placements = {p.package: p for p in record.placements}
    return [Row(outcome, placements.get(outcome.id.split("/")[0])) for outcome in reference.values()]


def lines(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        yield f"{row.theirs.package:<26} {row.theirs.state:<9}  {kind(row):<9}  {row.judgement}"
        if row.judgement.startswith("the same"):
            yield f"{'':<28}{row.our_error}"
        elif row.judgement == "ANOTHER ERROR":
            yield f"{'':<28}DKMS:     {row.their_errors[0]}"
            yield f"{'':<28}autokmod: {row.our_error or reason(row)}"
        elif row.judgement != "both install it":
            yield f"{'':<28}{reason(row)}"


def kind(row: Row) -> str:
    if row.modules:
        return "installed"
    return "failed" if row.ours is not None and row.ours.failed else str(row.ours.kind if row.ours else "nothing")


def reason(row: Row) -> str:
    return row.ours.reasons[0].text if row.ours is not None and row.ours.reasons else ""


def summary(rows: Sequence[Row]) -> Iterator[str]:
    judgements = [row.judgement.split(" MISSING ")[0] for row in rows]
    for judgement in sorted(set(judgements)):
        yield f"{judgements.count(judgement):>4}  {judgement}"
