"""depmod's index of one kernel: made once, then read back as the proof of each placement.

A depmod that fails is a state of its kernel, told in the status, and tried again with the next look.
"""

from __future__ import annotations

from dataclasses import replace

from autokmod.act.depmod import depmod_cmd, run_depmod, verify_placed
from autokmod.errors import CommandFailed, FormatError, ToolMissing
from autokmod.model import KernelRecord, Placement, Reason
from autokmod.observe.beside import find_missing
from autokmod.paths import Paths


def make_index(paths: Paths, krel: str) -> Reason | None:
    """None when it was made."""
    try:
        run_depmod(paths, krel)
    except (CommandFailed, ToolMissing, OSError) as exc:
        command = " ".join(depmod_cmd(paths, krel))
        return Reason("depmod-failed", f"the index of its modules is not up to date: {exc}", hint=f"try '{command}'")
    return None


def verify(paths: Paths, krel: str, placement: Placement, index_problem: Reason | None = None) -> Placement:
    """`verified` is true only for what was just seen: depmod picks each file, with these bytes."""
    if not placement.files:
        seen = bool(placement.beside) and not list(find_missing(paths, krel, placement.beside))
        return replace(placement, verified=seen)
    problems = (index_problem,) if index_problem else _problems(paths, krel, placement)
    if not problems:
        return replace(placement, verified=True)
    return replace(placement, verified=False, failed=True, reasons=(*problems, *placement.reasons))


def _problems(paths: Paths, krel: str, placement: Placement) -> tuple[Reason, ...]:
    try:
        return verify_placed(paths, krel, placement.files)
    except (FormatError, OSError) as exc:
        return (Reason("index-unreadable", f"depmod's index cannot be read: {exc}", hint=f"try 'depmod {krel}'"),)


def index_again(paths: Paths, record: KernelRecord) -> KernelRecord:
    """For a kernel whose files changed outside of a decision of its own."""
    problem = make_index(paths, record.krel)
    verified = tuple(verify(paths, record.krel, p, problem) for p in record.placements)
    return replace(record, placements=verified, index=problem)
