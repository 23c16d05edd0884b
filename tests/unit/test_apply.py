"""Decisions carried out on kernels of a few bytes, with the real depmod: nothing is lost, nothing is claimed untrue."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from autokmod.act.archive import archive
from autokmod.act.store import new_entry, publish, write_entry_file
from autokmod.config import Config
from autokmod.decide.facts import Facts
from autokmod.decide.readiness import decide_readiness
from autokmod.jobs.apply import apply_decisions
from autokmod.jobs.engine import Engine, job_result
from autokmod.jobs.initrd.step import InitrdStep
from autokmod.jobs.look import Looker
from autokmod.jobs.publishing import unattended
from autokmod.model import (
    Build,
    BuildError,
    BuiltModule,
    Decision,
    DecisionKind,
    KernelAbi,
    KernelRecord,
    Package,
    Readiness,
    Reason,
)
from autokmod.observe.kernels import read_kernel
from autokmod.observe.machine import look_at_kernels
from autokmod.paths import Paths
from autokmod.run import Cancel
from tests.elfwriter import make_ko
from tests.realroot import mount, private_mounts
from tests.unit.handmade import add_kernel

K1, K2, K3 = "6.1.0-1-test", "6.1.0-2-test", "6.1.0-10-test"
A, B = "a" * 64, "b" * 64
WHY = Reason("why", "because of this test")
NOW = 4e9


@dataclass
class World:
    paths: Paths
    builds: dict[str, Build] = field(default_factory=dict)

    def build(self, key: str, krel: str, *names: str, version: str = "1.0") -> Build:
        files = {name: make_ko(name=name, krel=krel, modinfo=(("license", "GPL"), ("build", key))) for name in names}
        modules = tuple(
            BuiltModule(n, n, f"{n}.ko", hashlib.sha256(d).hexdigest(), len(d), None, None) for n, d in files.items()
        )
        built = Build(key, "source", "drv", version, krel, True, False, (), modules, 1.0, 1.0, "")
        with new_entry(self.paths) as entry:
            write_entry_file(entry, "build.log", b"")
            for name, data in files.items():
                write_entry_file(entry, f"{name}.ko", data)
            self.builds[key] = publish(self.paths, entry, built)
        return self.builds[key]

    def facts(self, krel: str) -> Facts:
        looker = Looker(self.paths, Config())
        record = looker.record(krel)
        abi = KernelAbi(krel, None, None, None, False, {}, None, None, None, {}, ())
        kernel = read_kernel(self.paths, krel)
        package = Package("drv", "1.0", "/usr/src/drv-1.0", "dkms", "digest")
        intact = looker._intact(record)
        builds = tuple(self.builds.values())
        return Facts(kernel, abi, Config(), (package,), builds=builds, record=record, intact=intact)

    def apply(self, krel: str, *decisions: Decision) -> KernelRecord:
        facts, records = self.facts(krel), Looker(self.paths, Config()).records()
        record = apply_decisions(self.paths, facts, decisions, records, NOW)
        return InitrdStep(self.paths, Config(), krel, lambda: records, Cancel(), unattended).run(record)

    def use(self, krel: str, key: str) -> KernelRecord:
        return self.apply(krel, decision(krel, DecisionKind.BUILD, key, stored=True))

    def link(self, krel: str, owner: str, key: str) -> KernelRecord:
        return self.apply(krel, replace(decision(krel, DecisionKind.LINK, key, stored=True), link_from=owner))

    def readiness(self, krel: str) -> Readiness:
        sights = {s.kernel.krel: s for s in look_at_kernels(self.paths, NOW)}
        return decide_readiness(sights[krel], Config(), ()).readiness

    def tree(self, krel: str) -> dict[str, str]:
        """Every module of ours, with where a link leads."""
        top = self.paths.modulesd(krel)
        found = [Path(d, f) for base in ("updates", "weak-updates") for d, _, fs in os.walk(top / base) for f in fs]
        return {str(p.relative_to(top)): os.readlink(p) if p.is_symlink() else "" for p in found}

    def own_content(self, krel: str) -> str:
        """The key of the build that modprobe would load as drv."""
        index = (self.paths.modulesd(krel) / "modules.dep").read_text()
        path = next(line.split(":")[0] for line in index.splitlines() if "/drv.ko" in line)
        data = (self.paths.modulesd(krel) / path).read_bytes()
        return next(key for key in self.builds if f"build={key}".encode() in data)


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "lib").symlink_to("usr/lib")
    paths = Paths(tmp_path)
    paths.usr_src.mkdir(parents=True)
    for krel in (K1, K2, K3):
        add_kernel(paths, krel)
    return World(paths)


def decision(krel: str, kind: DecisionKind, key: str | None = None, *, stored: bool = False) -> Decision:
    return Decision("drv", "1.0", krel, kind, (WHY,), key=key, stored=stored)


@pytest.mark.parametrize("kind", [DecisionKind.WAIT, DecisionKind.SKIP])
def test_where_nothing_of_ours_stands_neither_index_nor_initrd_is_due(world: World, kind: DecisionKind) -> None:
    """Also at the first look: a new kernel is not in doubt because of what waits for its headers."""
    facts = world.facts(K1)
    record = apply_decisions(world.paths, facts, [decision(K1, kind)], {}, NOW)
    assert (record.initrd, record.initrd_ok, record.index) == (None, True, None)
    assert (world.paths.modulesd(K1) / "modules.dep").read_bytes() == b""


# ---- nothing is lost ----


STUCK = (DecisionKind.WAIT, DecisionKind.BLOCKED, DecisionKind.BUILD)


@pytest.mark.parametrize("kind", STUCK)
@pytest.mark.parametrize("what", ["all is well", "no record", "a touched file", "one of two is gone"])
def test_what_stands_stays_while_nothing_can_take_its_place(world: World, kind: DecisionKind, what: str) -> None:
    world.build(A, K1, "drv", "drv_b")
    world.use(K1, A)
    directory = world.paths.own_dir(K1, "drv")
    if what == "no record":
        world.paths.record(K1).unlink()
    if what == "a touched file":
        os.utime(directory / "drv.ko", (1, 1))
    if what == "one of two is gone":
        (directory / "drv_b.ko").unlink()
    record = world.apply(K1, decision(K1, kind, B))
    left = ["updates/autokmod/drv/drv.ko", "updates/autokmod/drv/drv_b.ko"][: 1 if "gone" in what else 2]
    assert sorted(world.tree(K1)) == left
    assert sorted(f.path for f in record.placements[0].files) == left
    assert world.own_content(K1) == A


def test_links_whose_record_was_lost_stay(world: World) -> None:
    world.build(A, K1, "drv")
    world.use(K1, A)
    world.link(K2, K1, A)
    world.paths.record(K2).unlink()
    record = world.apply(K2, decision(K2, DecisionKind.WAIT))
    assert list(world.tree(K2)) == ["weak-updates/autokmod/drv/drv.ko"]
    assert record.placements[0].link_from == K1


def test_dangling_link_is_not_kept(world: World) -> None:
    world.build(A, K1, "drv")
    world.use(K1, A)
    world.link(K2, K1, A)
    (world.paths.own_dir(K1, "drv") / "drv.ko").unlink()
    assert world.apply(K2, decision(K2, DecisionKind.WAIT)).placements[0].files == ()
    assert world.tree(K2) == {}
    assert "drv" not in (world.paths.modulesd(K2) / "modules.dep").read_text()


# ---- nothing is claimed that is not so ----


@pytest.mark.parametrize("kind", STUCK)
def test_what_stood_there_before_makes_no_kernel_ready(world: World, kind: DecisionKind) -> None:
    """A build for the kernel as it was before it was replaced, say, while the new one waits for its turn."""
    world.build(A, K1, "drv")
    world.use(K1, A)
    assert world.readiness(K1) is Readiness.READY
    world.apply(K1, decision(K1, kind, B))
    assert world.readiness(K1) is not Readiness.READY


@pytest.mark.parametrize("kind", STUCK)
def test_a_difficulty_that_passed_is_forgotten(world: World, kind: DecisionKind) -> None:
    world.build(A, K1, "drv")
    world.use(K1, A)
    world.apply(K1, decision(K1, kind, B))
    record = world.apply(K1, decision(K1, DecisionKind.KEEP, A, stored=True))
    assert not record.placements[0].standing
    assert world.readiness(K1) is Readiness.READY


def test_a_failed_upgrade_taken_back_is_forgotten(world: World) -> None:
    world.build(A, K1, "drv")
    world.use(K1, A)
    world.builds[B] = replace(world.builds[A], key=B, ok=False, modules=(), errors=(BuildError("", 0, "no"),))
    failed = replace(decision(K1, DecisionKind.BUILD, B, stored=True), version="2.0")
    assert world.apply(K1, failed).placements[0].failed
    placement = world.apply(K1, decision(K1, DecisionKind.KEEP, A, stored=True)).placements[0]
    assert (placement.version, placement.failed, placement.errors, placement.verified) == ("1.0", False, (), True)
    assert world.readiness(K1) is Readiness.READY


# ---- kernels that link to one another ----


def linked(world: World) -> None:
    """K1 has its own build A, which K2 and K3 are linked to."""
    world.build(A, K1, "drv")
    world.build(B, K1, "drv")
    world.use(K1, A)
    for krel in (K2, K3):
        world.link(krel, K1, A)


def test_another_build_in_the_owner_is_not_put_under_the_links_of_others(world: World) -> None:
    """The owner was replaced under the same krel, or the package was upgraded: what fits here need not fit there."""
    linked(world)
    world.use(K1, B)
    assert [world.own_content(krel) for krel in (K1, K2, K3)] == [B, A, A]
    assert world.tree(K3) == {"updates/autokmod/drv/drv.ko": ""}
    assert [world.readiness(krel) for krel in (K1, K2, K3)] == [Readiness.READY] * 3


@pytest.mark.parametrize("kind", [DecisionKind.SKIP, None])
def test_what_the_owner_has_no_more_goes_to_those_who_link_to_it(world: World, kind: DecisionKind | None) -> None:
    """Excluded there by recipe or administrator, or the source is gone: each kernel's own decision counts."""
    linked(world)
    world.apply(K1, *([decision(K1, kind)] if kind else []))
    assert world.tree(K1) == {}
    assert [world.own_content(krel) for krel in (K2, K3)] == [A, A]


