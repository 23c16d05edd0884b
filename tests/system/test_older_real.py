"""Two versions of a package, of which the newer has an error in it: the older serves until that is mended."""

from __future__ import annotations

import pytest

from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.mainjob import CONF, GOOD_SOURCE, oneshot, placement, status
from tests.realroot import RealRoot

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

WRONG = GOOD_SOURCE + "int wrong(void);\nint wrong(void) { return no_such_thing; }\n"
RIGHT = GOOD_SOURCE + 'MODULE_VERSION("2");\n'


def add(root: RealRoot, version: str, code: str) -> None:
    conf = CONF.replace("@", "pkg").replace("PACKAGE_VERSION=1\n", f"PACKAGE_VERSION={version}\n")
    root.add_source("pkg", version, {"dkms.conf": conf, "Makefile": "obj-m := pkg.o\n", "pkg.c": code})


def builds(root: RealRoot) -> int:
    return len(list(root.paths.builds.glob("*/manifest.json")))


def test_the_older_is_used_until_the_newest_builds(real_root: MakeRoot, corpus: Corpus) -> None:
    first = corpus.trio.first
    root = real_root(kernels=(first,))
    add(root, "1", GOOD_SOURCE)
    add(root, "2", WRONG)
    oneshot(root)
    found = placement(root, first, "pkg")
    assert (found["version"], found["kind"], found["verified"], found["failed"]) == ("1", "build", True, False)
    said = found["reasons"][0]
    assert said["kind"] == "older-version"
    assert said["text"].startswith("1 is used: 2 does not build: ")
    assert "pkg.c:4: " in said["text"]
    assert "no_such_thing" in said["text"]
    assert status(root, first)["readiness"] == "ready"
    assert builds(root) == 2

    oneshot(root)
    assert builds(root) == 2, "what failed was tried again"
    assert placement(root, first, "pkg")["reasons"][0] == said

    root.add_kernel(corpus.trio.equal)
    oneshot(root)
    check_older_linked(root, corpus)
    assert builds(root) == 3, "the newest was tried for that kernel as well"

    add(root, "2", RIGHT)
    oneshot(root)
    for krel in corpus.trio.first, corpus.trio.equal:
        mended = placement(root, krel, "pkg")
        assert (mended["version"], mended["verified"], mended["instead_of"]) == ("2", True, [])
        assert "older-version" not in {r["kind"] for r in mended["reasons"]}
        assert status(root, krel)["readiness"] == "ready"


def check_older_linked(root: RealRoot, corpus: Corpus) -> None:
    found = placement(root, corpus.trio.equal, "pkg")
    assert (found["version"], found["kind"], found["link_from"]) == ("1", "link", corpus.trio.first)
    assert [r["kind"] for r in found["reasons"]] == ["older-version", "compatible-build"]
    assert found["verified"]


def test_neither_builds(real_root: MakeRoot, corpus: Corpus) -> None:
    first = corpus.trio.first
    root = real_root(kernels=(first,))
    add(root, "1", WRONG)
    add(root, "2", WRONG.replace("no_such_thing", "no_more_of_it"))
    oneshot(root, expect=1)
    found = placement(root, first, "pkg")
    assert (found["version"], found["failed"], found["files"]) == ("2", True, [])
    assert "no_more_of_it" in found["errors"][0]["text"]
    kinds = [r["kind"] for r in found["reasons"]]
    assert kinds[:2] == ["build-failed", "build-failed-older"]
    assert "older-version" not in kinds
