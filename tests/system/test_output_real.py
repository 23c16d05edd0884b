"""What the compiler said, found in the journal by the job's number."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from autokmod import journal
from autokmod.config import Config
from autokmod.jobs.engine import Engine
from autokmod.model import Job, Verb
from autokmod.run import Cancel
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.journaldhere import Heard
from tests.mainjob import GOOD_SOURCE, make_source

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

WRONG = GOOD_SOURCE + "int wrong(void);\nint wrong(void) { return no_such_thing; }\n"


def test_make_and_gcc_are_in_the_journal(real_root: MakeRoot, corpus: Corpus, heard: Heard) -> None:
    krel = corpus.trio.first
    root = real_root(kernels=(krel,))
    make_source(root, "good")
    make_source(root, "wrong", source=WRONG)
    with journal.context(job=7), closing(Engine(root.paths, Config(), time.time)) as engine:
        engine.run_job(Job(Verb.RECONCILE, krel, "test", time.time()), Cancel(), lambda _: None)
    mine = [entry for entry in heard() if entry.get("AUTOKMOD_JOB") == "7"]
    plain = [entry for entry in mine if "MESSAGE_ID" not in entry]
    printed = {name: [e for e in plain if e.get("AUTOKMOD_PACKAGE") == name] for name in ("good", "wrong")}
    assert any("good.o" in e["MESSAGE"] for e in printed["good"]), printed
    assert any("wrong.c:4" in e["MESSAGE"] and "no_such_thing" in e["MESSAGE"] for e in printed["wrong"]), printed
    for entry in (*printed["good"], *printed["wrong"]):
        assert (entry["PRIORITY"], entry["AUTOKMOD_KERNEL"]) == ("6", krel)
