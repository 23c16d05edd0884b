"""Modules signed by autokmod, put to the loaders of real kernels, which do not know its key.

The kernel tells such a signature from a damaged one (kernel/module/signing.c): ENOKEY is tolerated unless signatures
are enforced, and EBADMSG never. To be told "unavailable key" it has to have read all of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.act.newkey import create_key
from autokmod.decide.signing import find_enforcement
from autokmod.observe.enforcement import BootFacts
from autokmod.observe.secureboot import Firmware, SecureBoot
from autokmod.observe.signature import read_signature
from autokmod.paths import Paths
from tests.conftest import COMPLETE
from tests.corpus import Corpus
from tests.unit.test_sign import EC, RSA, new_pair, sign
from tests.vm import craft
from tests.vm.firmware import secure_boot_options, why_not
from tests.vm.made import ENFORCE, Made
from tests.vm.matrix import choose_kernels
from tests.vm.qemu import Case, Insertion, ask
from tests.vm.sources import built_sources
from tests.vm.target import Target, find_target
from tests.vm.trial import Trial, run_made

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.kbuild]


def signed(place: Path, data: bytes, digest: str, kind: tuple[str, ...]) -> bytes:
    place.mkdir()
    paths = Paths(place)
    new_pair(paths, kind)
    return sign(paths, data, digest)


def cases(target: Target, built: Mapping[str, bytes], place: Path) -> list[Made]:
    plain = Made("", "vmt_plain", built["vmt_plain"])
    digest = target.abi.config["CONFIG_MODULE_SIG_HASH"].strip('"')
    kinds = {"rsa": RSA, "ec": EC} if "CONFIG_CRYPTO_ECDSA" in target.abi.config else {"rsa": RSA}
    whole = {name: signed(place / name, plain.data, digest, kind) for name, kind in kinds.items()}
    found = [replace(plain, id=name, data=data) for name, data in whole.items()]
    found += [replace(case, id=f"{case.id}-enforced", options=ENFORCE) for case in found]
    size = read_signature(whole["rsa"])[1]
    inverted = craft.with_bytes(whole["rsa"], size + 10, bytes([whole["rsa"][size + 10] ^ 0xFF]))
    return [*found, replace(plain, id="damaged", data=inverted)]


@pytest.mark.parametrize("end", [0, -1], ids=["default-series", "newest-series"])
def test_the_loader_reads_what_autokmod_signed(corpus: Corpus, tmp_path: Path, end: int) -> None:
    krel = choose_kernels(corpus).asked[end]
    target = find_target(corpus, krel)
    trials = {t.made.id: t for t in run_made(target, cases(target, built_sources(corpus, [krel])[krel], tmp_path))}
    loaded = {id_: _result(trial) for id_, trial in trials.items()}
    assert loaded["rsa"] == 0
    assert loaded.get("ec", 0) == 0
    assert loaded["damaged"] in (errno.EBADMSG, errno.EINVAL)
    enforced = [trial for id_, trial in trials.items() if id_.endswith("-enforced")]
    assert enforced
    for trial in enforced:
        assert _result(trial) in (errno.ENOKEY, errno.EKEYREJECTED), trial.answer
        assert any("unavailable key" in line for line in _log(trial)), _log(trial)


def _result(trial: Trial) -> int:
    assert trial.answer.outcome is not None, trial.answer.last_words
    return trial.answer.outcome.result


def _log(trial: Trial) -> tuple[str, ...]:
    assert trial.answer.outcome is not None
    return trial.answer.outcome.log


@pytest.mark.parametrize("end", [0, -1], ids=["default-series", "newest-series"])
def test_an_enrolled_key_under_secure_boot(corpus: Corpus, tmp_path: Path, end: int) -> None:
    """The whole way: a key as `key create` makes it, in the owner's list, and a kernel that is locked down for it."""
    if (why := why_not()) is not None:
        pytest.fail(why) if os.environ.get(COMPLETE) else pytest.skip(why)
    krel = choose_kernels(corpus).asked[end]
    target, module = find_target(corpus, krel), built_sources(corpus, [krel])[krel]["vmt_plain"]
    keys = {name: create_key(Paths(tmp_path / name), "here") for name in ("mine", "other")}
    mine = keys["mine"].certificate
    assert mine is not None
    datas = {"unsigned": module}
    for name in keys:
        datas[name] = sign(Paths(tmp_path / name), module, target.abi.config["CONFIG_MODULE_SIG_HASH"].strip('"'))
    firmware = secure_boot_options(tmp_path, target.image, [mine.der])
    made = [Case(name, Insertion("vmt_plain", data)) for name, data in datas.items()]
    answers = ask(replace(target.machine(), firmware=firmware), made).answers
    outcomes = {name: answer.outcome for name, answer in answers.items()}
    accepted = {name: outcome.accepted for name, outcome in outcomes.items() if outcome is not None}
    assert accepted == {"unsigned": False, "other": False, "mine": True}
    assert [o.result for o in (outcomes["unsigned"], outcomes["other"]) if o] == [errno.EKEYREJECTED] * 2
    assert find_enforcement(krel, target.abi.config, BootFacts(), Firmware(SecureBoot.ON)) is not None
