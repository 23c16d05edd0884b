"""The judge has to be trusted: what is lost, garbled or forged on the way from the virtual machine must not pass."""

from __future__ import annotations

import errno
import zlib

import pytest

from autokmod.model import CompatResult, Reason, Verdict
from autokmod.observe.ko import parse_module
from tests.elfwriter import Exp, make_ko
from tests.vm import craft
from tests.vm.depmod import NO_ENTRY, STOPPED, differences
from tests.vm.oracle import Complaint, complaints, disagreement
from tests.vm.protocol import Answer, MachineError, Outcome, Transcript

NONCE = "8fa2"


def line(number: int, text: str, *, nonce: str = NONCE) -> str:
    return f"{nonce} {number} {zlib.crc32(text.encode()):08x} {text}"


def transcript(*texts: str) -> Transcript:
    one = Transcript(NONCE)
    for number, text in enumerate(texts, 1):
        one.take(line(number, text))
    return one


# ---- the protocol


def test_an_answer() -> None:
    one = transcript(
        "boot 6.1", "case a", "kmsg before", "needed b 0 1", "kmsg no", "inserted a 22 0", "removed b 0", "end"
    )
    one.end("")
    needed = Outcome("b", 0, accepted=True, log=("before",))
    assert one.answers == {"a": Answer("a", Outcome("a", 22, accepted=False, log=("no",)), (needed,))}
    assert (one.release, one.over, one.troubles) == ("6.1", True, [])


def test_what_others_print_is_no_answer() -> None:
    one = transcript("boot 6.1", "case a")
    one.take("inserted a 0 1")
    one.take(line(3, "inserted a 0 1", nonce="0000"))
    assert one.answers == {}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (line(3, "inserted a 0 1").replace("0 1", "0 0"), "a damaged line"),
        (line(3, "inserted a 0 1")[:-1], "a damaged line"),
        (f"{NONCE} 3", "a damaged line"),
        (line(4, "inserted a 0 1"), "event 3 is missing"),
        (line(2, "inserted a 0 1"), "event 3 is missing"),
        (line(3, "broken /jobs: No such file"), "inside the machine: /jobs"),
    ],
)
def test_nothing_is_lost_or_garbled(text: str, what: str) -> None:
    one = transcript("boot 6.1", "case a")
    with pytest.raises(MachineError, match=what):
        one.take(text)


def test_the_case_in_progress_has_crashed() -> None:
    one = transcript("boot 6.1", "case a", "inserted a 0 1", "case b", "needed c 0 1")
    one.end("Kernel panic")
    assert one.answers["b"] == Answer("b", None, (Outcome("c", 0, accepted=True, log=()),), "Kernel panic")
    assert one.answers["b"].crashed
    assert not one.answers["a"].crashed


def test_troubles() -> None:
    stuck = transcript("boot 6.1", "case a", "lost", "inserted a 0 1", "removed a 16")
    stuck.end("")
    assert stuck.troubles == ["some of the kernel's log is lost in case a", "a cannot be removed (errno 16)"]
    gone = transcript("boot 6.1", "case a", "inserted a 0 1")
    gone.end("Oops")
    assert gone.troubles == ["went down between two cases: Oops"]


# ---- the comparison


def refused(*log: str, result: int = errno.EINVAL) -> Outcome:
    return Outcome("a", result, accepted=False, log=log)


def verdict(kind: Verdict, *reasons: tuple[str, str | None]) -> CompatResult:
    return CompatResult("a.ko", "a", kind, 1, tuple(Reason(k, k, symbol=s) for k, s in reasons))


