"""The real root is what the other tests stand on: it must show a whole system and leave the host alone."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from autokmod.model import KernelState
from autokmod.observe.kernels import find_kernels, read_kernel
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.realroot import BUILD_USER

pytestmark = pytest.mark.root


def test_the_trio_has_two_equal_kernels_and_another(corpus: Corpus) -> None:
    first, equal, other = corpus.trio
    assert corpus.symvers(first) == corpus.symvers(equal) != corpus.symvers(other)
    assert len({first, equal, other}) == 3


def test_kernels_and_packages_from_layers(real_root: MakeRoot, corpus: Corpus) -> None:
    root = real_root(kernels=tuple(corpus.trio), packages=("v4l2loopback-dkms",))
    found = find_kernels(root.paths)
    assert [(k.krel, k.state) for k in found] == [(k, KernelState.COMPLETE) for k in sorted(corpus.trio)]
    assert [p.name.split("-")[0] for p in root.paths.usr_src.glob("v4l2*")] == ["v4l2loopback"]


def test_a_kernel_comes_and_goes(real_root: MakeRoot, corpus: Corpus) -> None:
    root, krel = real_root(), corpus.trio.first
    assert find_kernels(root.paths) == ()
    root.add_kernel(krel, image=False)
    assert read_kernel(root.paths, krel).state is KernelState.HEADERS_ONLY
    root.add_kernel(krel, headers=False)
    assert read_kernel(root.paths, krel).state is KernelState.COMPLETE
    root.remove_kernel(krel, image=False)
    assert read_kernel(root.paths, krel).state is KernelState.NO_HEADERS
    root.remove_kernel(krel, headers=False)
    assert find_kernels(root.paths) == ()


def test_it_is_a_system_of_its_own(real_root: MakeRoot) -> None:
    root = real_root()
    (root.path / "usr/src/mine").mkdir()
    (root.path / "etc/mine").touch()
    assert not os.path.exists("/usr/src/mine")
    assert not os.path.exists("/etc/mine")
    assert root.chroot("gcc", "--version").returncode == 0
    assert BUILD_USER in root.chroot("id", BUILD_USER).stdout


def test_the_build_user_is_no_one_else(real_root: MakeRoot) -> None:
    entries = [line.split(":") for line in (real_root().path / "etc/passwd").read_text().splitlines()]
    uid = next(int(e[2]) for e in entries if e[0] == BUILD_USER)
    assert [e[0] for e in entries if int(e[2]) == uid] == [BUILD_USER]
    assert {e.pw_name for e in pwd.getpwall() if e.pw_uid == uid} <= {BUILD_USER}, "somebody on the host"


def test_mounts_are_invisible_to_the_host(real_root: MakeRoot) -> None:
    root = real_root()
    assert str(root.path) in Path("/proc/self/mounts").read_text()
    assert str(root.path) not in Path(f"/proc/{os.getppid()}/mounts").read_text()
