"""After a boot: what is loaded, compared with what stands on disk, in words, and what follows from it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from autokmod.act.place import placed_file
from autokmod.act.records import write_record
from autokmod.config import Config, PackageConfig
from autokmod.ctl.render import machine_lines
from autokmod.ctl.terminal import Style
from autokmod.decide.boot import Promise, boot_sentence, boot_word, decide_booted
from autokmod.decide.readiness import decide_readiness
from autokmod.events import Event
from autokmod.jobs.booted import check_boot, compare_boot
from autokmod.model import (
    BootCheck,
    BootedModule,
    DecisionKind,
    KernelRecord,
    LoadState,
    ModuleId,
    PlacedFile,
    Placement,
)
from autokmod.observe.boot import read_boot, read_id, read_loaded
from autokmod.observe.initrd import PREVIOUS
from autokmod.observe.kernels import read_kernel
from autokmod.observe.records import read_record
from autokmod.observe.sight import Sight
from autokmod.paths import Paths
from tests.elfwriter import Sec, make_ko
from tests.unit.handmade import add_kernel, place, record

KREL = "6.1.0-53-amd64"
ID = "2f1e6a51-0c3b-4a7e-9c80-1b9c0f5a7d11"
NOTE = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0" + bytes(range(20))
SRC = "0123456789ABCDEF0123456"
S, B = "s1", "b1"

# what was built, what is loaded
STATES: list[tuple[ModuleId, ModuleId | None, LoadState]] = [
    (ModuleId(S, B), None, LoadState.NOT_LOADED),
    (ModuleId(S, B), ModuleId(S, B), LoadState.LOADED),
    (ModuleId(S, B), ModuleId(S, "b2"), LoadState.OTHER),  # the same source, built again
    (ModuleId(S, B), ModuleId("s2", B), LoadState.OTHER),
    (ModuleId(S, None), ModuleId(S, B), LoadState.LOADED),
    (ModuleId(S, B), ModuleId(S, None), LoadState.LOADED),  # as it looks to others than root
    (ModuleId(S, None), ModuleId("s2", B), LoadState.OTHER),
    (ModuleId(None, B), ModuleId(None, B), LoadState.LOADED),
    (ModuleId(None, B), ModuleId(None, "b2"), LoadState.OTHER),
    (ModuleId(S, None), ModuleId(None, B), LoadState.UNTOLD),
    (ModuleId(None, None), ModuleId(S, B), LoadState.UNTOLD),
    (ModuleId(None, None), ModuleId(None, None), LoadState.UNTOLD),
]


@pytest.mark.parametrize(("built", "loaded", "state"), STATES)
def test_state(built: ModuleId, loaded: ModuleId | None, state: LoadState) -> None:
    (found,) = decide_booted([Promise("m", "p", built, True)], {} if loaded is None else {"m": loaded})
    assert found == BootedModule("m", "p", state, True)


GOOD: list[tuple[tuple[tuple[LoadState, bool], ...], bool]] = [
    ((), True),
    (((LoadState.LOADED, True),), True),
    (((LoadState.NOT_LOADED, False),), True),  # its hardware may not be there
    (((LoadState.NOT_LOADED, True),), False),
    (((LoadState.UNTOLD, True),), True),
    (((LoadState.OTHER, False),), False),
    (((LoadState.LOADED, True), (LoadState.OTHER, True)), False),
]


@pytest.mark.parametrize(("states", "good"), GOOD)
def test_good(states: tuple[tuple[LoadState, bool], ...], good: bool) -> None:
    modules = tuple(BootedModule("m", "p", state, required) for state, required in states)
    assert BootCheck(ID, 1.0, modules).is_good is good


def check(*states: LoadState, boot_id: str = ID) -> BootCheck:
    return BootCheck(boot_id, 1.0, tuple(BootedModule(f"m{i}", "p", s, False) for i, s in enumerate(states)))


def test_sentence() -> None:
    assert boot_sentence(check(*[LoadState.LOADED] * 3)) == "booted: 3 of 3 loaded as promised"
    assert boot_sentence(check(*LoadState)) == (
        "booted: 1 of 4 loaded as promised; m1 is another than stands on disk; "
        "m2 is loaded, and does not say what it is; m3 is not loaded"
    )


# ---- on a machine


def boot(paths: Paths, *loaded: str, boot_id: str = ID, at: float = 0.0, state: str = "Live", krel: str = KREL) -> None:
    for file, text in {
        "proc/sys/kernel/random/boot_id": f"{boot_id}\n",
        "proc/sys/kernel/osrelease": f"{krel}\n",
        "proc/stat": f"cpu  1 2 3\nbtime {int(at or time.time() + 1000)}\nprocesses 1\n",
        "proc/modules": "".join(f"{name} 16384 0 - {state} 0x0000000000000000 (OE)\n" for name in loaded),
    }.items():
        path = paths.at(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in loaded:
        notes = paths.at(f"sys/module/{name}/notes")
        notes.mkdir(parents=True, exist_ok=True)
        (notes.parent / "srcversion").write_text(f"{SRC}\n")
        (notes / ".note.gnu.build-id").write_bytes(NOTE)


def place_module(paths: Paths, krel: str, name: str) -> Placement:
    """One that says what it is."""
    placement = place(paths, krel, name)
    modinfo = (("license", "GPL"), ("srcversion", SRC))
    ko = make_ko(name=name, modinfo=modinfo, sections=[Sec(".note.gnu.build-id", NOTE)])
    (paths.modulesd(krel) / placement.files[0].path).write_bytes(ko)
    return placement


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    add_modules(paths)
    return paths


def add_modules(paths: Paths) -> None:
    add_kernel(paths, KREL)
    record(paths, KREL, *(place_module(paths, KREL, name) for name in ("one", "two")))


def image(paths: Paths, krel: str = KREL) -> Path:
    """And what was kept of the one before, whose name is the result."""
    file = paths.boot / f"initrd.img-{krel}"
    file.write_bytes(b"image")
    previous = file.with_name(file.name + PREVIOUS)
    previous.write_bytes(b"former")
    return previous


def checked(paths: Paths, *required: str) -> KernelRecord:
    config = Config(packages=tuple((name, PackageConfig(required=True)) for name in required))
    found = check_boot(paths, config, 5.0, here=True)
    assert found is not None
    assert found == read_record(paths, KREL)
    return found


def told(paths: Paths, *required: str) -> list[tuple[str, Event | None, str]]:
    """How loud, of which kind, and of which kernel."""
    with structlog.testing.capture_logs() as entries:
        checked(paths, *required)
    return [(e["log_level"], e.get("kind"), e.get("krel", "")) for e in entries]


def states(found: KernelRecord) -> dict[str, LoadState]:
    assert found.booted is not None
    return {m.module: m.state for m in found.booted.modules}


def test_what_the_machine_says(paths: Paths) -> None:
    boot(paths, "one", at=77.0)
    assert (found := read_boot(paths)) is not None
    assert (found.id, found.krel, found.at) == (ID, KREL, 77.0)
    assert read_loaded(paths, ["one", "two"]) == {"one": ModuleId(SRC, NOTE.hex())}
    assert read_id(paths.own_dir(KREL, "one") / "one.ko") == ModuleId(SRC, NOTE.hex())
    assert read_boot(Paths(paths.root / "nowhere")) is None


def test_a_module_that_is_only_coming_or_going_is_not_loaded(paths: Paths) -> None:
    boot(paths, "one", state="Loading")
    assert read_loaded(paths, ["one"]) == {}


def test_all_is_as_promised(paths: Paths) -> None:
    boot(paths, "one", "two")
    previous = image(paths)
    found = checked(paths, "one")
    assert states(found) == {"one": LoadState.LOADED, "two": LoadState.LOADED}
    assert found.booted is not None
    assert (found.booted.boot_id, found.booted.checked_at) == (ID, 5.0)
    assert not previous.exists()


def test_what_is_required_comes_later_and_the_former_image_stays_until_then(paths: Paths) -> None:
    boot(paths, "two")
    previous = image(paths)
    assert states(checked(paths, "one"))["one"] is LoadState.NOT_LOADED
    assert previous.exists()
    boot(paths, "one", "two")
    assert states(checked(paths, "one"))["one"] is LoadState.LOADED
    assert not previous.exists()


def test_the_journal_is_told_how_it_came_up(paths: Paths) -> None:
    boot(paths, "two")
    assert told(paths, "one") == [("warning", Event.BOOT_DIFFERS, KREL)]
    boot(paths, "one", "two")
    assert told(paths, "one") == [("info", Event.BOOT_AS_PROMISED, KREL)]
    assert told(paths, "one") == []


def standing(paths: Paths, name: str, **changes: Any) -> None:
    """One of the placements is recorded otherwise."""
    found = read_record(paths, KREL)
    assert found is not None
    placements = tuple(replace(p, **changes) if p.package == name else p for p in found.placements)
    write_record(paths, replace(found, placements=placements))


# how a package stands that is required → whether the image that was kept may go
HOW_IT_STANDS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"failed": True}, False),
    ({"verified": False}, False),
    ({"standing": True}, False),
    ({"files": (), "verified": False, "kind": DecisionKind.WAIT}, False),
    ({"files": (), "verified": False, "kind": DecisionKind.BLOCKED}, False),
    ({"files": (), "verified": False, "kind": DecisionKind.SKIP}, False),
    ({"files": ()}, False),
]


@pytest.mark.parametrize(("how", "may_go"), HOW_IT_STANDS)
def test_the_former_image_stays_while_a_required_package_is_not_in_place(
    paths: Paths, how: dict[str, Any], may_go: bool
) -> None:
    boot(paths, "one", "two")
    standing(paths, "one", **how)
    previous = image(paths)
    found = checked(paths, "one").booted
    assert found is not None
    assert (found.is_good, previous.exists()) == (may_go, not may_go)
    assert found.lacking == (() if may_go else ("one",))
    assert ("one is required, and not in place" in boot_sentence(found)) is not may_go
    standing(paths, "one", files=(place_of(paths, "one"),), verified=True, failed=False, standing=False)
    assert checked(paths, "one").booted is not None
    assert not previous.exists(), "what was mended is seen in the same boot"


def place_of(paths: Paths, name: str) -> PlacedFile:
    return placed_file(paths, KREL, name, paths.own_dir(KREL, name) / f"{name}.ko")


@pytest.mark.parametrize("name", ["three", "gone", "unreadable"])
def test_what_is_required_and_nowhere_or_cannot_be_read_is_lacking(paths: Paths, name: str) -> None:
    """Of a package without a placement, and of files of which nothing can be told."""
    boot(paths, "one", "two")
    file = paths.own_dir(KREL, "one") / "one.ko"
    if name == "gone":
        file.unlink()
    elif name == "unreadable":
        file.write_bytes(b"no module")
    required = "three" if name == "three" else "one"
    previous = image(paths)
    found = checked(paths, required).booted
    assert found is not None
    assert (found.is_good, found.lacking) == (False, (required,))
    assert previous.exists()
    assert told(paths, required) == [], "and is said once"


@pytest.mark.parametrize(
    "word", [PackageConfig(required=True, enabled=False), PackageConfig(required=True, exclude_kernels=("6.1.*",))]
)
def test_what_the_administrator_does_not_want_here_is_not_lacking(paths: Paths, word: PackageConfig) -> None:
    boot(paths, "one", "two")
    previous = image(paths)
    found = check_boot(paths, Config(packages=(("three", word),)), 5.0, here=True)
    assert found is not None
    assert found.booted is not None
    assert (found.booted.is_good, previous.exists()) == (True, False)


def test_another_owners_modules_are_what_is_promised_where_they_serve(paths: Paths) -> None:
    boot(paths, "two")
    standing(paths, "one", files=(), beside=(place_of(paths, "one"),), kind=DecisionKind.SKIP)
    previous = image(paths)
    assert states(checked(paths, "one"))["one"] is LoadState.NOT_LOADED
    assert previous.exists()
    boot(paths, "one", "two")
    assert states(checked(paths, "one"))["one"] is LoadState.LOADED
    assert not previous.exists()


def test_status_tells_of_what_is_lacking_also_where_nothing_else_was_promised(paths: Paths) -> None:
    boot(paths)
    write_record(paths, KernelRecord(KREL, 1.0, ()))
    sight = Sight(read_kernel(paths, KREL), checked(paths, "one"), running=True, boot_id=ID)
    lines = list(machine_lines([decide_readiness(sight, Config(), ())], Style(), full=False))
    assert "    booted: one is required, and not in place" in lines


def test_what_was_placed_in_this_boot_was_not_promised_for_it(paths: Paths) -> None:
    """Installed a moment ago, and not loaded yet: unless it is required, that says nothing of the boot."""
    boot(paths, "one", at=time.time() - 1000)
    assert states(checked(paths)) == {"one": LoadState.LOADED}
    boot(paths, at=time.time() - 1000, boot_id="another")
    assert states(checked(paths, "two")) == {"two": LoadState.NOT_LOADED}


def test_an_image_that_was_made_since_has_not_booted(paths: Paths) -> None:
    boot(paths, "one", "two", at=time.time() - 1000)
    previous = image(paths)
    assert checked(paths, "one").booted is not None
    assert previous.exists()


def test_another_is_loaded(paths: Paths) -> None:
    boot(paths, "one", "two")
    paths.at("sys/module/one/notes/.note.gnu.build-id").write_bytes(NOTE[:-1] + b"x")
    previous = image(paths)
    assert states(checked(paths))["one"] is LoadState.OTHER
    assert previous.exists()


def test_once_a_boot_and_again_with_the_next(paths: Paths) -> None:
    boot(paths, "one", "two")
    first = checked(paths)
    boot(paths)  # taken out by hand: says nothing of the boot
    assert checked(paths) == first
    boot(paths, boot_id="another")
    assert set(states(checked(paths)).values()) == {LoadState.NOT_LOADED}


def test_what_comes_late_counts_and_what_was_there_once_stays_counted(paths: Paths) -> None:
    boot(paths, "one")
    assert states(checked(paths)) == {"one": LoadState.LOADED, "two": LoadState.NOT_LOADED}
    boot(paths, "two")
    assert states(checked(paths)) == {"one": LoadState.LOADED, "two": LoadState.LOADED}


def test_the_same_again_is_not_written_again(paths: Paths) -> None:
    boot(paths, "two")
    checked(paths, "one")
    before = os.stat(paths.record(KREL))
    checked(paths, "one")
    assert os.stat(paths.record(KREL)) == before


def test_nothing_is_said_of_what_is_not_good(paths: Paths) -> None:
    boot(paths, "one", "two")
    found = read_record(paths, KREL)
    assert found is not None
    one, two = found.placements
    write_record(paths, replace(found, placements=(replace(one, verified=False), two)))
    assert states(checked(paths)) == {"two": LoadState.LOADED}


def test_where_another_system_runs(paths: Paths) -> None:
    boot(paths, "one")
    assert check_boot(paths, Config(), 5.0) is None
    paths.record(KREL).unlink()
    assert check_boot(paths, Config(), 5.0, here=True) is None


def test_a_damaged_record_is_left_to_its_job(paths: Paths) -> None:
    boot(paths, "one")
    paths.record(KREL).write_text("{")
    assert check_boot(paths, Config(), 5.0, here=True) is None
    assert paths.record(KREL).read_text() == "{"


def test_status_tells_of_this_boot_alone(paths: Paths) -> None:
    boot(paths, "one")
    sight = Sight(read_kernel(paths, KREL), checked(paths), running=True, boot_id=ID)
    status = decide_readiness(sight, Config(), ())
    assert status.booted == sight.record.booted if sight.record else False
    lines = list(machine_lines([status], Style(), full=False))
    assert "    booted: 1 of 2 loaded as promised; two is not loaded" in lines
    assert decide_readiness(replace(sight, boot_id="another"), Config(), ()).booted is None
    assert decide_readiness(replace(sight, boot_id=None), Config(), ()).booted is None


def test_a_word_for_programs() -> None:
    assert boot_word(None) == "unknown"
    assert boot_word(check()) == "unknown"
    assert boot_word(check(LoadState.LOADED, LoadState.NOT_LOADED)) == "as-promised"
    assert boot_word(check(LoadState.LOADED, LoadState.OTHER)) == "differs"
    assert boot_word(BootCheck(ID, 1.0, (), lacking=("one",))) == "differs"


# ---- what may still come, and what is in the way


def is_open(paths: Paths, *required: str) -> bool:
    config = Config(packages=tuple((name, PackageConfig(required=True)) for name in required))
    return compare_boot(paths, config, 5.0, here=True)


def test_nothing_is_waited_for_where_nothing_is_missing(paths: Paths) -> None:
    assert not is_open(paths), "no boot is known of"
    boot(paths, "one")
    assert is_open(paths)
    assert is_open(paths)
    boot(paths, "two")
    assert not is_open(paths)
    assert not is_open(paths)
    boot(paths, boot_id="another")
    assert is_open(paths)
    write_record(paths, KernelRecord(KREL, 1.0, ()))
    assert not is_open(paths)
    assert is_open(paths, "three")
    write_record(paths, KernelRecord(KREL, 1.0, (), going=True))
    assert not is_open(paths, "three")
    paths.record(KREL).unlink()
    assert not is_open(paths, "three")


def test_a_former_image_that_cannot_be_removed_is_tried_again(paths: Paths) -> None:
    boot(paths, "one", "two")
    previous = image(paths)
    previous.unlink()
    previous.mkdir()
    with structlog.testing.capture_logs() as entries:
        assert is_open(paths, "one")
        assert is_open(paths, "one")
    assert [e["kind"] for e in entries] == [Event.BOOT_CHECK_FAILED, Event.BOOT_AS_PROMISED], "each is said once"
    assert str(previous) in entries[0]["event"]
    previous.rmdir()
    previous.write_bytes(b"former")
    assert not is_open(paths, "one")
    assert not previous.exists()
    previous.write_bytes(b"put there since")
    assert not is_open(paths, "one")
    assert previous.exists()


def test_it_is_not_tried_again_where_something_else_is_late(paths: Paths) -> None:
    boot(paths, "one")
    previous = image(paths)
    assert is_open(paths, "one")
    assert not previous.exists()
    previous.write_bytes(b"put there since")
    assert is_open(paths, "one")
    boot(paths, "two")
    assert not is_open(paths, "one")
    assert previous.exists()


def test_what_fails_is_told_and_ends_nothing(paths: Paths) -> None:
    boot(paths, "one", "two")
    paths.at("proc/modules").unlink()
    with structlog.testing.capture_logs() as entries:
        assert is_open(paths)
    (entry,) = entries
    assert (entry["log_level"], entry["kind"]) == ("warning", Event.BOOT_CHECK_FAILED)
    assert str(paths.at("proc/modules")) in entry["event"]
    boot(paths, "one", "two")
    assert not is_open(paths)
