"""What went wrong for a moment is right again afterwards, and meanwhile no module was lost."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from autokmod.jobs.spool import Spool
from autokmod.model import Verb
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.mainjob import (
    CONF,
    NAME,
    QUICK,
    check_linked,
    host_modules,
    make_source,
    oneshot,
    placement,
    program,
    status,
    wait_until,
)
from tests.system.test_build_verb import is_running


def test_damage_and_repair(real_root: MakeRoot, corpus: Corpus) -> None:
    first, second = corpus.trio.first, corpus.trio.equal
    root = real_root(kernels=(first, second), packages=(QUICK,))
    oneshot(root)
    (conf,) = root.paths.usr_src.glob(f"{NAME}-*/dkms.conf")
    text = conf.read_text()

    conf.write_text("if then (\n")
    oneshot(root, expect=1)
    for krel in (first, second):
        assert placement(root, krel)["kind"] == "blocked"
        assert all(file.is_file() for file in host_modules(root, krel))
    conf.write_text(text)
    oneshot(root)
    assert [status(root, krel)["readiness"] for krel in (first, second)] == ["ready", "ready"]

    (owner,) = {placement(root, krel)["link_from"] for krel in (first, second)} - {None}
    (linker,) = {first, second} - {owner}
    for file in host_modules(root, owner):
        found, data = file.stat(), file.read_bytes()
        file.write_bytes(b"\0" * len(data))
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    oneshot(root, "--kernel", owner)
    oneshot(root)
    check_linked(root, linker, owner)

    for krel in (first, second):
        root.paths.record(krel).unlink()
    for build in root.paths.builds.iterdir():
        build.rename(root.path / "tmp" / build.name)
    (headers,) = root.paths.usr_src.glob(f"linux-headers-{owner}")
    (headers / "Module.symvers").unlink()
    oneshot(root, "--kernel", owner, expect=1)
    assert status(root, owner)["readiness"] == "waiting"
    assert all(file.is_file() for file in host_modules(root, owner))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_oneshot_ends_at_once_and_loses_nothing(
    real_root: MakeRoot, corpus: Corpus, number: signal.Signals
) -> None:
    krel, mark = corpus.trio.first, "86398.25"
    root = real_root(kernels=(krel,))
    make_source(root, "slow", conf=CONF + f'MAKE[0]="sleep {mark}"\n')
    Spool(root.paths).add(Verb.RECONCILE, krel, "test")
    command = program("autokmod.daemon.main", root, "--oneshot")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: is_running(mark), Path(os.devnull))
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "it was interrupted: what is left to do is done the next time" in said
    assert "Traceback" not in said
    assert not is_running(mark)
    assert (os.listdir(root.paths.work), os.listdir(root.paths.builds)) == ([], [])
    assert [job.krel for job in Spool(root.paths).jobs()] == [krel]
