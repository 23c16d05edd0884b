"""What lies in /usr/src and in the headers: a state with a sentence each, the rest of the machine served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.mainjob import (
    CONF,
    QUICK,
    check_built,
    daemon,
    make_source,
    oneshot,
    placement,
    status,
    wait_until,
)
from tests.realroot import RealRoot

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

CONFS = {
    "syntax": CONF + "if then (\n",
    "endless": "while :; do :; done\n",
    "nameless": "AUTOINSTALL=yes\n",
    "climbing": CONF + "BUILT_MODULE_LOCATION[0]=../../../etc\n",
    "climbing-dest": CONF.replace("/extra", "/extra/../../../../../etc"),
    "slash": CONF + 'BUILT_MODULE_NAME[0]="a/b"\n',
    "many": CONF + 'for i in {0..9999}; do BUILT_MODULE_NAME[$i]="m$i" DEST_MODULE_LOCATION[$i]=/extra; done\n',
    "forking": "f() { f | f & }; f; sleep 1000\n",
    "loud": "yes autokmod | head -c 300000000\n" + CONF,
    "garbage": CONF + "MAKE[0]=\"sh -c 'echo not a module >garbage.ko'\"\n",
    "nothing-made": CONF + "MAKE[0]=true\n",
}


def add_bad_packages(root: RealRoot) -> set[str]:
    for name, conf in CONFS.items():
        make_source(root, name, conf=conf)
    (make_source(root, "dangling") / "lost.h").symlink_to("nowhere.h")
    (make_source(root, "outward") / "stolen.h").symlink_to("/etc/shadow")
    (root.path / "usr/src/binary-1").mkdir()
    (root.path / "usr/src/binary-1/dkms.conf").write_bytes(bytes(range(256)) * 40)
    (root.path / "usr/src/loop-1").symlink_to("loop-1")
    config = root.path / "etc/autokmod/autokmod.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("[build]\neval_limit_s = 2\n[daemon]\nsettle_s = 0.5\n")
    return set(CONFS) | {"outward", "binary"}


def check_bad_packages(root: RealRoot, krel: str, bad: set[str]) -> None:
    assert placement(root, krel)["verified"], "the good one is served"
    found = {p["package"]: p for p in status(root, krel)["placements"]}
    assert bad <= set(found), f"forgotten: {bad - set(found)}"
    for name in bad:
        text = found[name]["reasons"][0]["text"]
        assert found[name]["failed"] or found[name]["kind"] == "blocked", name
        assert len(text) > 10, name
        assert not found[name]["files"], name
    assert not (root.path / "etc/climbing-dest.ko").exists()


def test_bad_packages(real_root: MakeRoot, corpus: Corpus) -> None:
    first = corpus.trio.first
    root = real_root(kernels=(first,), packages=(QUICK,))
    bad = add_bad_packages(root)
    oneshot(root, expect=1)
    check_bad_packages(root, first, bad)
    said = {p["package"]: p["reasons"][0]["text"] for p in status(root, first)["placements"]}
    assert "dkms.conf" in said["syntax"]
    assert "BUILT_MODULE_LOCATION" in said["climbing"]
    assert "DEST_MODULE_LOCATION" in said["climbing-dest"]
    assert "/etc/shadow" in said["outward"] or "stolen.h" in said["outward"]
    assert "garbage.ko" in said["garbage"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2 - 7],
        lambda data: bytes(range(256)) * 64,
        lambda data: b"<html>404</html>\n",
    ],
    ids=["empty", "truncated", "not text", "something else"],
)
def test_damaged_symvers(real_root: MakeRoot, corpus: Corpus, damage: Callable[[bytes], bytes]) -> None:
    first, equal, _ = corpus.trio
    root = real_root(kernels=(first, equal), packages=(QUICK,))
    symvers = root.path / f"usr/src/linux-headers-{equal}/Module.symvers"
    symvers.write_bytes(damage(symvers.read_bytes()))
    oneshot(root, expect=1)
    check_built(root, first)
    damaged = status(root, equal)
    assert damaged["readiness"] != "ready"
    assert any("symvers" in r["text"] for r in [*damaged["reasons"], *placement(root, equal)["reasons"]])
    assert not placement(root, equal)["files"], "unknown is never compatible"


def test_an_in_tree_module_that_is_not_elf(real_root: MakeRoot, corpus: Corpus) -> None:
    """Whichever one is looked at for the kernel's vermagic, the others still say it, or nothing is claimed."""
    first, equal, _ = corpus.trio
    root = real_root(kernels=(first, equal), packages=(QUICK,))
    for module in root.paths.modulesd(equal).rglob("*.ko"):
        module.unlink()
        module.write_bytes(b"not a module\n")
    oneshot(root, expect=1)
    check_built(root, first)
    assert placement(root, equal)["kind"] != "link"
    assert status(root, equal)["readiness"] != "ready"


def test_the_daemon_lives_through_bad_packages(real_root: MakeRoot, corpus: Corpus, tmp_path: Path) -> None:
    first = corpus.trio.first
    root, log = real_root(kernels=(first,), packages=(QUICK,)), tmp_path / "log"
    bad = add_bad_packages(root)
    with daemon(root, log) as process:
        wait_until(lambda: status(root, first)["readiness"] == "degraded", log)
        check_bad_packages(root, first, bad)
        assert process.poll() is None
