"""What starts DKMS masked and given back, in systems of a few files. With the real DKMS: tests/system."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autokmod.act import adopt as adopting
from autokmod.act.adopt import adopt, preview_adopt, preview_release, release
from autokmod.errors import FormatError, NotInstalled, UsageError
from autokmod.observe.adopted import Mask, find_adopted
from autokmod.observe.neighbours import find_neighbours
from autokmod.paths import Paths
from tests.unit.dkmshere import DEBIAN, PLUGIN, WANTED, arch, debian, fedora, link, write
from tests.unit.handmade import add_source

NOW = 1_700_000_000.0
OVERRIDE = "etc/kernel/install.d/40-dkms.install"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def system(paths: Paths) -> dict[str, tuple[int, str]]:
    """Mode and content of everything but autokmod's own state."""
    found = {}
    for top, _, names in os.walk(paths.root):
        for path in (Path(top, n) for n in names if "var/lib/autokmod" not in top):
            text = os.readlink(path) if path.is_symlink() else path.read_text()
            found[str(path.relative_to(paths.root))] = (path.lstat().st_mode, text)
    return found


def state(paths: Paths) -> list[tuple[bool, str]]:
    return [(n.adopted, n.reason.kind) for n in find_neighbours(paths)]


@pytest.mark.parametrize("install", [debian, fedora, arch])
def test_there_and_back(paths: Paths, install: Callable[[Paths], None]) -> None:
    install(paths)
    before = system(paths)
    seen = preview_adopt(paths, "dkms")
    assert (system(paths), paths.adopted.exists()) == (before, False)
    assert adopt(paths, "dkms", NOW) == seen
    assert state(paths) == [(True, "neighbour-adopted")]
    masked = system(paths)
    assert adopt(paths, "dkms", NOW + 1).masks == ()
    assert system(paths) == masked
    promised = preview_release(paths, "dkms")
    assert system(paths) == masked
    given = release(paths, "dkms")
    assert given == promised
    assert given is not None
    assert (given.masks, given.left) == (seen.masks, ())
    assert system(paths) == before
    assert state(paths) == [(False, "neighbour-active")]
    assert not paths.adopted.exists()
    assert release(paths, "dkms") is None


def test_what_takes_dkms_s_modules_away_stays(paths: Paths) -> None:
    debian(paths)
    adopt(paths, "dkms", NOW)
    assert [bool(paths.at(name).stat().st_mode & 0o111) for name in DEBIAN] == [False, False, True]


@pytest.mark.parametrize("by_hand", [False, True], ids=["the vendor's", "the administrator's"])
def test_kernel_install_s_removals_are_passed_on(paths: Paths, by_hand: bool) -> None:
    """As kernel-install starts it: arguments, and an exit status that counts."""
    fedora(paths)
    told = paths.at("told")
    script = f'#!/bin/sh\necho "$*" >>{told}\nexit 9\n'
    write(paths, OVERRIDE if by_hand else PLUGIN, script)
    (mask,) = (m for m in adopt(paths, "dkms", NOW).masks if m.way == "plugin")
    assert mask.kept == (f"/{OVERRIDE}.autokmod-kept" if by_hand else None)
    real = paths.at(OVERRIDE)
    inside = mask.kept or mask.path
    real.write_text(real.read_text().replace(inside, str(paths.at(inside))))  # there is no chroot here
    codes = [subprocess.run([real, *args]).returncode for args in (("add", "K", "D", "I"), ("remove", "K", "D"), ())]
    assert codes == [0, 9, 0]
    assert told.read_text() == "remove K D\n"


def test_the_administrator_s_own_come_back(paths: Paths) -> None:
    fedora(paths)
    write(paths, OVERRIDE, "#!/bin/sh\n# mine\n")
    write(paths, "etc/systemd/system/dkms.service", "[Unit]\n# mine\n", 0o600)
    link(paths, "etc/kernel/postinst.d/dkms", "/usr/lib/dkms/common.postinst")
    before = system(paths)
    adopt(paths, "dkms", NOW)
    assert state(paths) == [(True, "neighbour-adopted")]
    assert not paths.at("etc/kernel/postinst.d/dkms").is_file()
    assert paths.at("usr/lib/dkms/common.postinst").stat().st_mode & 0o111, "what it leads to is not ours to change"
    release(paths, "dkms")
    assert system(paths) == before


def test_what_was_off_before_stays_off(paths: Paths) -> None:
    debian(paths)
    paths.at(DEBIAN[0]).chmod(0o640)
    write(paths, "etc/dkms/no-autoinstall", "")
    before = system(paths)
    assert [m.path for m in adopt(paths, "dkms", NOW).masks] == ["/etc/kernel/header_postinst.d/dkms"]
    release(paths, "dkms")
    assert system(paths) == before


