"""DKMS as a neighbour, adopted and released: the archive's own, under dpkg, with kernels that come and go."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import dkms
from tests.conftest import MakeRoot
from tests.corpus import CHECKOUT, Corpus
from tests.mainjob import (
    NAME,
    QUICK,
    check_built,
    check_dangling,
    check_linked,
    ctl,
    modules_of,
    oneshot,
    placement,
    program,
    status,
)
from tests.realroot import RealRoot
from tests.system.test_dpkg import dpkg, system_of
from tests.unit.dkmshere import PLUGIN, UNIT, WANTED, link, write

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

HOOKS = ("postinst.d", "header_postinst.d", "prerm.d")


def add_kernel(root: RealRoot, krel: str) -> str:
    return dpkg(root, "--install", *(layer.deb for layer in (*root.corpus.headers(krel), root.corpus.image(krel))))


def remove_kernel(root: RealRoot, krel: str) -> None:
    dpkg(root, "--purge", f"linux-image-{krel}", f"linux-headers-{krel}")


def neighbour(root: RealRoot) -> Any:
    (found,) = ctl(root, "status")["neighbours"]
    return found


def known_to_dkms(root: RealRoot) -> str:
    return root.chroot("dkms", "status").stdout


def by_dkms(root: RealRoot, krel: str) -> list[str]:
    return sorted(f.name for f in root.paths.modulesd(krel).glob("updates/dkms/*.ko*"))


def picked(root: RealRoot, krel: str) -> set[str]:
    """Where modprobe finds them, of whoever they are."""
    names = ("nf_nat_rtsp", "nf_conntrack_rtsp")
    return {str(Path(root.chroot("modinfo", "-k", krel, "-n", n).stdout.strip()).parent) for n in names}


def newer(root: RealRoot, deb: Path) -> str:
    """DKMS as a later version may be: other hooks, and another number."""
    work, made = root.path / "tmp/newer", root.path / "tmp/newer.deb"
    subprocess.run(["dpkg-deb", "-R", deb, work], check=True)
    for directory in HOOKS:
        with open(work / f"etc/kernel/{directory}/dkms", "a") as hook:
            hook.write("# of a later version\n")
    control = work / "DEBIAN/control"
    version = root.corpus.archive.field("dkms", "Version")
    control.write_text(control.read_text().replace(f"Version: {version}", f"Version: {version}.1"))
    subprocess.run(["dpkg-deb", "-b", work, made], check=True, stdout=subprocess.DEVNULL)
    return "/tmp/newer.deb"


def modes(root: RealRoot) -> list[int]:
    return [(root.path / f"etc/kernel/{d}/dkms").stat().st_mode & 0o777 for d in HOOKS]


def test_adopted_and_released(real_root: MakeRoot, corpus: Corpus) -> None:
    root, (first, equal, other) = system_of(real_root()), corpus.trio
    dpkg(root, "--install", corpus.layer(dkms.DKMS).deb)
    dpkg(root, "--install", corpus.layer(QUICK).deb)
    beside_one_another(root, first)
    adopted(root, first, equal)
    dkms_comes_anew(root)
    a_kernel_goes(root, first, equal)
    packages_come_anew(root, other)
    released(root, equal, other)


def beside_one_another(root: RealRoot, krel: str) -> None:
    said = add_kernel(root, krel)
    assert f"running auto installation service for kernel {krel}" in said
    assert len(by_dkms(root, krel)) == 2
    before = picked(root, krel)
    for _ in range(2):
        oneshot(root)
        assert placement(root, krel)["reasons"][0]["kind"] == "foreign-stands"
        assert picked(root, krel) == before == {f"/lib/modules/{krel}/updates/dkms"}
    assert list(root.paths.builds.glob("*/manifest.json")) == [], "nothing is built a second time"
    assert (neighbour(root)["adopted"], neighbour(root)["reason"]["kind"]) == (False, "neighbour-active")
    assert [t["path"] for t in neighbour(root)["triggers"]] == [
        *(f"/etc/kernel/{d}/dkms" for d in HOOKS[:2]),
        "/usr/lib/dkms/common.postinst",
    ]


def adopted(root: RealRoot, first: str, equal: str) -> None:
    subprocess.run(program("autokmod.ctl.main", root, "adopt", "dkms", "--quiet"), check=True)
    assert modes(root) == [0o644, 0o644, 0o755]
    assert (neighbour(root)["adopted"], neighbour(root)["triggers"]) == (True, [])
    said = add_kernel(root, equal)
    assert "dkms" not in said
    oneshot(root)
    check_linked(root, equal, first)
    assert placement(root, equal)["foreign"]["owner"] == "DKMS", "what DKMS built is still linked to"
    assert (len(by_dkms(root, first)), by_dkms(root, equal), equal in known_to_dkms(root)) == (2, [], False)


def dkms_comes_anew(root: RealRoot) -> None:
    """Reinstalled, upgraded, and removed in between: what is masked stays so."""
    same = root.corpus.layer(dkms.DKMS).deb
    for action, what in (
        ("--install", same),
        ("--install", newer(root, same)),
        ("--remove", dkms.DKMS),
        ("--install", same),
    ):
        dpkg(root, action, what)
        assert modes(root) == [0o644, 0o644, 0o755]
        assert (neighbour(root)["adopted"], neighbour(root)["triggers"]) == (True, [])


def a_kernel_goes(root: RealRoot, first: str, equal: str) -> None:
    """DKMS takes its own modules out of it; what is linked to them has gone to the other kernel before."""
    remove_kernel(root, first)
    assert not root.paths.modulesd(first).exists()
    assert picked(root, equal) == {f"/lib/modules/{equal}/updates/autokmod/{NAME}"}
    oneshot(root)
    assert (placement(root, equal)["verified"], placement(root, equal)["link_from"]) == (True, None)
    assert status(root, equal)["readiness"] == "ready"
    assert known_to_dkms(root) == "", "DKMS forgets a package with the last kernel that has it"


def packages_come_anew(root: RealRoot, other: str) -> None:
    said = dpkg(root, "--install", root.corpus.layer(QUICK).deb)
    assert "autoinstall for dkms modules has been disabled" in said
    said = add_kernel(root, other)
    assert "dkms" not in said
    oneshot(root)
    check_built(root, other)
    assert (by_dkms(root, other), known_to_dkms(root)) == ([], "")


def released(root: RealRoot, equal: str, other: str) -> None:
    given = ctl(root, "release", "dkms")
    id_ = dkms.source_of(root.corpus.layer(QUICK)).replace("-0", "/0")
    assert (given["added"], given["left"], len(given["masks"])) == ([id_], [], 3)
    assert modes(root) == [0o755] * 3
    assert not (root.path / "etc/dkms/no-autoinstall").exists()
    assert known_to_dkms(root) == f"{id_}: added\n"
    assert neighbour(root)["reason"]["kind"] == "neighbour-active"

    remove_kernel(root, equal)
    said = add_kernel(root, equal)
    assert f"running auto installation service for kernel {equal}" in said
    assert f"{id_}, {equal}, x86_64: installed\n" in known_to_dkms(root)
    ours = modules_of(root, other)
    done = root.chroot("dkms", "autoinstall", "--kernelver", other)
    assert done.returncode == 0, done.stdout
    for _ in range(2):
        oneshot(root)
        assert picked(root, equal) == {f"/lib/modules/{equal}/updates/dkms"}
        assert placement(root, equal)["reasons"][0]["kind"] == "foreign-stands"
        assert modules_of(root, other) == ours
    check_built(root, other)


def test_a_package_upgraded_while_dkms_is_adopted(real_root: MakeRoot, corpus: Corpus) -> None:
    """Its prerm has DKMS remove what it built everywhere, linked to or not; autokmod fills the gap."""
    root, (first, equal, _) = system_of(real_root()), corpus.trio
    dpkg(root, "--install", corpus.layer(dkms.DKMS).deb)
    root.add_kernel(first)
    dpkg(root, "--install", corpus.layer(QUICK).deb)
    assert len(by_dkms(root, first)) == 2
    ctl(root, "adopt", "dkms")
    root.add_kernel(equal)
    oneshot(root)
    check_linked(root, equal, first)
    said = dpkg(root, "--install", corpus.layer(QUICK).deb)
    assert "autoinstall for dkms modules has been disabled" in said
    assert by_dkms(root, first) == []
    oneshot(root)
    check_built(root, first)
    check_linked(root, equal, first)
    check_dangling(root)


def test_kernel_install_and_systemd(real_root: MakeRoot) -> None:
    """Where DKMS comes with a plugin and a unit: the real kernel-install and systemctl say what is in force."""
    root, krel = real_root(), "6.1.0-1-amd64"
    told = root.path / "tmp/told"
    write(root.paths, "usr/sbin/dkms")
    write(root.paths, PLUGIN, '#!/bin/sh\necho "$1 $2" >>/tmp/told\n')
    write(root.paths, UNIT, "[Service]\nExecStart=/usr/sbin/dkms\n[Install]\nWantedBy=multi-user.target\n", 0o644)
    link(root.paths, WANTED, f"/{UNIT}")
    (root.path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root.path / f"boot/vmlinuz-{krel}").write_bytes(b"a kernel image")

    def update() -> list[str]:
        told.unlink(missing_ok=True)
        for args in (("add", krel, f"/boot/vmlinuz-{krel}"), ("remove", krel)):
            done = root.chroot("kernel-install", *args, BOOT_ROOT="/boot")
            assert done.returncode == 0, done.stdout
        return told.read_text().splitlines()

    def unit() -> str:
        asked = ["systemctl", f"--root={root.path}", "is-enabled", "dkms.service"]
        return subprocess.run(asked, stdout=subprocess.PIPE, text=True).stdout.strip()

    assert (update(), unit()) == ([f"add {krel}", f"remove {krel}"], "enabled")
    assert len(ctl(root, "adopt", "dkms")["masks"]) == 2
    assert (update(), unit()) == ([f"remove {krel}"], "masked")
    write(root.paths, PLUGIN, '#!/bin/sh\necho "$1 $2 anew" >>/tmp/told\n')  # DKMS is upgraded
    assert (update(), unit()) == ([f"remove {krel} anew"], "masked")
    ctl(root, "release", "dkms")
    assert (update(), unit()) == ([f"add {krel} anew", f"remove {krel} anew"], "enabled")


def test_who_uninstalls_autokmod_gets_dkms_back(real_root: MakeRoot) -> None:
    root = real_root()
    root.install_autokmod()
    for name in ("usr/sbin/dkms", "etc/kernel/postinst.d/dkms"):
        write(root.paths, name)
    write(root.paths, "tmp/activate", (CHECKOUT / "systemd/activate").read_text())
    ctl(root, "adopt", "dkms")
    assert neighbour(root)["triggers"] == []
    done = root.chroot("/tmp/activate", "uninstall", "", "/usr/sbin")
    assert (done.returncode, neighbour(root)["adopted"]) == (0, False)
    assert "gave back /etc/kernel/postinst.d/dkms" in done.stdout
    assert [t["path"] for t in neighbour(root)["triggers"]] == ["/etc/kernel/postinst.d/dkms"]
    assert root.chroot("/tmp/activate", "uninstall", "", "/usr/sbin").stdout == "", "nothing to give back"
    ctl(root, "adopt", "dkms")
    (root.path / "usr/bin/autokmodctl").unlink()
    done = root.chroot("/tmp/activate", "uninstall", "", "/usr/sbin")
    assert done.returncode == 0
    assert "DKMS is still masked: see /var/lib/autokmod/adopted.json" in done.stdout
