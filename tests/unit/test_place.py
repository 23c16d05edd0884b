"""Modules in a modules directory: placed, linked, indexed by the real depmod, promoted, taken out again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.act.depmod import run_depmod, verify_placed
from autokmod.act.place import is_intact, place_files, place_links, placed_file, remove_all, remove_others
from autokmod.act.promote import promote
from autokmod.errors import PlacementFailed
from autokmod.model import BuiltModule, DecisionKind, KernelRecord, PlacedFile, Placement
from autokmod.paths import Paths
from tests.elfwriter import make_ko

K1, K2, K3 = "6.1.0-1-test", "6.1.0-2-test", "6.1.0-10-test"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "lib").symlink_to("usr/lib")
    for krel in (K1, K2, K3):
        (tmp_path / "usr/lib/modules" / krel / "kernel/drivers").mkdir(parents=True)
        for name in ("modules.order", "modules.builtin"):
            (tmp_path / "usr/lib/modules" / krel / name).write_text("")
    return Paths(tmp_path)


def built(name: str) -> BuiltModule:
    data = make_ko(name=name)
    digest = hashlib.sha256(data).hexdigest()
    return BuiltModule(name.replace("-", "_"), name, f"{name}.ko", digest, len(data), None, None)


def place(paths: Paths, *names: str, krel: str = K1) -> tuple[PlacedFile, ...]:
    return place_files(paths, krel, "drv", [built(n) for n in names], lambda m: make_ko(name=m.dest_name), "")


def placement(files: tuple[PlacedFile, ...], link_from: str | None = None) -> Placement:
    kind = DecisionKind.LINK if link_from else DecisionKind.BUILD
    return Placement("drv", "1.0", kind, (), "key", "source", link_from, 2, files, verified=True)


def tree(paths: Paths, krel: str) -> dict[str, str]:
    """Every file and link of ours, with where a link leads."""
    top = paths.modulesd(krel)
    found = [Path(d, f) for base in ("updates", "weak-updates") for d, _, fs in os.walk(top / base) for f in fs]
    return {str(p.relative_to(top)): os.readlink(p) if p.is_symlink() else "" for p in found}


def test_own_files_are_what_depmod_picks(paths: Paths) -> None:
    files = place(paths, "drv-a", "drv_b")
    run_depmod(paths, K1)
    assert verify_placed(paths, K1, files) == ()
    assert [f.path for f in files] == ["updates/autokmod/drv/drv-a.ko", "updates/autokmod/drv/drv_b.ko"]


def test_links_are_relative_and_what_depmod_picks(paths: Paths) -> None:
    links = place_links(paths, K2, "drv", K1, place(paths, "drv"))
    run_depmod(paths, K2)
    assert verify_placed(paths, K2, links) == ()
    assert tree(paths, K2) == {
        "weak-updates/autokmod/drv/drv.ko": f"../../../../{K1}/updates/autokmod/drv/drv.ko",
    }


def test_twin_that_wins_is_named(paths: Paths) -> None:
    """Without our depmod.d file the in-tree module may win; then nothing may be called verified."""
    (paths.modulesd(K1) / "updates/aaa").mkdir(parents=True)
    (paths.modulesd(K1) / "updates/aaa/drv.ko").write_bytes(make_ko(name="drv"))
    (paths.at("etc/depmod.d")).mkdir(parents=True)
    (paths.at("etc/depmod.d/a.conf")).write_text("override drv * updates/aaa\n")
    files = place(paths, "drv")
    run_depmod(paths, K1)
    (reason,) = verify_placed(paths, K1, files)
    assert (reason.kind, "updates/aaa/drv.ko" in reason.text) == ("other-file-wins", True)


def test_two_packages_with_one_module_are_named(paths: Paths) -> None:
    for package in ("drv", "drv-fork"):
        place_files(paths, K1, package, [built("drv")], lambda m: make_ko(name=m.dest_name), "")
    run_depmod(paths, K1)
    (line,) = (paths.modulesd(K1) / "modules.dep").read_text().splitlines()
    loser = "drv" if "drv-fork" in line else "drv-fork"
    path = paths.own_dir(K1, loser) / "drv.ko"
    (reason,) = verify_placed(paths, K1, [placed_file(paths, K1, "drv", path)])
    assert reason.hint is not None
    assert {"drv", "drv-fork"} <= set(reason.hint.replace(",", "").split())


def test_changed_bytes_are_not_verified(paths: Paths) -> None:
    files = place(paths, "drv")
    run_depmod(paths, K1)
    (paths.modulesd(K1) / files[0].path).write_bytes(make_ko(name="drv") + b"x")
    assert [r.kind for r in verify_placed(paths, K1, files)] == ["content-differs"]


def test_missing_index_entry_is_not_verified(paths: Paths) -> None:
    run_depmod(paths, K1)
    files = place(paths, "drv")
    assert [r.kind for r in verify_placed(paths, K1, files)] == ["not-indexed"]


def test_second_run_writes_nothing(paths: Paths) -> None:
    first = place(paths, "drv")
    links = place_links(paths, K2, "drv", K1, first)
    assert place(paths, "drv") == first  # the same mtime: the same file
    assert place_links(paths, K2, "drv", K1, first) == links


def test_module_that_is_gone_from_the_package_goes(paths: Paths) -> None:
    place(paths, "old", "drv")
    files = place(paths, "drv")
    assert remove_others(paths, K1, "drv", files)
    assert tree(paths, K1) == {"updates/autokmod/drv/drv.ko": ""}


def test_removal_leaves_no_directory_behind(paths: Paths) -> None:
    before = sorted(os.listdir(paths.modulesd(K1)))
    place_links(paths, K2, "drv", K1, place(paths, "drv"))
    remove_all(paths, K1)
    remove_all(paths, K2)
    assert sorted(os.listdir(paths.modulesd(K1))) == before
    assert not (paths.modulesd(K2) / "weak-updates").exists()


def test_foreign_files_stay(paths: Paths) -> None:
    other = paths.modulesd(K1) / "updates/dkms/drv.ko"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"somebody else's")
    place(paths, "drv")
    remove_all(paths, K1)
    assert other.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("where", ["updates", "updates/autokmod", "updates/autokmod/drv"])
def test_directory_that_is_a_link_is_not_followed(paths: Paths, where: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = paths.modulesd(K1) / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(PlacementFailed, match="move it away"):
        place(paths, "drv")
    assert list(outside.iterdir()) == []
    theirs = outside.joinpath(*["updates", "autokmod", "drv", "drv.ko"][where.count("/") + 1 :])
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_bytes(b"theirs")
    remove_all(paths, K1)
    remove_others(paths, K1, "drv", ())
    assert theirs.read_bytes() == b"theirs"


def test_link_where_a_module_should_go_is_reported(paths: Paths, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"theirs")
    link = paths.own_dir(K1, "drv") / "drv.ko"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(PlacementFailed, match="symbolic link that autokmod did not make"):
        place(paths, "drv")
    assert (link.is_symlink(), target.read_bytes()) == (True, b"theirs")


# ---- believed only as far as the disk agrees ----


def test_intact_follows_the_link(paths: Paths) -> None:
    own = place(paths, "drv")
    linked = placement(place_links(paths, K2, "drv", K1, own), K1)
    assert is_intact(paths, K1, placement(own))
    assert is_intact(paths, K2, linked)
    (paths.modulesd(K1) / own[0].path).unlink()
    assert not is_intact(paths, K1, placement(own))
    assert not is_intact(paths, K2, linked)


# ---- a kernel goes ----


def three_kernels(paths: Paths) -> dict[str, KernelRecord]:
    own = place(paths, "drv")
    links = {krel: placement(place_links(paths, krel, "drv", K1, own), K1) for krel in (K2, K3)}
    records = {krel: KernelRecord(krel, 1.0, (link,)) for krel, link in links.items()}
    return {K1: KernelRecord(K1, 1.0, (placement(own),)), **records}


def test_newest_linker_inherits_and_the_others_follow(paths: Paths) -> None:
    changed = promote(paths, three_kernels(paths), K1).changed
    remove_all(paths, K1)
    assert tree(paths, K3) == {"updates/autokmod/drv/drv.ko": ""}
    assert tree(paths, K2) == {"weak-updates/autokmod/drv/drv.ko": f"../../../../{K3}/updates/autokmod/drv/drv.ko"}
    assert {k: (r.placements[0].link_from, r.placements[0].verified) for k, r in changed.items()} == {
        K3: (None, False),
        K2: (K3, False),
    }
    for krel, record in changed.items():
        run_depmod(paths, krel)
        assert verify_placed(paths, krel, record.placements[0].files) == ()


def test_promotion_killed_half_way_is_repeated(paths: Paths) -> None:
    """The records are written last: a second run starts from the same ones, on a tree that has moved on."""
    records = three_kernels(paths)
    promote(paths, {K1: records[K1], K3: records[K3]}, K1)
    changed = promote(paths, records, K1).changed
    assert tree(paths, K3) == {"updates/autokmod/drv/drv.ko": ""}
    assert changed[K2].placements[0].link_from == K3


def test_nothing_linked_nothing_changes(paths: Paths) -> None:
    own = KernelRecord(K1, 1.0, (placement(place(paths, "drv")),))
    assert promote(paths, {K1: own}, K1).changed == {}


def test_owner_changed_behind_our_back_is_not_inherited(paths: Paths) -> None:
    records = three_kernels(paths)
    (paths.modulesd(K1) / "updates/autokmod/drv/drv.ko").write_bytes(b"something else")
    promotion = promote(paths, records, K1)
    assert (promotion.changed, "was changed" in promotion.failed["drv"]) == ({}, True)


def test_record_of_links_elsewhere_is_left_alone(paths: Paths) -> None:
    records = three_kernels(paths)
    elsewhere = replace(records[K2].placements[0], package="other", files=(), link_from=K3)
    records[K2] = replace(records[K2], placements=(*records[K2].placements, elsewhere))
    assert elsewhere in promote(paths, records, K1).changed[K2].placements