def test_owner_and_linker_change_places(world: World) -> None:
    linked(world)
    world.use(K3, A)
    world.link(K1, K3, A)
    assert world.tree(K1) == {"weak-updates/autokmod/drv/drv.ko": f"../../../../{K3}/updates/autokmod/drv/drv.ko"}
    assert [world.own_content(krel) for krel in (K1, K2, K3)] == [A, A, A]
    assert world.readiness(K2) is Readiness.READY


def test_the_same_build_placed_again_disturbs_nobody(world: World) -> None:
    linked(world)
    world.paths.record(K1).unlink()
    world.use(K1, A)
    assert list(world.tree(K2)) == list(world.tree(K3)) == ["weak-updates/autokmod/drv/drv.ko"]


# ---- depmod fails, the disk is read-only ----


def test_a_depmod_that_fails_is_a_state_that_heals(world: World) -> None:
    world.build(A, K1, "drv")
    in_the_way = world.paths.modulesd(K1) / "modules.alias"
    in_the_way.mkdir()
    record = world.use(K1, A)
    assert record.index is not None
    assert "Is a directory" in record.index.text
    assert (record.placements[0].verified, record.placements[0].failed) == (False, True)
    assert job_result(record).transient
    assert world.readiness(K1) is Readiness.NOT_READY
    in_the_way.rmdir()
    assert world.use(K1, A).index is None
    assert world.readiness(K1) is Readiness.READY


