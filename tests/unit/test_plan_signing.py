"""The planner where modules are signed: what the store has never is, and what stands may be signed otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autokmod.decide.facts import Facts
from autokmod.decide.plan import decide_kernel
from autokmod.decide.signing import Signing
from autokmod.model import Decision, DecisionKind, Reason, Signature, SignedBy
from tests.unit.test_plan import FACTS, K2, build, module, record

BY = SignedBy("mine", "f1", "aa", "sha256", "dkms")
MUST = Reason("sig-force", "it loads only signed modules")
SIGNS, INSISTS = Signing(signed_by=BY), Signing(signed_by=BY, enforced=MUST)
BLOCKS = Signing(enforced=MUST, problem=Reason("no-signing-key", "it loads only signed modules; there is no key"))
STORED = replace(FACTS, builds=(build("key2", K2),), contents={"key2": (module(krel=K2),)})


def decide(facts: Facts, signing: Signing | None) -> Decision:
    problem = signing.problem if signing is not None else None
    return decide_kernel(replace(facts, signing=signing, signing_problem=problem))[0]


def standing(signed_by: SignedBy | None) -> Facts:
    there = record("key2")
    placements = tuple(replace(p, signed_by=signed_by) for p in there.placements)
    return replace(STORED, record=replace(there, placements=placements), intact=frozenset({"drv"}))


@pytest.mark.parametrize(
    ("signing", "kind"),
    [
        (None, DecisionKind.BUILD),
        (SIGNS, DecisionKind.BUILD),
        (INSISTS, DecisionKind.BUILD),  # unsigned in the store is no reason to refuse it
        (BLOCKS, DecisionKind.BLOCKED),
    ],
)
def test_from_the_store(signing: Signing | None, kind: DecisionKind) -> None:
    found = decide(STORED, signing)
    assert (found.kind, found.stored) == (kind, kind is DecisionKind.BUILD)


@pytest.mark.parametrize("signing", [SIGNS, INSISTS])
@pytest.mark.parametrize(
    ("stands", "kind"),
    [
        (BY, DecisionKind.KEEP),
        (None, DecisionKind.BUILD),
        (replace(BY, fingerprint="f2"), DecisionKind.BUILD),
    ],
)
def test_what_stands_is_kept_or_signed_anew(signing: Signing, stands: SignedBy | None, kind: DecisionKind) -> None:
    found = decide(standing(stands), signing)
    assert (found.kind, found.key) == (kind, "key2")
    assert found.stored, "nothing is compiled for a signature"


def test_what_stands_stays_where_there_is_no_key_any_more() -> None:
    assert decide(standing(BY), Signing()).kind is DecisionKind.KEEP


@pytest.mark.parametrize(
    ("signing", "stands", "kind"),
    [
        (SIGNS, None, DecisionKind.KEEP),  # to be signed when it can be looked at again
        (INSISTS, BY, DecisionKind.KEEP),
        (INSISTS, None, DecisionKind.WAIT),
        (BLOCKS, None, DecisionKind.WAIT),
    ],
)
def test_without_headers(signing: Signing, stands: SignedBy | None, kind: DecisionKind) -> None:
    facts = standing(stands)
    facts = replace(facts, abi=replace(facts.abi, exports={}), recipes={})
    assert decide(facts, signing).kind is kind


@pytest.mark.parametrize(
    ("signature", "kind"),
    [
        (Signature.VERIFIED, DecisionKind.BUILD),  # by the kernel's own key
        (Signature.PRESENT, DecisionKind.BLOCKED),  # by nobody knows whom
        (Signature.NONE, DecisionKind.BLOCKED),
    ],
)
def test_another_owners_module_that_is_needed(signature: Signature, kind: DecisionKind) -> None:
    """It gets no signature of ours: what needs it is no better than it is."""
    theirs = replace(module("base", exports={"base_x": 9}, krel=K2), signature=signature)
    needs = module(imports={"base_x": 9}, krel=K2)
    facts = replace(STORED, contents={"key2": (needs,)}, foreign=(theirs,))
    assert decide(facts, INSISTS).kind is kind
    assert decide(facts, SIGNS).kind is DecisionKind.BUILD