TAKEN = Outcome("a", errno.ENODEV, accepted=True, log=("a: Unknown symbol in the module's own words",))
CRC = ("a: disagrees about version of symbol x", "a: Unknown symbol x (err -22)")
LAYOUT = "a: disagrees about version of symbol module_layout"
YES, NO, PERHAPS = Verdict.COMPATIBLE, Verdict.INCOMPATIBLE, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("outcome", "result", "what"),
    [
        (TAKEN, verdict(YES), None),
        (TAKEN, verdict(NO, ("crc-mismatch", "x")), "false incompatible"),
        (TAKEN, verdict(PERHAPS, ("crc-missing", "x")), None),
        (refused(*CRC), verdict(YES), "false compatible: crc x"),
        (refused(*CRC), verdict(NO, ("crc-mismatch", "x")), None),
        (refused(*CRC), verdict(NO, ("crc-mismatch", "y")), "the loader says crc x, the checker crc-mismatch y"),
        (refused(*CRC), verdict(NO, ("symbol-missing", "x")), "other reasons"),
        (refused(*CRC), verdict(NO, ("crc-mismatch", "x"), ("symbol-missing", "y")), "nothing against y"),
        # It stops at the layout, and the checker goes on.
        (refused(LAYOUT), verdict(NO, ("crc-mismatch", "module_layout"), ("crc-mismatch", "y")), None),
        (refused("a: Unknown symbol x (err -2)"), verdict(NO, ("gpl-only", "x")), None),
        (refused(result=errno.ENOEXEC), verdict(NO, ("not-a-module", None)), None),
        (refused(result=errno.ENOEXEC), verdict(NO, ("vermagic-mismatch", None)), "the loader says format"),
        (refused("a: please compile with -fno-common"), verdict(NO, ("common-symbol", "x")), None),
        (refused(result=errno.EBADMSG), verdict(NO, ("signature-damaged", None)), None),
        (refused(result=errno.EPERM), verdict(NO, ("unsigned", None)), "the loader says EPERM"),
    ],
)
def test_disagreements(outcome: Outcome, result: CompatResult, what: str | None) -> None:
    found = disagreement(outcome, result)
    assert found is None if what is None else what in (found or "")


def test_all_symbols_of_a_refused_provider_are_missing() -> None:
    result = CompatResult("a.ko", "a", NO, 1, (Reason("provider-incompatible", "", "x", exporter="b"),))
    outcome = refused("a: Unknown symbol x (err -2)", "a: Unknown symbol y (err -2)")
    assert disagreement(outcome, result, {"x": "b", "y": "b"}) is None
    assert "missing y" in (disagreement(outcome, result, {"x": "b", "y": "c"}) or "")


@pytest.mark.parametrize(
    ("loader", "depmod", "kind", "why"),
    [
        ({Complaint("crc", "x")}, {Complaint("crc", "x")}, "crc-mismatch", []),
        (
            {Complaint("crc", "module_layout")},
            {Complaint("crc", "module_layout"), Complaint("crc", "x")},
            "",
            [STOPPED],
        ),
        (set(), {Complaint("crc", "x")}, "crc-missing", [NO_ENTRY]),
        (set(), {Complaint("crc", "x")}, "crc-mismatch", ["? only depmod: crc x"]),
        ({Complaint("missing", "x")}, set(), "symbol-missing", ["? only the loader: missing x"]),
        ({Complaint("missing", "x")}, set(), "gpl-only", ["depmod knows nothing of licences"]),
        ({Complaint("vermagic")}, set(), "", ["depmod does not compare vermagic"]),
    ],
)
def test_differences_from_depmod(loader: set[Complaint], depmod: set[Complaint], kind: str, why: list[str]) -> None:
    assert list(differences(loader, depmod, verdict(NO, (kind, "x")), {})) == why


def test_words_of_the_loader() -> None:
    namespaced = refused("module a uses symbol (x) from namespace N, but does not import it.")
    assert complaints(namespaced) == {Complaint("namespace", "x")}
    tainted = refused(
        "a: module using GPL-only symbols uses symbols x from proprietary module b.", "a: Unknown symbol x (err -2)"
    )
    assert complaints(tainted) == {Complaint("proprietary", "x")}


# ---- modules changed afterwards

KO = make_ko(versions={"module_layout": 1, "x": 2}, imports=["x"], exports=[Exp("offered")])


def test_changed_modules_are_what_they_claim() -> None:
    assert parse_module("a", craft.with_versions(KO, x=3, module_layout=None)).versions == {"x": 3}
    assert parse_module("a", craft.with_modinfo(KO, license="BSD", import_ns="N")).import_ns == ("N",)
    assert parse_module("a", craft.without(KO, "__versions")).versions is None
    assert parse_module("a", craft.with_weak(KO, "x")).imports[0].weak
    assert [e.name for e in parse_module("a", craft.renamed_symbol(KO, "offered", "stapled")).exports] == ["stapled"]
    size = craft.section(KO, ".gnu.linkonce.this_module").size
    assert (
        parse_module("a", craft.with_header(KO, ".gnu.linkonce.this_module", sh_size=size - 8)).struct_size == size - 8
    )


def test_truncations_are_all_there() -> None:
    ends = {len(data) for _, data in craft.truncations(KO)}
    assert {s.offset for s in craft.sections(KO)[1:]} | {s.end for s in craft.sections(KO)[1:]} <= ends | {len(KO)}