def test_a_depmod_that_fails_after_a_removal_is_not_forgotten(world: World) -> None:
    world.build(A, K1, "drv")
    world.use(K1, A)
    in_the_way = world.paths.modulesd(K1) / "modules.alias"
    in_the_way.unlink()
    in_the_way.mkdir()
    world.apply(K1)
    assert world.readiness(K1) is Readiness.NOT_READY
    in_the_way.rmdir()
    world.apply(K1)
    assert "drv.ko" not in (world.paths.modulesd(K1) / "modules.dep").read_text()
    assert world.readiness(K1) is Readiness.READY


def test_a_depmod_that_fails_for_one_linker_stops_no_removal(world: World) -> None:
    linked(world)
    in_the_way = world.paths.modulesd(K3) / "modules.alias"
    in_the_way.unlink()
    in_the_way.mkdir()
    with closing(Engine(world.paths, Config(), lambda: NOW)) as engine:
        engine.remove(K1)
    assert world.tree(K1) == {}
    assert world.tree(K3) == {"updates/autokmod/drv/drv.ko": ""}
    assert [world.readiness(krel) for krel in (K2, K3)] == [Readiness.READY, Readiness.NOT_READY]


def test_an_index_that_cannot_be_read_is_a_state(world: World) -> None:
    world.build(A, K1, "drv")
    world.use(K1, A)
    (world.paths.modulesd(K1) / "modules.dep").write_text("no index\n")
    assert world.apply(K1, decision(K1, DecisionKind.KEEP, A, stored=True)).placements[0].verified


