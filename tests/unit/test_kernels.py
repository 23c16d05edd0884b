"""What of a kernel is on disk: headers alone, kernels alone, and everything in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autokmod.errors import UnknownKernel
from autokmod.model import KernelState
from autokmod.observe.kernels import HEADER_PARTS, find_kernels, is_krel, read_kernel
from autokmod.paths import Paths

KREL = "6.1.0-9-test"
Step = Callable[[Path], None]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "usr/lib/modules").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "boot").mkdir()
    return Paths(tmp_path)


def modules(root: Path) -> None:
    modulesd = root / "usr/lib/modules" / KREL
    (modulesd / "kernel/fs").mkdir(parents=True)
    for name in ("modules.order", "modules.builtin"):
        (modulesd / name).write_text("")


def image(root: Path) -> None:
    (root / "boot" / f"vmlinuz-{KREL}").write_bytes(b"x")


def headers(root: Path) -> None:
    kdir = root / "usr/src" / f"linux-headers-{KREL}"
    for part in HEADER_PARTS:
        (kdir / part).parent.mkdir(parents=True, exist_ok=True)
        (kdir / part).write_text("x\n")
    build_link(root)


def build_link(root: Path) -> None:
    modulesd = root / "usr/lib/modules" / KREL
    modulesd.mkdir(exist_ok=True)
    (modulesd / "build").symlink_to(f"/usr/src/linux-headers-{KREL}")


def half_unpacked_modules(root: Path) -> None:
    (root / "usr/lib/modules" / KREL / "modules.order.dpkg-new").write_text("")


def half_unpacked_headers(root: Path) -> None:
    (root / "usr/src" / f"linux-headers-{KREL}" / "Makefile.dpkg-new").write_text("")


def source_link(root: Path) -> None:
    (root / "usr/lib/modules" / KREL / "source").symlink_to("/usr/src/linux-headers-6.1.0-9-common")


def common_headers(root: Path) -> None:
    common = root / "usr/src/linux-headers-6.1.0-9-common"
    common.mkdir(parents=True)
    (common / "Makefile").write_text("x\n")


def half_unpacked_common_headers(root: Path) -> None:
    (root / "usr/src/linux-headers-6.1.0-9-common/Kbuild.dpkg-new").write_text("")


def empty_symvers(root: Path) -> None:
    (root / "usr/src" / f"linux-headers-{KREL}" / "Module.symvers").write_text("")


def headers_of_another(root: Path) -> None:
    path = root / "usr/src" / f"linux-headers-{KREL}" / "include/generated/utsrelease.h"
    path.write_text('#define UTS_RELEASE "6.1.0-8-test"\n')


def no_modules_order(root: Path) -> None:
    (root / "usr/lib/modules" / KREL / "modules.order").unlink()


@pytest.mark.parametrize(
    ("steps", "state", "kind"),
    [
        ((modules, image, headers), KernelState.COMPLETE, None),
        ((modules, image), KernelState.NO_HEADERS, "headers-missing"),
        ((modules, image, build_link), KernelState.NO_HEADERS, "headers-missing"),
        ((modules, image, headers, source_link), KernelState.NO_HEADERS, "headers-incomplete"),
        ((modules, image, headers, source_link, common_headers), KernelState.COMPLETE, None),
        (
            (modules, image, headers, source_link, common_headers, half_unpacked_common_headers),
            KernelState.NO_HEADERS,
            "headers-incomplete",
        ),
        ((modules, headers), KernelState.NO_IMAGE, "no-image"),
        ((headers,), KernelState.HEADERS_ONLY, "headers-only"),
        ((modules, image, headers, half_unpacked_modules), KernelState.INCOMPLETE, "modules-incomplete"),
        ((modules, image, headers, no_modules_order), KernelState.INCOMPLETE, "modules-incomplete"),
        ((modules, image, headers, half_unpacked_headers), KernelState.NO_HEADERS, "headers-incomplete"),
        ((modules, image, headers, empty_symvers), KernelState.NO_HEADERS, "headers-incomplete"),
        ((modules, image, headers, headers_of_another), KernelState.NO_HEADERS, "headers-other-kernel"),
    ],
)
def test_state(paths: Paths, steps: tuple[Step, ...], state: KernelState, kind: str | None) -> None:
    for step in steps:
        step(paths.root)
    kernel = read_kernel(paths, KREL)
    assert kernel.state is state
    assert [r.kind for r in kernel.problems][:1] == ([kind] if kind else [])
    assert (kernel.kdir is not None) == (state is not KernelState.NO_HEADERS)  # headers count only when usable


def test_absolute_build_link_is_followed_inside_the_root(paths: Paths) -> None:
    modules(paths.root)
    image(paths.root)
    headers(paths.root)
    assert read_kernel(paths, KREL).kdir == str(paths.root / f"usr/src/linux-headers-{KREL}")


def test_link_loop_is_a_problem_not_an_exception(paths: Paths) -> None:
    modules(paths.root)
    image(paths.root)
    (paths.modulesd(KREL) / "build").symlink_to("build")
    kernel = read_kernel(paths, KREL)
    assert kernel.state is KernelState.NO_HEADERS
    assert "too many levels" in kernel.problems[0].text


def test_changed_at_ignores_what_depmod_writes(paths: Paths) -> None:
    modules(paths.root)
    before = read_kernel(paths, KREL).changed_at
    (paths.modulesd(KREL) / "modules.dep").write_text("x")
    assert read_kernel(paths, KREL).changed_at == before


def test_no_modules_directory_is_no_kernel(tmp_path: Path) -> None:
    assert find_kernels(Paths(tmp_path)) == ()


def test_unknown_kernel_names_it(paths: Paths) -> None:
    with pytest.raises(UnknownKernel, match=r"6\.9"):
        read_kernel(paths, "6.9")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("6.12.117+deb12-amd64", True),
        ("6.1.0-56-cloud-amd64", True),
        ("4.18.0-425.3.1.el8.x86_64+debug", True),
        ("", False),
        ("..", False),
        (".hidden", False),
        ("a/b", False),
        ("-rf", False),
        ("6.1 x", False),
        ("6.1\n", False),
        ("x" * 129, False),
    ],
)
def test_is_krel(text: str, good: bool) -> None:
    assert is_krel(text) is good
