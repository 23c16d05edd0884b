"""rpm and pacman, the real ones, install and remove what looks like kernels, headers and sources: our triggers run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autokmod.model import Verb
from tests.conftest import MakeRoot
from tests.corpus import CHECKOUT
from tests.realroot import RealRoot
from tests.system.test_hooks import prepared, queued, succeed

pytestmark = pytest.mark.root

KREL, OTHER = "6.11.4-301.fc41.x86_64", "6.11.5-300.fc41.x86_64"
RESCAN = "all"
TRIGGERS = """Name: triggers
Version: 1
Release: 1
Summary: autokmod's file triggers
License: none
BuildArch: noarch
%description
%include /packaging/filetriggers.inc
%files
"""
SPEC = """Name: {name}
Version: {version}
Release: 1
Summary: made for a test
License: none
BuildArch: noarch
%description
%install
for file in {files}; do mkdir -p %{{buildroot}}${{file%/*}}; echo {version} >%{{buildroot}}$file; done
%files
{lines}
"""
PKGINFO = "pkgname = {name}\npkgbase = {name}\npkgver = {version}-1\npkgdesc = x\narch = any\nsize = 1\n"
PACMAN_CONF = "[options]\nArchitecture = auto\nSigLevel = Never\nLocalFileSigLevel = Never\n"

Queue = list[tuple[Verb, str, str]]


def taken(root: RealRoot) -> Queue:
    """What is queued now, and no more afterwards."""
    found = sorted(queued(root))
    for file in root.paths.spool.glob("*"):
        file.unlink()
    return found


# ---- rpm ----


@pytest.fixture
def rpm(real_root: MakeRoot) -> RealRoot:
    root = prepared(real_root())
    (root.path / "var/lib/rpm").mkdir(parents=True)
    (root.path / "packaging").mkdir()
    text = (CHECKOUT / "packaging/rpm/filetriggers.inc").read_text()
    (root.path / "packaging/filetriggers.inc").write_text(f"%global autokmod_libexec /usr/libexec/autokmod\n{text}")
    succeed(root, "rpm", "--initdb")
    rpm_install(root, rpm_built(root, "triggers", TRIGGERS))
    taken(root)
    return root


def rpm_built(root: RealRoot, name: str, spec: str) -> str:
    (root.path / "packaging" / f"{name}.spec").write_text(spec)
    succeed(root, "rpmbuild", "-bb", "--quiet", "--define", "_topdir /packaging", f"/packaging/{name}.spec")
    (built,) = (root.path / "packaging/RPMS/noarch").glob(f"{name}-*.rpm")
    target = built.rename(root.path / "packaging" / built.name)
    return f"/packaging/{target.name}"


def rpm_package(root: RealRoot, name: str, *files: str, version: str = "1") -> str:
    return rpm_built(root, name, SPEC.format(name=name, version=version, files=" ".join(files), lines="\n".join(files)))


def rpm_install(root: RealRoot, *packages: str) -> None:
    succeed(root, "rpm", "--force-debian", "--nodeps", "-U", *packages)


def rpm_erase(root: RealRoot, *names: str) -> None:
    succeed(root, "rpm", "--force-debian", "--nodeps", "-e", *names)


def test_headers_that_come_alone(rpm: RealRoot) -> None:
    """Fedora's kernel-devel: no scriptlet of anybody tells of it."""
    files = (f"/usr/src/kernels/{KREL}/Makefile", f"/usr/src/kernels/{KREL}/include/linux/module.h")
    rpm_install(rpm, rpm_package(rpm, "kernel-devel", *files))
    assert taken(rpm) == [(Verb.RECONCILE, KREL, "rpm-in")]


def test_kernels_come_in_one_transaction(rpm: RealRoot) -> None:
    packages = [rpm_package(rpm, f"kernel{i}", f"/usr/lib/modules/{k}/vmlinuz") for i, k in enumerate((KREL, OTHER))]
    rpm_install(rpm, *packages)
    assert taken(rpm) == [(Verb.RECONCILE, KREL, "rpm-in"), (Verb.RECONCILE, OTHER, "rpm-in")]


def test_modules_are_removed_and_then_the_kernel(rpm: RealRoot) -> None:
    core = rpm_package(rpm, "kernel-core", f"/usr/lib/modules/{KREL}/vmlinuz")
    extra = rpm_package(rpm, "kernel-modules-extra", f"/usr/lib/modules/{KREL}/extra/x.ko")
    rpm_install(rpm, core, extra)
    taken(rpm)
    rpm_erase(rpm, "kernel-modules-extra")
    assert taken(rpm) == [(Verb.RESCAN, RESCAN, "rpm-gone")], "the kernel stays"
    rpm_erase(rpm, "kernel-core")
    assert taken(rpm) == [(Verb.RESCAN, RESCAN, "rpm-gone")]
    assert not (rpm.paths.record(KREL)).exists() or '"going": true' in rpm.paths.record(KREL).read_text()


def test_sources_concern_every_kernel(rpm: RealRoot) -> None:
    rpm_install(rpm, rpm_package(rpm, "dkms-evdi", "/usr/src/evdi-1.0/dkms.conf", "/usr/src/evdi-1.0/Makefile"))
    assert taken(rpm) == [(Verb.RESCAN, RESCAN, "rpm-in")]
    rpm_erase(rpm, "dkms-evdi")
    assert taken(rpm) == [(Verb.RESCAN, RESCAN, "rpm-gone")]


def test_suse_s_headers(rpm: RealRoot) -> None:
    file = "/usr/src/linux-6.4.0-150600.21-obj/x86_64/default/Makefile"
    rpm_install(rpm, rpm_package(rpm, "kernel-default-devel", file))
    assert taken(rpm) == [(Verb.RESCAN, RESCAN, "rpm-in")]


def test_a_broken_autokmod_does_not_stop_rpm(rpm: RealRoot) -> None:
    for program in (rpm.path / "usr/libexec/autokmod").iterdir():
        program.unlink()
    rpm_install(rpm, rpm_package(rpm, "kernel-core", f"/usr/lib/modules/{KREL}/vmlinuz"))
    rpm_erase(rpm, "kernel-core")
    assert taken(rpm) == []


# ---- pacman ----


@pytest.fixture
def pacman(real_root: MakeRoot) -> RealRoot:
    root = prepared(real_root())
    command = ["make", "-s", "-C", str(CHECKOUT), "install-hooks", f"DESTDIR={root.path}", "ALPM=yes"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (root.path / "var/lib/pacman").mkdir(parents=True)
    (root.path / "packaging").mkdir()
    (root.path / "packaging/pacman.conf").write_text(PACMAN_CONF)
    return root


def alpm_package(root: RealRoot, name: str, *files: str, version: str = "1") -> str:
    tree = root.path / "packaging" / f"{name}-{version}"
    for file in files:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_text(version)
    (tree / ".PKGINFO").write_text(PKGINFO.format(name=name, version=version))
    target = f"{tree}.pkg.tar.zst"
    subprocess.run(["tar", "--zstd", "-cf", target, "-C", tree, ".PKGINFO", "usr"], check=True)
    return f"/packaging/{Path(target).name}"


def run_pacman(root: RealRoot, *args: str) -> str:
    said = succeed(root, "pacman", "--config", "/packaging/pacman.conf", "--noconfirm", *args)
    assert "error" not in said, said
    return said


def test_a_kernel_and_its_headers(pacman: RealRoot) -> None:
    kernel = alpm_package(pacman, "linux", f"usr/lib/modules/{KREL}/vmlinuz", f"usr/lib/modules/{KREL}/pkgbase")
    headers = alpm_package(pacman, "linux-headers", f"usr/lib/modules/{KREL}/build/include/generated/utsrelease.h")
    said = run_pacman(pacman, "-U", kernel)
    assert "Preparing out-of-tree kernel modules..." in said
    assert taken(pacman) == [(Verb.RECONCILE, KREL, "alpm-add")]
    run_pacman(pacman, "-U", headers)
    assert taken(pacman) == [(Verb.RECONCILE, KREL, "alpm-add")]


def test_a_kernel_is_replaced_in_place_by_the_next(pacman: RealRoot) -> None:
    run_pacman(pacman, "-U", alpm_package(pacman, "linux", f"usr/lib/modules/{KREL}/vmlinuz"))
    taken(pacman)
    said = run_pacman(pacman, "-U", alpm_package(pacman, "linux", f"usr/lib/modules/{OTHER}/vmlinuz", version="2"))
    assert "Keeping out-of-tree modules that other kernels need..." in said
    looks = [(Verb.RECONCILE, OTHER, "alpm-add"), (Verb.RESCAN, RESCAN, "alpm-gone")]
    assert taken(pacman) == looks, "the removal itself was done in time, by the hook"
    assert not pacman.paths.record(KREL).exists() or '"going": true' in pacman.paths.record(KREL).read_text()


def test_sources_come_and_go(pacman: RealRoot) -> None:
    run_pacman(pacman, "-U", alpm_package(pacman, "evdi-dkms", "usr/src/evdi-1.0/dkms.conf"))
    assert taken(pacman) == [(Verb.RESCAN, RESCAN, "alpm-add")]
    run_pacman(pacman, "-R", "evdi-dkms")
    assert taken(pacman) == [(Verb.RESCAN, RESCAN, "alpm-gone")]


def test_what_is_none_of_our_business(pacman: RealRoot) -> None:
    said = run_pacman(pacman, "-U", alpm_package(pacman, "vim", "usr/share/vim/vimrc"))
    assert "out-of-tree" not in said
    assert taken(pacman) == []


# ---- what they call ----


@pytest.mark.parametrize("make", [lambda text: text, lambda text: f"/{text}"], ids=["relative", "absolute"])
def test_paths_become_kernels(real_root: MakeRoot, make: Callable[[str], str]) -> None:
    root = prepared(real_root())
    lines = [
        f"lib/modules/{KREL}/kernel/a.ko", f"usr/lib/modules/{KREL}/kernel/b.ko", f"usr/src/kernels/{OTHER}/x",
        "usr/lib/modules/../../etc/x", "usr/lib/modules/$(touch x)/y", "usr/lib/modules/all/z", "usr/lib/modules/",
        "usr/share/doc/x", "",
    ]  # fmt: skip
    (root.path / "paths").write_text("".join(make(line) + "\n" for line in lines if line))
    succeed(root, "sh", "-c", "/usr/libexec/autokmod/package-event add rpm-in </paths")
    assert taken(root) == [(Verb.RECONCILE, KREL, "rpm-in"), (Verb.RECONCILE, OTHER, "rpm-in")]
    succeed(root, "sh", "-c", "/usr/libexec/autokmod/package-event remove rpm-un </paths")
    assert taken(root) == [], "no image is among them"
