"""autokmodctl build, with real headers and compiler: what it answers, and that nothing is ever compiled twice.

Every build that really ran has left its log: the times of the logs in the store count compilations.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autokmod.files import locked
from autokmod.jobs.compile import LOOK_S
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.mainjob import CONF, GOOD_SOURCE, LIMIT_S, ctl, daemon, make_source, oneshot, placement, program, wait_until
from tests.realroot import RealRoot

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

BROKEN = """
#include <linux/module.h>
#include <linux/fs.h>
int f(struct inode *inode) { return inode->no_such_member + no_such_function(); }
MODULE_LICENSE("GPL");
"""
EXPORTING = GOOD_SOURCE + "int provided(void);\nint provided(void) { return 1; }\nEXPORT_SYMBOL_GPL(provided);\n"
IMPORTING = GOOD_SOURCE + "int provided(void);\nint f(void);\nint f(void) { return provided(); }\n"


def build(root: RealRoot, *args: str, expect: int = 0) -> Any:
    command = program("autokmod.ctl.main", root, "build", *args, "--json=short")
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return {(c["package"], c["krel"]): c for c in json.loads(done.stdout)["cells"]}


def outcomes(cells: Any) -> dict[str, str]:
    return {package: cell["outcome"] for (package, _), cell in cells.items()}


def compiled(root: RealRoot) -> dict[str, int]:
    """Every entry of the store, and when its log was written: another one is there after each compilation."""
    return {p.parent.name: p.stat().st_mtime_ns for p in root.paths.builds.glob("*/build.log")}


def text(root: RealRoot, *args: str) -> str:
    command = program("autokmod.ctl.main", root, "build", *args)
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S).stdout


def test_a_matrix_and_what_reconcile_finds_then(real_root: MakeRoot, corpus: Corpus) -> None:
    first, other = corpus.trio.first, corpus.trio.other
    root = real_root(kernels=(first, other))
    make_source(root, "plain")
    make_source(root, "broken", source=BROKEN)
    make_source(root, "picky", conf=CONF + f"BUILD_EXCLUSIVE_KERNEL='^{first.replace('.', '[.]')}$'\n")

    cells = build(root, "--all", "--all-kernels", expect=1)
    assert {key: c["outcome"] for key, c in cells.items()} == {
        ("plain", first): "built",
        ("plain", other): "built",
        ("broken", first): "failed",
        ("broken", other): "failed",
        ("picky", first): "built",
        ("picky", other): "excluded",
    }
    errors = cells["broken", first]["errors"]
    assert [(e["file"], e["line"], e["symbol"]) for e in errors][:2] == [
        ("broken.c", 4, "no_such_member"),
        ("broken.c", 4, "no_such_function"),
    ]
    assert (root.path / cells["broken", first]["log"].lstrip("/")).is_file()
    assert not list(root.paths.modules.glob("*/*/autokmod")), "nothing is placed"
    assert not list(root.paths.kernels.glob("*")), "and nothing recorded"

    before = compiled(root)
    assert len(before) == 5
    shown = text(root, "plain", "broken", "--kernel", first, other)
    assert shown.splitlines()[0].split() == ["PACKAGE", "VERSION", first, other]
    assert shown.splitlines()[1].split()[:4] == ["broken", "1", "failed:", "no_such_member"]
    assert shown.splitlines()[2].split() == ["plain", "1", "known", "known"]
    assert "    broken.c:4: implicit declaration of function 'no_such_function'" in shown
    assert compiled(root) == before, "neither what is built nor what failed is compiled again"

    oneshot(root, expect=1)
    assert compiled(root) == before, "a reconcile compiles nothing"
    assert placement(root, first, "plain")["verified"]
    assert placement(root, first, "broken")["failed"]


def test_a_failure_is_tried_again_when_something_changed_or_a_person_asks(real_root: MakeRoot, corpus: Corpus) -> None:
    first = corpus.trio.first
    root = real_root(kernels=(first,))
    source = make_source(root, "broken", source=BROKEN)
    build(root, "broken", "--kernel", first, expect=1)
    once = compiled(root)
    oneshot(root, expect=1)
    oneshot(root, expect=1)
    assert compiled(root) == once

    build(root, "broken", "--kernel", first, "--force", expect=1)
    asked = compiled(root)
    assert asked.keys() == once.keys()
    assert asked != once

    (source / "broken.c").write_text(GOOD_SOURCE)
    assert outcomes(build(root, "broken", "--kernel", first)) == {"broken": "built"}
    mended = compiled(root)
    assert {k: mended[k] for k in asked} == asked
    assert len(mended) == 2
    (source / "broken.c").write_text(BROKEN)
    assert outcomes(build(root, "broken", "--kernel", first, expect=1)) == {"broken": "failed"}
    assert compiled(root) == mended, "what failed once, and is the same again, is known"


def test_the_same_key_is_never_compiled_again(real_root: MakeRoot, corpus: Corpus, tmp_path: Path) -> None:
    """Not on an equal kernel, not by another start of the daemon, not for a source that was installed again."""
    first, equal, _ = corpus.trio
    root, log = real_root(kernels=(first,)), tmp_path / "log"
    source = make_source(root, "plain")
    assert outcomes(build(root, "plain", "--kernel", first)) == {"plain": "built"}
    before = compiled(root)

    def served(krel: str) -> bool:
        kernels = {k["krel"]: k for k in ctl(root, "status")["kernels"]}
        return krel in kernels and kernels[krel]["readiness"] == "ready" and bool(kernels[krel]["placements"])

    with daemon(root, log):
        wait_until(lambda: served(first), log)
    root.add_kernel(equal)
    with daemon(root, log):
        wait_until(lambda: served(equal), log)
        assert placement(root, equal, "plain")["kind"] == "link"
    assert compiled(root) == before

    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    shutil.rmtree(source)
    oneshot(root)
    assert not list(root.paths.modules.glob("*/*/autokmod/plain")), "it went with its source"
    shutil.copytree(copy, source, copy_function=shutil.copyfile)  # new inodes, new times, the same content
    oneshot(root)
    assert placement(root, first, "plain")["verified"]
    assert outcomes(build(root, "plain", "--kernel", first)) == {"plain": "known"}
    assert compiled(root) == before

    root.remove_kernel(first)
    oneshot(root)
    root.add_kernel(first)
    oneshot(root)
    assert placement(root, first, "plain")["verified"]
    assert compiled(root) == before, "a kernel that came back finds its build"


def test_headers_are_enough(real_root: MakeRoot, corpus: Corpus) -> None:
    """A machine that builds for others has no image of their kernels."""
    first = corpus.trio.first
    root = real_root()
    root.add_kernel(first, image=False)
    make_source(root, "plain")
    (cell,) = build(root, "plain", "--all-kernels").values()
    assert (cell["krel"], cell["outcome"]) == (first, "built")
    before = compiled(root)
    root.add_kernel(first, headers=False)
    oneshot(root)
    assert placement(root, first, "plain")["verified"]
    assert compiled(root) == before, "the modules of the kernel came, and its build is there"


def test_what_it_needs_is_built_first(real_root: MakeRoot, corpus: Corpus) -> None:
    first = corpus.trio.first
    root = real_root(kernels=(first,))
    make_source(root, "lower", source=EXPORTING)
    make_source(root, "upper", source=IMPORTING, conf=CONF + "BUILD_DEPENDS[0]=lower\n")
    make_source(root, "lost", conf=CONF + "BUILD_DEPENDS[0]=nowhere\n")
    make_source(root, "wrong", source=BROKEN)
    make_source(root, "above", conf=CONF + "BUILD_DEPENDS[0]=wrong\n")
    assert outcomes(build(root, "upper", "--kernel", first)) == {"lower": "built", "upper": "built"}
    cells = build(root, "upper", "lost", "above", "--kernel", first, expect=1)
    assert outcomes(cells) == {
        "above": "blocked",
        "lost": "blocked",
        "lower": "known",
        "upper": "known",
        "wrong": "failed",
    }
    assert cells["lost", first]["reasons"][0]["kind"] == "dependency-missing"
    assert cells["above", first]["reasons"][0]["kind"] == "dependency-failed"


def test_ctrl_c(real_root: MakeRoot, corpus: Corpus) -> None:
    first = corpus.trio.first
    root = real_root(kernels=(first,))
    mark = "86399.75"
    make_source(root, "slow", conf=CONF + f'MAKE[0]="echo here; sleep {mark}"\n')
    command = program("autokmod.ctl.main", root, "build", "slow", "--kernel", first, "--json=short")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: is_running(mark), Path(os.devnull))
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, said
    assert [c["outcome"] for c in json.loads(out)["cells"]] == ["cancelled"]
    assert not is_running(mark)
    assert compiled(root) == {}, "it is not remembered as a failure"
    assert os.listdir(root.paths.work) == []


def is_running(mark: str) -> bool:
    said = subprocess.run(["ps", "-eo", "comm,args"], capture_output=True, text=True).stdout
    return any(line.startswith("sleep") and mark in line for line in said.splitlines())


def test_who_builds_takes_turns(real_root: MakeRoot, corpus: Corpus) -> None:
    """Two at once: one compiles, the other finds it in the store."""
    first = corpus.trio.first
    root = real_root(kernels=(first,))
    make_source(root, "plain", conf=CONF + 'PRE_BUILD="wait.sh"\n')
    script = root.paths.usr_src / "plain-1/wait.sh"
    script.write_text(f"#!/bin/sh\nsleep {10 * LOOK_S}\n")
    script.chmod(0o755)
    command = program("autokmod.ctl.main", root, "build", "plain", "--kernel", first, "--json=short")
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=LIMIT_S) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert sorted(json.loads(out)["cells"][0]["outcome"] for out, _ in told) == ["built", "known"]
    assert sum("waiting for another process" in said for _, said in told) == 1


def test_who_had_to_wait_looks_again(real_root: MakeRoot, corpus: Corpus) -> None:
    """A source that went meanwhile is not compiled, nor is it a failure."""
    first = corpus.trio.first
    root = real_root(kernels=(first,))
    source = make_source(root, "plain")
    command = program("autokmod.daemon.main", root, "--oneshot")
    with locked(root.paths.build_lock):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert any("waiting for another process" in line for line in process.stderr)
        shutil.rmtree(source)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    assert compiled(root) == {}
    assert "building" not in said


def test_wrong_words(real_root: MakeRoot, corpus: Corpus) -> None:
    first = corpus.trio.first
    root = real_root()
    root.add_kernel(first, headers=False)
    make_source(root, "plain")
    for args, code in (
        (("nothing", "--kernel", first), 4),
        (("plain/2", "--kernel", first), 4),
        (("plain", "--kernel", "9.9"), 4),
        (("plain",), 2),
        (("--kernel", first), 2),
    ):
        done = subprocess.run(program("autokmod.ctl.main", root, "build", *args), capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (code, ""), args
        assert done.stderr.startswith("autokmodctl: ")
    (cell,) = build(root, "plain/1", "--kernel", first, expect=1).values()
    assert (cell["outcome"], cell["reasons"][0]["kind"]) == ("blocked", "headers-missing")
    assert build(root, "plain", "--all-kernels") == {}