def test_what_came_back_is_masked_again(paths: Paths) -> None:
    """A purge of DKMS takes its hooks away, and a new installation brings them anew."""
    debian(paths)
    adopt(paths, "dkms", NOW)
    paths.at(DEBIAN[0]).unlink()
    assert state(paths) == [(True, "neighbour-adopted")]
    write(paths, DEBIAN[0], mode=0o750)
    (found,) = find_neighbours(paths)
    assert (found.adopted, found.reason.kind) == (True, "neighbour-back")
    assert "/etc/kernel/postinst.d/dkms came back" in found.reason.text
    assert [m.path for m in adopt(paths, "dkms", NOW).masks] == ["/etc/kernel/postinst.d/dkms"]
    adopted = find_adopted(paths, "dkms")
    assert adopted is not None
    assert (adopted.at, len(adopted.masks)) == (NOW, 3)
    release(paths, "dkms")
    assert [stat.S_IMODE(paths.at(n).stat().st_mode) for n in DEBIAN] == [0o750, 0o755, 0o755]


def test_what_somebody_changed_since_stays(paths: Paths) -> None:
    fedora(paths)
    debian(paths)
    adopt(paths, "dkms", NOW)
    paths.at(OVERRIDE).write_text("#!/bin/sh\n# mine\n")
    paths.at("etc/systemd/system/dkms.service").unlink()
    paths.at("etc/dkms/no-autoinstall").write_text("mine\n")
    paths.at(DEBIAN[0]).chmod(0o700)
    given = release(paths, "dkms")
    assert given is not None
    assert {r.text.split(" was ")[0] for r in given.left} == {
        *(f"/{OVERRIDE}", "/etc/dkms/no-autoinstall", "/etc/kernel/postinst.d/dkms")
    }
    assert paths.at(OVERRIDE).read_text() == "#!/bin/sh\n# mine\n"
    assert stat.S_IMODE(paths.at(DEBIAN[0]).stat().st_mode) == 0o700
    assert stat.S_IMODE(paths.at(DEBIAN[1]).stat().st_mode) == 0o755
    assert os.path.lexists(paths.at(WANTED))


@pytest.mark.parametrize("after", range(5))
def test_cut_short_it_can_be_finished_or_undone(paths: Paths, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    fedora(paths)
    debian(paths)
    write(paths, OVERRIDE, "#!/bin/sh\n# mine\n")
    before = system(paths)
    apply, count = adopting._apply, iter(range(99))

    def cut(paths: Paths, mask: Mask) -> None:
        if next(count) == after:
            raise KeyboardInterrupt
        apply(paths, mask)

    for step in ("finished", "undone"):
        with monkeypatch.context() as patch:
            patch.setattr(adopting, "_apply", cut)
            with pytest.raises(KeyboardInterrupt):
                adopt(paths, "dkms", NOW)
        count = iter(range(99))
        if step == "finished":
            adopt(paths, "dkms", NOW)
            assert state(paths) == [(True, "neighbour-adopted")]
        release(paths, "dkms")
        assert system(paths) == before, step


def test_cut_short_between_keeping_and_masking(paths: Paths) -> None:
    """The administrator's plugin is put aside already, and nothing stands in its place."""
    fedora(paths)
    write(paths, OVERRIDE, "#!/bin/sh\n# mine\n")
    before = system(paths)
    adopt(paths, "dkms", NOW)
    paths.at(OVERRIDE).unlink()
    adopt(paths, "dkms", NOW)
    assert state(paths) == [(True, "neighbour-adopted")]
    release(paths, "dkms")
    assert system(paths) == before


def test_what_dkms_has_to_know_again(paths: Paths) -> None:
    debian(paths)
    for name in ("known", "unknown", "forgotten", "gone", "newer"):
        if name != "newer":
            add_source(paths, name, "1")
    for name in ("known", "forgotten", "gone"):
        link(paths, f"var/lib/dkms/{name}/1/source", f"/usr/src/{name}-1")
    adopt(paths, "dkms", NOW)
    add_source(paths, "newer", "1")
    write(paths, "usr/src/own-1/autokmod.toml", "")
    paths.at("var/lib/dkms/forgotten/1/source").unlink()
    paths.at("usr/src/gone-1/dkms.conf").unlink()
    found = preview_release(paths, "dkms")
    assert found is not None
    assert found.added == ("forgotten/1", "newer/1")
    paths.at("usr/sbin/dkms").unlink()
    given = release(paths, "dkms")
    assert given is not None
    assert given.added == ()


def test_who_cannot_be_adopted(paths: Paths) -> None:
    with pytest.raises(NotInstalled, match="DKMS is not installed: there is nothing to adopt"):
        adopt(paths, "dkms", NOW)
    with pytest.raises(UsageError):
        adopt(paths, "akmods", NOW)
    with pytest.raises(UsageError):
        release(paths, "akmods")
    assert not paths.adopted.exists()


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2, "adopted": []}', '{"format": 1, "adopted": [{}]}'])
def test_a_damaged_record_is_no_licence(paths: Paths, text: str) -> None:
    """What was before is not known any more: nothing is changed."""
    debian(paths)
    adopt(paths, "dkms", NOW)
    paths.adopted.write_text(text)
    before = system(paths)
    with pytest.raises(FormatError):
        adopt(paths, "dkms", NOW)
    with pytest.raises(FormatError):
        release(paths, "dkms")
    assert system(paths) == before
    (found,) = find_neighbours(paths)
    assert found.reason.kind == "adopted-damaged"
    assert str(paths.adopted) in found.reason.text
