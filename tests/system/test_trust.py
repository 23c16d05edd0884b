"""Signatures of real kernels' own modules, tried with the keys in those kernels' images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.decide.compat import check_set
from autokmod.errors import FormatError
from autokmod.model import Signature, Verdict
from autokmod.observe import lz4legacy
from autokmod.observe.blob import read_blob
from autokmod.observe.ko import read_module
from autokmod.observe.trust import OwnKey
from tests.corpus import Corpus
from tests.vm.matrix import newest_series
from tests.vm.target import Target, find_target

pytestmark = [pytest.mark.kbuild]


@pytest.fixture(scope="module", params=["lz4-and-rsa", "another-series"])
def target(corpus: Corpus, request: pytest.FixtureRequest) -> Target:
    small, _, _ = corpus.archive.flavours()
    is_default = request.param == "lz4-and-rsa"
    return find_target(corpus, corpus.trio.first if is_default else newest_series(corpus, small))


def own_module(target: Target) -> Path:
    return target.modulesd / target.files["dummy"]


def test_a_kernels_own_module(target: Target) -> None:
    module = target.own_key.judge(read_module(own_module(target)))
    assert module.signature is Signature.VERIFIED
    (result,) = check_set([module], target.abi, {}, sig_enforced=True)
    assert result.verdict is Verdict.COMPATIBLE


def test_one_that_was_changed_since(target: Target, tmp_path: Path) -> None:
    data = read_blob(own_module(target))
    (tmp_path / "dummy.ko").write_bytes(data.replace(b"intree=Y", b"intree=y", 1))
    module = target.own_key.judge(read_module(tmp_path / "dummy.ko"))
    assert module.signature is Signature.DAMAGED
    (result,) = check_set([module], target.abi, {})
    assert (result.verdict, [r.kind for r in result.reasons]) == (Verdict.INCOMPATIBLE, ["signature-damaged"])


def test_by_another_kernels_key(target: Target, corpus: Corpus, tmp_path: Path) -> None:
    """Unknown to this one: as good as unsigned."""
    other = find_target(corpus, corpus.trio.other)
    module = read_module(own_module(other))
    assert target.own_key.judge(module).signature is Signature.PRESENT


def test_without_the_image_nothing_is_known(target: Target) -> None:
    module = read_module(own_module(target))
    assert OwnKey(None, target.abi.reference).judge(module).signature is Signature.PRESENT
    assert OwnKey(str(own_module(target)), target.abi.reference).judge(module).signature is Signature.PRESENT


def test_unsigned_is_not_looked_into(target: Target) -> None:
    module = replace(read_module(own_module(target)), signature=Signature.NONE, path="/nowhere")
    assert target.own_key.judge(module) is module


def test_damaged_images(target: Target, tmp_path: Path) -> None:
    """An error, or a kernel in which no certificate is found."""
    image = target.image.read_bytes()
    for size in (0, 100, 0x210, 0x250, 20_000, len(image) // 2):
        (tmp_path / "image").write_bytes(image[:size])
        own_key = OwnKey(str(tmp_path / "image"), target.abi.reference)
        assert own_key.judge(read_module(own_module(target))).signature is Signature.PRESENT


def test_lz4() -> None:
    block = b"\x50hello"  # five literals
    whole = lz4legacy.MAGIC + len(block).to_bytes(4, "little") + block
    assert lz4legacy.unpack(whole, "x", limit=100) == b"hello"
    with pytest.raises(FormatError, match="more than 4"):
        lz4legacy.unpack(whole, "x", limit=4)
    for end in range(5, len(whole)):
        with pytest.raises(FormatError, match="truncated"):
            lz4legacy.unpack(whole[:end], "x", limit=100)
    with pytest.raises(FormatError, match="damaged lz4"):
        lz4legacy.unpack(whole[:8] + b"\xff" * len(block), "x", limit=100)
