"""Modules that DKMS or a vendor put into one kernel serve another: real builds, real kernels, the real depmod."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from autokmod import hook
from tests import dkms
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.mainjob import (
    NAME,
    QUICK,
    changed_symbols_are_true,
    check_built,
    check_dangling,
    check_linked,
    depmod_is_content,
    host_modules,
    oneshot,
    placement,
    status,
    vermagic,
)
from tests.realroot import RealRoot

pytestmark = [pytest.mark.root, pytest.mark.kbuild]


def built_by_other(root: RealRoot, krel: str, place: str) -> dict[Path, str]:
    """As if autokmod had never been here: its build lies where another owner would put it. File → digest."""
    oneshot(root, "--kernel", krel)
    directory = root.paths.modulesd(krel) / place
    directory.mkdir(parents=True)
    for file in host_modules(root, krel):
        file.rename(directory / file.name)
    shutil.rmtree(root.paths.state)
    shutil.rmtree(root.paths.modulesd(krel) / "updates/autokmod")
    assert root.chroot("depmod", krel).returncode == 0
    return digests(directory)


def digests(directory: Path) -> dict[Path, str]:
    return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(directory.rglob("*")) if f.is_file()}


def in_dkms_s_tree(root: RealRoot, krel: str, files: dict[Path, str]) -> Path:
    (source,) = root.paths.usr_src.glob(f"{NAME}-*/dkms.conf")
    version = source.parent.name.removeprefix(f"{NAME}-")
    tree = root.path / f"var/lib/dkms/{NAME}" / version / krel / "x86_64/module"
    tree.mkdir(parents=True)
    for file in files:
        shutil.copy2(file, tree)
    return tree


def test_dkms_s_modules_serve_another_kernel(real_root: MakeRoot, corpus: Corpus) -> None:
    root, (first, equal, other) = real_root(packages=(QUICK,)), corpus.trio
    root.add_kernel(first)
    theirs = built_by_other(root, first, "updates/dkms")
    in_dkms_s_tree(root, first, theirs)
    root.add_kernel(equal)
    root.add_kernel(other)
    oneshot(root)

    stands = placement(root, first)
    assert (stands["kind"], stands["files"], stands["reasons"][0]["kind"]) == ("skip", [], "foreign-stands")
    assert "DKMS has it installed in updates/dkms" in stands["reasons"][0]["text"]
    check_linked(root, equal, first)
    assert f"DKMS's build for {first} (updates/dkms) is compatible" in placement(root, equal)["reasons"][0]["text"]
    assert {root.paths.resolve(f) for f in host_modules(root, equal)} == set(theirs)
    depmod_is_content(root, equal)
    rebuilt = check_built(root, other)
    assert rebuilt["reasons"][0]["text"].startswith(f"DKMS's build for {first} (updates/dkms) does not fit: ")
    changed_symbols_are_true(corpus, rebuilt, first, other)

    before = {krel: (root.paths.modulesd(krel) / "modules.dep").stat().st_mtime_ns for krel in corpus.trio}
    oneshot(root)
    check_linked(root, equal, first)
    assert before == {k: (root.paths.modulesd(k) / "modules.dep").stat().st_mtime_ns for k in corpus.trio}
    assert digests(root.paths.modulesd(first) / "updates/dkms") == theirs
    assert [status(root, k)["readiness"] for k in corpus.trio] == ["ready"] * 3

    assert hook.main(["remove", first, "debian-prerm"], root.paths) == 0
    assert digests(root.paths.modulesd(first) / "updates/dkms") == theirs
    shutil.rmtree(root.paths.modulesd(first))
    check_dangling(root)
    is_taken_over(root, equal, first)


def test_a_vendor_s_modules_serve_another_kernel(real_root: MakeRoot, corpus: Corpus) -> None:
    root, (first, equal, other) = real_root(packages=(QUICK,)), corpus.trio
    root.add_kernel(first)
    theirs = built_by_other(root, first, "extra/vendor-nat")
    for source in root.paths.usr_src.glob(f"{NAME}-*"):
        shutil.rmtree(source)
    root.add_kernel(equal)
    root.add_kernel(other)
    oneshot(root, expect=1)

    assert placement(root, first, "vendor-nat")["reasons"][0]["kind"] == "foreign-stands"
    linked = placement(root, equal, "vendor-nat")
    assert (linked["kind"], linked["verified"], linked["link_from"]) == ("link", True, first)
    assert linked["symbols_compared"] > 20
    depmod_is_content(root, equal)
    said = root.chroot("modinfo", "-k", equal, "-n", linked["files"][0]["module"]).stdout.strip()
    assert said.endswith(f"/{equal}/weak-updates/autokmod/vendor-nat/{Path(said).name}")
    waits = placement(root, other, "vendor-nat")
    assert (waits["kind"], waits["files"], waits["reasons"][0]["kind"]) == ("wait", [], "no-compatible-build")
    assert "install the vendor's package" in waits["reasons"][0]["hint"]
    changed_symbols_are_true(corpus, waits, first, other)
    assert status(root, other)["readiness"] == "waiting"
    assert digests(root.paths.modulesd(first) / "extra") == theirs

    assert hook.main(["remove", first, "debian-prerm"], root.paths) == 0
    assert digests(root.paths.modulesd(first) / "extra") == theirs
    shutil.rmtree(root.paths.modulesd(first))
    check_dangling(root)
    is_taken_over(root, equal, first, "vendor-nat")


def test_what_dkms_itself_installed(real_root: MakeRoot, corpus: Corpus) -> None:
    """The archive's DKMS, with nothing done by hand: its tree and its modules are recognised."""
    first, equal, _ = corpus.trio
    root = real_root(kernels=(first,), packages=(dkms.DKMS, QUICK))
    source = dkms.source_of(corpus.layer(QUICK))
    dkms.add_all(root, (source,))
    done = root.chroot("dkms", "install", f"{NAME}/{source.removeprefix(f'{NAME}-')}", "-k", first)
    assert done.returncode == 0, done.stdout
    theirs = digests(root.paths.modulesd(first) / "updates/dkms")
    root.add_kernel(equal)
    oneshot(root)
    assert placement(root, first)["reasons"][0]["kind"] == "foreign-stands"
    check_linked(root, equal, first)
    assert placement(root, equal)["foreign"]["owner"] == "DKMS"
    assert digests(root.paths.modulesd(first) / "updates/dkms") == theirs
    assert list(root.paths.builds.glob("*/manifest.json")) == []

    wish = ("dkms", "install", f"{NAME}/{source.removeprefix(f'{NAME}-')}", "-k", equal)
    assert root.chroot(*wish).returncode == 0, "DKMS finds our links, and leaves it at that"
    oneshot(root)
    check_linked(root, equal, first)
    done = root.chroot(*wish, "--force")
    assert done.returncode == 0, done.stdout
    oneshot(root)
    assert placement(root, equal)["reasons"][0]["kind"] == "foreign-stands", "what DKMS puts here itself wins"
    assert not list(root.paths.modulesd(equal).glob("weak-updates/autokmod/*"))
    assert [status(root, krel)["readiness"] for krel in (first, equal)] == ["ready", "ready"]


def is_taken_over(root: RealRoot, krel: str, owner: str, package: str = NAME) -> None:
    """A copy that works, and that later looks leave alone."""
    for _ in range(2):
        found = placement(root, krel, package)
        assert (found["verified"], found["link_from"], found["foreign"]["krel"]) == (True, None, owner)
        for file in found["files"]:
            assert file["path"].startswith(f"updates/autokmod/{package}/")
            said = root.chroot("modinfo", "-k", krel, "-n", file["module"]).stdout.strip()
            assert said.endswith(file["path"])
            assert vermagic(root, Path(said)) == owner
        assert status(root, krel)["readiness"] == "ready"
        oneshot(root, "--kernel", krel)
