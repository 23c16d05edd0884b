"""Other owners' modules: which files they are, and that what is remembered of them is what stands there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autokmod.config import Config
from autokmod.jobs.known import Known
from autokmod.observe.external import find_external
from autokmod.observe.kernels import read_kernel
from autokmod.paths import Paths
from tests.elfwriter import make_ko
from tests.unit.handmade import add_kernel

K1, K2 = "6.1.0-55-amd64", "6.1.0-56-amd64"
SYMVERS = "0x00000001\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n0x00000002\tcec\tdrivers/cec\tEXPORT_SYMBOL\t\n"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr/lib/modules").mkdir(parents=True)
    for krel in (K1, K2):
        add_kernel(paths, krel)
        (paths.usr_src / f"linux-headers-{krel}/Module.symvers").write_text(SYMVERS)
        (paths.usr_src / f"linux-headers-{krel}/.config").write_text("CONFIG_MODVERSIONS=y\n")
        info = [("license", "GPL"), ("intree", "Y")]
        put(paths, krel, "kernel/ref.ko", make_ko(name="ref", krel=krel, versions={"module_layout": 1}, modinfo=info))
    return paths


def put(paths: Paths, krel: str, file: str, data: bytes = b"x") -> Path:
    path = paths.modulesd(krel) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def external(paths: Paths, *, ours: bool = False) -> dict[str, str]:
    found = find_external(paths, K2, ours=ours)
    return {name: str(file.relative_to(paths.modules)) for name, file in found.items()}


def test_who_owns_what(paths: Paths) -> None:
    put(paths, K2, "updates/dkms/v4l2loopback.ko.xz")
    put(paths, K2, "extra/kmp/kmp-driver.ko")
    put(paths, K2, "updates/autokmod/drv/drv.ko")
    put(paths, K2, "kernel/drivers/hid-kye.ko")
    put(paths, K2, "updates/dkms/hid-kye.ko")
    theirs = put(paths, K1, "extra/weak.ko")
    link = paths.modulesd(K2) / "weak-updates/weak.ko"
    link.parent.mkdir()
    link.symlink_to(f"/lib/modules/{K1}/extra/weak.ko")
    (link.parent / "dangling.ko").symlink_to("/lib/modules/gone/extra/dangling.ko")
    foreign = {
        "v4l2loopback": f"{K2}/updates/dkms/v4l2loopback.ko.xz",
        "kmp_driver": f"{K2}/extra/kmp/kmp-driver.ko",
        "hid_kye": f"{K2}/updates/dkms/hid-kye.ko",
        "weak": str(theirs.relative_to(paths.modules)),
    }
    assert external(paths) == foreign
    assert external(paths, ours=True) == {**foreign, "drv": f"{K2}/updates/autokmod/drv/drv.ko"}


def test_where_the_kernels_own_is_picked(paths: Paths) -> None:
    put(paths, K2, "kernel/drivers/hid-kye.ko")
    put(paths, K2, "extra/hid-kye.ko")
    (paths.root / "etc/depmod.d").mkdir(parents=True)
    (paths.root / "etc/depmod.d/a.conf").write_text("search updates built-in extra\n")
    assert external(paths) == {}
    (paths.root / "etc/depmod.d/a.conf").write_text("search updates extra built-in\n")
    assert external(paths) == {"hid_kye": f"{K2}/extra/hid-kye.ko"}


def test_what_ours_displaces_is_still_theirs(paths: Paths) -> None:
    """If nothing of ours stood there, it would be picked: whether ours may stand there is to be decided."""
    put(paths, K2, "updates/autokmod/drv/drv.ko")
    put(paths, K2, "updates/dkms/drv.ko")
    assert external(paths) == {"drv": f"{K2}/updates/dkms/drv.ko"}


# ---- what is remembered --------------------------------------------------------------------------


@pytest.fixture
def known(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Known:
    """Everything is old enough to be kept: it was written a minute ago."""
    now = time.time_ns()
    monkeypatch.setattr("autokmod.observe.statcache.time.time_ns", lambda: now + 60_000_000_000)
    return Known(paths, Config())


def test_the_kernels_side_is_read_once(paths: Paths, known: Known) -> None:
    kernel = read_kernel(paths, K2)
    abi = known.abi(kernel)
    assert known.abi(read_kernel(paths, K2)) is abi
    assert abi.absent == {"drivers/cec"}
    other = known.abi(read_kernel(paths, K1))
    assert other.exports is abi.exports, "the same symbols are in memory once"
    assert other.config is abi.config


@pytest.mark.parametrize(
    "change",
    [
        lambda paths: (paths.usr_src / f"linux-headers-{K2}/Module.symvers").write_text(SYMVERS.replace("2", "3")),
        lambda paths: (paths.usr_src / f"linux-headers-{K2}/.config").write_text("CONFIG_MODVERSIONS=n\n"),
        lambda paths: put(paths, K2, "kernel/cec.ko"),
        lambda paths: (paths.modulesd(K2) / "kernel/ref.ko").write_bytes(make_ko(name="ref", krel=K1)),
    ],
    ids=["symvers", "configuration", "a module of the kernel arrived", "the reference"],
)
def test_what_changes_is_read_again(paths: Paths, known: Known, change: Callable[[Paths], object]) -> None:
    abi = known.abi(read_kernel(paths, K2))
    change(paths)
    assert known.abi(read_kernel(paths, K2)) != abi


def test_modules_that_come_and_go(paths: Paths, known: Known) -> None:
    assert known.external(K2) == {}
    file = put(paths, K2, "extra/kmp/kmp.ko")
    assert known.external(K2) == {"kmp": file}
    assert known.external(K2) == {"kmp": file}
    target = put(paths, K1, "extra/weak.ko")
    link = paths.modulesd(K2) / "weak-updates/weak.ko"
    link.parent.mkdir()
    link.symlink_to(f"/lib/modules/{K1}/extra/weak.ko")
    assert set(known.external(K2)) == {"kmp", "weak"}
    target.unlink()
    assert known.external(K2) == {"kmp": file}, "the link dangles now"


def test_a_modules_facts(paths: Paths, known: Known) -> None:
    file = put(paths, K2, "extra/kmp.ko", make_ko(name="kmp"))
    facts = known.module(file)
    assert known.module(file) is facts
    file.write_bytes(make_ko(name="kmp", krel=K1))
    assert known.module(file).release == K1