@pytest.fixture
def immutable(world: World) -> Iterator[Path]:
    """K1's directory of the package: not even root may change anything in it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount read-only")
    private_mounts()
    world.build(A, K1, "drv")
    world.build(B, K1, "drv")
    world.use(K1, A)
    directory = world.paths.own_dir(K1, "drv")
    mount("--bind", "-o", "ro", str(directory), str(directory))
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def test_on_a_read_only_disk_each_package_says_so(world: World, immutable: Path) -> None:
    record = world.use(K1, B)
    assert (record.placements[0].failed, record.placements[0].reasons[0].kind) == (True, "placement-failed")
    assert [f.path for f in record.placements[0].files] == ["updates/autokmod/drv/drv.ko"]
    assert job_result(record).transient
    record = world.apply(K1)
    assert "Read-only" in record.placements[0].reasons[0].text
    assert world.readiness(K1) is not Readiness.READY


# ---- the initrd ----


def put_image(world: World, krel: str, module: bytes) -> None:
    """With drv where it is placed; there is no generator here that could make another."""
    top = f"usr/lib/modules/{krel}"
    link = "weak-updates/autokmod/drv/drv.ko"
    files = {f"{top}/{link}": module, f"{top}/modules.dep": f"{link}:\n".encode()}
    (world.paths.boot / f"initrd.img-{krel}").write_bytes(archive(files))


def test_an_initrd_with_another_module_is_not_right_however_new(world: World) -> None:
    world.build(A, K1, "drv")
    world.use(K1, A)
    (owner,) = world.paths.own_dir(K1, "drv").iterdir()
    put_image(world, K2, b"another")
    record = world.link(K2, K1, A)
    assert not record.initrd_ok
    assert record.initrd is not None
    assert "it carries another drv than stands on disk" in record.initrd.text
    assert world.readiness(K2) is Readiness.NOT_READY
    put_image(world, K2, owner.read_bytes())
    record = world.link(K2, K1, A)
    assert (record.initrd_ok, record.initrd_modules) == (True, ("drv",))
    assert world.readiness(K2) is Readiness.READY


def test_an_initrd_that_somebody_else_changed_is_looked_at_again(world: World) -> None:
    world.build(A, K1, "drv")
    world.use(K1, A)
    (owner,) = world.paths.own_dir(K1, "drv").iterdir()
    put_image(world, K2, owner.read_bytes())
    assert world.link(K2, K1, A).initrd_ok
    put_image(world, K2, b"another")
    assert world.readiness(K2) is Readiness.NOT_READY
    assert not world.link(K2, K1, A).initrd_ok


def test_an_initrd_that_carried_a_module_may_not_vanish(world: World) -> None:
    world.build(A, K1, "drv")
    world.use(K1, A)
    (owner,) = world.paths.own_dir(K1, "drv").iterdir()
    put_image(world, K2, owner.read_bytes())
    assert world.link(K2, K1, A).initrd_ok
    (world.paths.boot / f"initrd.img-{K2}").unlink()
    for _ in range(2):
        record = world.link(K2, K1, A)
        assert record.initrd is not None
        assert (record.initrd_ok, record.initrd.kind) == (False, "initrd-gone")
        assert "drv" in record.initrd.text
    assert world.readiness(K2) is Readiness.NOT_READY


def test_what_another_kernels_image_carries_belongs_into_this_one(world: World) -> None:
    """This one's may have been made before the module was there: the headers came late."""
    world.build(A, K1, "drv")
    world.use(K1, A)
    (owner,) = world.paths.own_dir(K1, "drv").iterdir()
    put_image(world, K2, owner.read_bytes())
    assert world.link(K2, K1, A).initrd_ok
    (world.paths.boot / f"initrd.img-{K3}").write_bytes(archive({"init": b""}))
    record = world.link(K3, K1, A)
    assert record.initrd is not None
    assert (record.initrd_ok, record.initrd.kind) == (False, "initrd-failed")
    assert "it lacks drv" in record.initrd.text


def test_an_image_that_carries_nothing_of_ours_is_not_concerned(world: World) -> None:
    world.build(A, K1, "drv")
    (world.paths.boot / f"initrd.img-{K1}").write_bytes(archive({"init": b""}))
    record = world.use(K1, A)
    assert record.initrd is not None
    assert (record.initrd_ok, record.initrd.kind, record.initrd_modules) == (True, "initrd-not-concerned", ())


def test_damage_in_the_owner_is_not_linked_to(world: World) -> None:
    """As stat sees it nothing happened: same size, same time."""
    world.build(A, K1, "drv")
    file = world.paths.modulesd(K1) / world.use(K1, A).placements[0].files[0].path
    found, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    placement = world.link(K2, K1, A).placements[0]
    assert (placement.failed, placement.reasons[0].kind) == (True, "placement-failed")
    assert world.readiness(K2) is not Readiness.READY
