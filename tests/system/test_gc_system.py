"""The store collected on a real system: after it, nothing has to be compiled that stands or stood to be used."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from autokmod import hook
from autokmod.act.store import list_builds
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.mainjob import CONF, check_dangling, make_source, oneshot, placement, program, status
from tests.realroot import RealRoot
from tests.system.test_build_verb import BROKEN, compiled

pytestmark = [pytest.mark.root, pytest.mark.kbuild]


def gc(root: RealRoot) -> list[Any]:
    done = subprocess.run(program("autokmod.ctl.main", root, "gc", "--json=short"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["removed"]
    assert isinstance(found, list)
    return found


def configure(root: RealRoot, text: str) -> None:
    root.paths.etc.mkdir(exist_ok=True)
    (root.paths.etc / "autokmod.toml").write_text(f"[store]\nmin_age_s = 0\n{text}")


def test_what_is_used_is_never_collected(real_root: MakeRoot, corpus: Corpus) -> None:
    """Built, linked to, promoted, failed: each stays as long as a kernel has to do with it."""
    first, equal, other = corpus.trio
    root = real_root(kernels=(first,))
    configure(root, "")
    make_source(root, "plain")
    broken = make_source(root, "broken", source=BROKEN)
    oneshot(root, expect=1)
    root.add_kernel(equal)
    oneshot(root, expect=1)
    used = compiled(root)
    assert placement(root, equal, "plain")["link_from"] == first
    assert gc(root) == []

    assert hook.main(["remove", first, "debian-prerm"], root.paths) == 0
    root.remove_kernel(first)
    assert [(r["package"], r["krel"]) for r in gc(root)] in ([], [("broken", first)]), "what was promoted stays"
    oneshot(root, expect=1)
    check_dangling(root)
    key = placement(root, equal, "plain")["key"]
    assert {b.key for b in list_builds(root.paths) if b.package == "plain"} == {key} <= used.keys()

    shutil.rmtree(broken)
    make_source(root, "plain", source='#include <linux/module.h>\nMODULE_LICENSE("GPL v2");\n')
    oneshot(root)
    assert status(root, equal)["readiness"] == "ready"
    newer = placement(root, equal, "plain")["key"]
    assert newer != key
    gone = gc(root)
    assert key in {r["name"] for r in gone}
    left = compiled(root)
    oneshot(root)
    assert compiled(root) == left, "nothing had to be compiled after it"
    assert newer in left
    root.add_kernel(other)
    oneshot(root)
    assert placement(root, other, "plain")["key"] in compiled(root)
    assert gc(root) == []


def test_above_the_bound_it_is_done_by_itself(real_root: MakeRoot, corpus: Corpus) -> None:
    """Each version replaces the one before; a log of a megabyte makes them large."""
    first = corpus.trio.first
    root = real_root(kernels=(first,))
    configure(root, "max_size_mb = 3\n")
    talk = "MAKE[0]=\"head -c 1200000 /dev/zero | tr '\\\\0' x; make -C $kernel_source_dir M=\\$PWD\"\n"
    keys = []
    for number in range(5):
        source = make_source(root, "plain", conf=CONF + talk)
        (source / "number").write_text(str(number))
        oneshot(root)
        keys.append(placement(root, first, "plain")["key"])
    left = compiled(root)
    assert len(set(keys)) == 5
    assert keys[-1] in left
    assert set(left) == set(keys[-len(left) :]), "the oldest went"
    assert 1 < len(left) < 5
    size = sum(f.stat().st_blocks * 512 for f in root.paths.builds.glob("*/*"))
    assert size <= 3 << 20
