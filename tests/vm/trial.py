"""Puts one question to the loader and to the checker, and holds the answers against each other."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace

from autokmod.decide.compat import check_set
from autokmod.errors import FormatError
from autokmod.model import CompatResult, Reason, Verdict
from autokmod.observe.blob import decompress
from autokmod.observe.ko import parse_module
from tests.vm.made import ENFORCE, KMOD, LOCKDOWN, Made
from tests.vm.protocol import Answer
from tests.vm.qemu import Case, Insertion, ask
from tests.vm.sharedlibs import program_files
from tests.vm.target import Target


@dataclass(frozen=True, slots=True)
class Trial:
    made: Made
    answer: Answer
    result: CompatResult


def run_made(target: Target, made: Iterable[Made]) -> list[Trial]:
    ordered = sorted(made, key=lambda m: m.options)
    trials = []
    for options, group in itertools.groupby(ordered, key=lambda m: m.options):
        cases = list(group)
        programs = program_files("/usr/bin/kmod", KMOD) if any(m.tool for m in cases) else {}
        session = ask(target.machine(options, programs), [case_of(m, target) for m in cases])
        trials += [Trial(m, session.answers[m.id], judge(m, target)) for m in cases]
    return trials


def case_of(made: Made, target: Target) -> Case:
    others = tuple(Insertion(o.name, o.data) for o in made.others)
    module = Insertion(made.name, made.data, flags=made.flags, tool=made.tool, suffix=made.suffix)
    return Case(made.id, module, (*target.needs(made.symbols), *others))


def judge(made: Made, target: Target) -> CompatResult:
    """The checker's verdict, in the words of the command line: what cannot be read is unknown."""
    others = [parse_module(f"/{o.id}", o.data) for o in made.others]
    try:
        facts = parse_module(f"/{made.id}{made.suffix}", decompress(made.data, made.id))
    except FormatError as exc:
        return CompatResult(made.id, made.name, Verdict.UNKNOWN, 0, (Reason("unreadable", str(exc)),))
    enforced = made.options in (ENFORCE, LOCKDOWN) or None
    with tempfile.NamedTemporaryFile(suffix=".ko") as file:  # a signature is verified against the file's bytes
        file.write(decompress(made.data, made.id))
        file.flush()
        judged = target.own_key.judge(replace(facts, path=file.name))
    return check_set([*others, judged], target.abi, {}, sig_enforced=enforced)[-1]
