"""Who else builds or links here: where it really starts, by what its packages install."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autokmod.observe.neighbours import POSTINST, SWITCH, Neighbour, find_neighbours
from autokmod.paths import Paths
from tests.unit import dkmshere
from tests.unit.dkmshere import DEBIAN, PLUGIN, UNIT, WANTED, arch, debian, fedora, link, write

BUILDERS = ["/etc/kernel/postinst.d/dkms", "/etc/kernel/header_postinst.d/dkms"]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def only(paths: Paths) -> Neighbour:
    (found,) = find_neighbours(paths)
    return found


def starts(paths: Paths) -> list[str]:
    return [t.path for n in find_neighbours(paths) for t in n.triggers]


def test_nobody(paths: Paths) -> None:
    assert find_neighbours(paths) == ()


@pytest.mark.parametrize(
    ("install", "expected"),
    [
        (debian, [*BUILDERS, POSTINST]),
        (fedora, [f"/{PLUGIN}", f"/{UNIT}", POSTINST]),
        (arch, [f"/{dkmshere.ALPM}"]),
    ],
)
def test_dkms(paths: Paths, install: Callable[[Paths], None], expected: list[str]) -> None:
    install(paths)
    assert starts(paths) == expected
    assert only(paths).reason.hint == "'autokmodctl adopt dkms' leaves all of it to autokmod"


def unlink(name: str) -> Callable[[Paths], None]:
    return lambda paths: paths.at(name).unlink()


def mask(name: str) -> Callable[[Paths], object]:
    return lambda paths: link(paths, name, "/dev/null")


@pytest.mark.parametrize(
    ("install", "change", "gone"),
    [
        (debian, unlink("usr/sbin/dkms"), [*BUILDERS, POSTINST]),  # removed, and not purged
        (debian, lambda paths: paths.at("usr/sbin/dkms").chmod(0o644), [*BUILDERS, POSTINST]),
        (debian, lambda paths: paths.at(DEBIAN[0]).chmod(0o644), BUILDERS[:1]),
        (debian, lambda paths: paths.at(DEBIAN[1]).write_text(""), BUILDERS[1:]),
        (debian, lambda paths: write(paths, SWITCH), [POSTINST]),
        (debian, unlink("usr/lib/dkms/common.postinst"), [POSTINST]),
        (fedora, mask("etc/kernel/install.d/40-dkms.install"), [f"/{PLUGIN}"]),
        (fedora, mask("run/kernel/install.d/40-dkms.install"), [f"/{PLUGIN}"]),
        (fedora, lambda paths: write(paths, "etc/kernel/install.d/40-dkms.install", ""), [f"/{PLUGIN}"]),
        (fedora, unlink(WANTED), [f"/{UNIT}"]),
        (fedora, mask("etc/systemd/system/dkms.service"), [f"/{UNIT}"]),
        (fedora, mask("run/systemd/system/dkms.service"), [f"/{UNIT}"]),
        (fedora, unlink(UNIT), [f"/{UNIT}"]),
        (arch, mask("etc/pacman.d/hooks/70-dkms-install.hook"), [f"/{dkmshere.ALPM}"]),
        (arch, lambda paths: link(paths, "loop", "loop") and link(paths, "etc/pacman.d/hooks", "/loop"), []),
    ],
)
def test_what_does_not_start(
    paths: Paths, install: Callable[[Paths], None], change: Callable[[Paths], object], gone: list[str]
) -> None:
    install(paths)
    before = starts(paths)
    change(paths)
    assert starts(paths) == [path for path in before if path not in gone]


def test_an_administrator_s_plugin_is_the_one_that_counts(paths: Paths) -> None:
    fedora(paths)
    write(paths, "etc/kernel/install.d/40-dkms.install")
    assert starts(paths)[0] == "/etc/kernel/install.d/40-dkms.install"


def test_hooks_beside_etc(paths: Paths) -> None:
    """Debian after 12 looks into /usr/share/kernel as well; a name in /etc hides its namesake there."""
    write(paths, "usr/sbin/dkms")
    write(paths, "usr/share/kernel/postinst.d/dkms")
    assert starts(paths) == ["/usr/share/kernel/postinst.d/dkms"]
    link(paths, "etc/kernel/postinst.d/dkms", "/dev/null")
    assert starts(paths) == []


def test_akmods(paths: Paths) -> None:
    write(paths, "usr/sbin/akmods")
    assert find_neighbours(paths) == ()
    write(paths, "usr/lib/kernel/install.d/95-akmodsposttrans.install")
    write(paths, "usr/lib/systemd/system/akmods.service", "[Service]\n")
    link(paths, "etc/systemd/system/multi-user.target.wants/akmods.service", "/usr/lib/systemd/system/akmods.service")
    assert only(paths).name == "akmods"
    assert only(paths).reason.hint == (
        "it may stay; to stop it: ln -sf /dev/null /etc/kernel/install.d/95-akmodsposttrans.install; "
        "systemctl mask akmods.service"
    )
    link(paths, "etc/systemd/system/akmods.service", "/dev/null")
    link(paths, "etc/kernel/install.d/95-akmodsposttrans.install", "/dev/null")
    assert find_neighbours(paths) == ()


@pytest.mark.parametrize("program", ["usr/sbin/weak-modules", "usr/lib/module-init-tools/weak-modules2"])
def test_weak_modules(paths: Paths, program: str) -> None:
    write(paths, program, mode=0o644)
    assert find_neighbours(paths) == ()
    write(paths, program)
    assert (only(paths).name, starts(paths)) == ("weak-modules", [f"/{program}"])


def test_several(paths: Paths) -> None:
    fedora(paths)
    write(paths, "usr/sbin/weak-modules")
    assert [n.name for n in find_neighbours(paths)] == ["dkms", "weak-modules"]
