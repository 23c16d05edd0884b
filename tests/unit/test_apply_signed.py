"""Signatures carried out and judged, on kernels of a few bytes: what is signed, recorded, and said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autokmod.act.newkey import create_key
from autokmod.config import Config, PackageConfig
from autokmod.decide.readiness import decide_readiness
from autokmod.decide.signing import Signing
from autokmod.jobs.apply import apply_decisions
from autokmod.jobs.look import Looker
from autokmod.model import DecisionKind, KernelRecord, Placement, Readiness, Reason, Signature
from autokmod.observe.keys import SigningKey
from autokmod.observe.secureboot import Firmware, SecureBoot
from autokmod.observe.signature import read_signature
from tests.unit.test_apply import K1, NOW, A, World, decision, world
from tests.unit.test_readiness import BUILT, seen

__all__ = ["world"]

MUST = Reason("sig-force", "it loads only signed modules")


def signing(key: SigningKey, enforced: Reason | None = None) -> Signing:
    return Signing(key, key.signed_by("sha256"), enforced)


def use(world: World, how: Signing) -> tuple[KernelRecord, Placement]:
    """The build A, as it is in the store, in kernel K1."""
    facts = replace(world.facts(K1), signing=how)
    wanted = decision(K1, DecisionKind.BUILD, A, stored=True)
    record = apply_decisions(world.paths, facts, [wanted], Looker(world.paths, Config()).records(), NOW)
    return record, record.placements[0]


def content(world: World) -> bytes:
    return (world.paths.own_dir(K1, "drv") / "drv.ko").read_bytes()


def test_placed_signed_and_recorded(world: World) -> None:
    built = world.build(A, K1, "drv", "drv_b")
    key = create_key(world.paths, "here")
    record, placement = use(world, signing(key, MUST))
    assert (placement.verified, placement.signed_by, record.enforced) == (True, key.signed_by("sha256"), MUST)
    assert read_signature(content(world)) == (Signature.PRESENT, built.modules[0].size)
    assert Looker(world.paths, Config()).record(K1) == record, "and so it is read again"
    record, placement = use(world, signing(key))
    assert (placement.verified, record.enforced) == (True, None)


@pytest.mark.parametrize("before", ["nothing", "unsigned"])
def test_without_its_signature_nothing_is_placed(world: World, before: str) -> None:
    """The key went after it was looked for."""
    world.build(A, K1, "drv")
    if before == "unsigned":
        use(world, Signing())
    key = create_key(world.paths, "here")
    (world.paths.keys / "mok.key").unlink()
    _, placement = use(world, signing(key))
    assert (placement.failed, placement.reasons[0].kind) == (True, "signing-failed")
    assert "mok.key: it is not there any more" in placement.reasons[0].text
    assert placement.signed_by is None
    if before == "nothing":
        assert (placement.files, world.tree(K1)) == ((), {})
    else:
        assert read_signature(content(world))[0] is Signature.NONE, "what stood there stays"
    assert list(world.paths.work.iterdir()) == []


def test_the_same_file_is_not_written_again(world: World) -> None:
    world.build(A, K1, "drv")
    how = signing(create_key(world.paths, "here"))
    _, first = use(world, how)
    inode = (world.paths.own_dir(K1, "drv") / "drv.ko").stat().st_ino
    _, second = use(world, how)
    assert second.files == first.files
    assert (world.paths.own_dir(K1, "drv") / "drv.ko").stat().st_ino == inode


# ---- readiness ----


@pytest.mark.parametrize(
    ("state", "enrolled", "required", "readiness"),
    [
        (SecureBoot.ON, True, True, Readiness.READY),
        (SecureBoot.ON, False, False, Readiness.DEGRADED),
        (SecureBoot.ON, False, True, Readiness.NOT_READY),
        (SecureBoot.UNKNOWN, False, True, Readiness.READY),
    ],
)
def test_signed_but_not_enrolled(
    world: World, state: SecureBoot, readiness: Readiness, *, enrolled: bool, required: bool
) -> None:
    by = create_key(world.paths, "here").signed_by("sha256")
    assert by is not None
    sight = seen(replace(BUILT, signed_by=by))
    assert sight.record is not None
    firmware = Firmware(state, frozenset({by.fingerprint}) if enrolled else frozenset())
    sight = replace(sight, record=replace(sight.record, enforced=MUST), firmware=firmware)
    config = Config(packages=(("pkg", PackageConfig(required=required)),))
    status = decide_readiness(sight, config, ())
    assert status.readiness is readiness
    if readiness is not Readiness.READY:
        assert status.reasons[0].text.startswith('pkg is signed with "here module signing (autokmod)", which is not')
        assert status.reasons[0].hint == "autokmodctl key enroll"
    relaxed = replace(sight, record=replace(sight.record or KernelRecord("", 0, ()), enforced=None))
    assert decide_readiness(relaxed, config, ()).readiness is Readiness.READY
