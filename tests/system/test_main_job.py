"""The main job in a whole system: real kernels appear, real packages are linked or rebuilt, a kernel goes.

The same story twice: in the foreground with --oneshot, and by the daemon, which nobody asks.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from autokmod import hook
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.mainjob import (
    QUICK,
    becomes_ready,
    changed_symbols_are_true,
    check_built,
    check_dangling,
    check_linked,
    ctl,
    daemon,
    depmod_is_content,
    host_modules,
    make_source,
    modules_of,
    oneshot,
    placement,
    program,
    status,
    vermagic,
    wait_until,
)
from tests.realroot import RealRoot

pytestmark = [pytest.mark.root, pytest.mark.kbuild]


# ---- in the foreground ----------------------------------------------------------------------------


def test_built_linked_rebuilt_promoted(real_root: MakeRoot, corpus: Corpus) -> None:
    root, (first, equal, other) = real_root(packages=(QUICK,)), corpus.trio

    root.add_kernel(first)
    oneshot(root)
    check_built(root, first)
    depmod_is_content(root, first)

    root.add_kernel(equal)
    oneshot(root)
    check_linked(root, equal, first)
    depmod_is_content(root, equal)

    root.add_kernel(other)
    oneshot(root, "--kernel", other)
    changed_symbols_are_true(corpus, check_built(root, other), first, other)
    depmod_is_content(root, other)

    before = indexes(root)
    oneshot(root)
    assert indexes(root) == before, "a second look did work"

    assert hook.main(["remove", first, "debian-prerm"], root.paths) == 0
    check_dangling(root)
    root.remove_kernel(first)
    assert not root.paths.modulesd(first).exists(), "something of ours was left behind"
    check_dangling(root)
    assert all(not p.is_symlink() for p in host_modules(root, equal))
    assert vermagic(root, next(iter(modules_of(root, equal).values()))) == first, "promoted, not built again"
    assert status(root, equal)["readiness"] == "ready"
    oneshot(root)
    assert [k["krel"] for k in ctl(root, "status")["kernels"]] == sorted((equal, other))


def indexes(root: RealRoot) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.paths.modules.glob("*/modules.dep")}


def test_a_kernel_that_goes_without_a_word(real_root: MakeRoot, corpus: Corpus) -> None:
    """rm -r, or a package manager without hooks: what was linked is made again."""
    first, equal, _ = corpus.trio
    root = real_root(kernels=(first,), packages=(QUICK,))
    oneshot(root)
    root.add_kernel(equal)
    oneshot(root)
    check_linked(root, equal, first)
    subprocess.run(["rm", "-r", root.paths.modulesd(first)], check=True)
    oneshot(root)
    check_dangling(root)
    assert placement(root, equal)["verified"]
    assert status(root, equal)["readiness"] == "ready"


def test_the_hook_links_while_the_package_manager_waits(real_root: MakeRoot, corpus: Corpus) -> None:
    first, equal, other = corpus.trio
    root = real_root(kernels=(first,), packages=(QUICK,))
    oneshot(root)
    root.add_kernel(equal)
    root.add_kernel(other)
    for krel in (equal, other):
        assert hook.main(["add", krel, "debian-postinst"], root.paths) == 0
    check_linked_on_disk(root, equal, first)
    assert not placement(root, other)["files"], "the hook compiles nothing"
    assert sorted(p.name for p in root.paths.spool.glob("*.json")) == sorted(
        f"reconcile-{krel}.json" for krel in (equal, other)
    )


def check_linked_on_disk(root: RealRoot, krel: str, owner: str) -> None:
    """The kernel is not called ready yet: what is queued for it has still to be looked at."""
    found = placement(root, krel)
    assert (found["kind"], found["verified"], found["link_from"]) == ("link", True, owner)
    assert all(p.is_symlink() for p in host_modules(root, krel))


def test_one_that_does_not_compile_holds_up_nobody(real_root: MakeRoot, corpus: Corpus) -> None:
    first = corpus.trio.first
    root = real_root(kernels=(first,), packages=(QUICK,))
    make_source(root, "broken", source="int f(void) { return no_such_function(); }\n")
    oneshot(root, expect=1)
    assert placement(root, first)["verified"]
    failed = placement(root, first, "broken")
    assert failed["failed"]
    assert [(e["file"].rsplit("/", 1)[-1], e["line"]) for e in failed["errors"]] == [("broken.c", 1)]
    assert "no_such_function" in failed["errors"][0]["text"]
    assert Path(failed["log"]).is_file() or (root.path / failed["log"].lstrip("/")).is_file()
    assert status(root, first)["readiness"] == "degraded"


def test_kernels_that_are_not_all_there(real_root: MakeRoot, corpus: Corpus) -> None:
    first, equal, other = corpus.trio
    root = real_root(packages=(QUICK,))
    root.add_kernel(first, headers=False)
    root.add_kernel(equal, image=False)
    root.add_kernel(other)
    oneshot(root, expect=1)
    check_built(root, other)
    waiting = status(root, first)
    assert waiting["readiness"] == "waiting"
    assert any("headers" in r["text"] for r in waiting["reasons"])
    assert placement(root, first)["kind"] == "wait"
    assert not list(root.paths.modulesd(equal).glob("*/autokmod")), "headers alone are no kernel"
    root.add_kernel(first, image=False)
    oneshot(root)
    check_built(root, first)


# ---- the daemon -----------------------------------------------------------------------------------


def test_the_daemon_does_it_unasked(real_root: MakeRoot, corpus: Corpus, tmp_path: Path) -> None:
    root, (first, equal, other), log = real_root(packages=(QUICK,)), corpus.trio, tmp_path / "log"
    with daemon(root, log):
        root.add_kernel(first)
        becomes_ready(root, first, log)
        check_built(root, first)
        root.add_kernel(equal)
        becomes_ready(root, equal, log)
        check_linked(root, equal, first)
        root.add_kernel(other)
        becomes_ready(root, other, log)
        changed_symbols_are_true(corpus, check_built(root, other), first, other)
        hook.main(["remove", first, "debian-prerm"], root.paths)
        root.remove_kernel(first)
        wait_until(lambda: first not in {k["krel"] for k in ctl(root, "status")["kernels"]}, log)
        becomes_ready(root, equal, log)
        check_dangling(root)


def test_a_package_arrives_at_kernels_that_stand(real_root: MakeRoot, corpus: Corpus, tmp_path: Path) -> None:
    first, equal, _ = corpus.trio
    root, log = real_root(kernels=(first, equal)), tmp_path / "log"
    with daemon(root, log):
        root.add_package(QUICK)
        for krel in (first, equal):
            becomes_ready(root, krel, log)
        kinds = sorted(placement(root, krel)["kind"] for krel in (first, equal))
        assert kinds == ["build", "link"], "compiled once for two equal kernels"


def test_a_killed_daemon_goes_on_where_the_disk_says(real_root: MakeRoot, corpus: Corpus, tmp_path: Path) -> None:
    first = corpus.trio.first
    root, log = real_root(kernels=(first,), packages=(QUICK,)), tmp_path / "log"
    with open(log, "ab") as out:
        process = subprocess.Popen(program("autokmod.daemon.main", root, "--no-bus"), stdout=out, stderr=out)
    wait_until(lambda: bool(list(root.paths.work.glob("*"))) if root.paths.work.is_dir() else False, log)
    process.kill()
    process.wait()
    with daemon(root, log):
        becomes_ready(root, first, log)
    check_built(root, first)
