"""Other owners' builds as sources of links: whose they are, what is decided from them, what becomes of the links."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.act.archive import archive
from autokmod.config import Config, InitrdConfig, LinkConfig, PackageConfig
from autokmod.ctl.main import main
from autokmod.decide.facts import Facts
from autokmod.decide.plan import decide_kernel
from autokmod.decide.readiness import decide_readiness
from autokmod.decide.signing import Signing
from autokmod.jobs.engine import Engine
from autokmod.jobs.initrd.step import InitrdStep
from autokmod.jobs.look import Looker
from autokmod.jobs.publishing import unattended
from autokmod.model import (
    Decision,
    DecisionKind,
    ForeignBuild,
    ForeignOrigin,
    KernelRecord,
    ModuleFacts,
    PlacedFile,
    Placement,
    Reason,
    RecipePatch,
    Signature,
)
from autokmod.observe.external import find_external
from autokmod.observe.external_owner import DKMS, VENDOR, Installed, find_installed, has_external
from autokmod.observe.machine import look_at_kernels
from autokmod.observe.records import read_record
from autokmod.paths import Paths
from autokmod.run import Cancel
from tests.elfwriter import make_ko
from tests.unit.handmade import add_kernel, add_source
from tests.unit.test_plan import FACTS, K1, K2, PACKAGE, RECIPE, SYMBOLS, abi, build, config, module

FEATURES = {"compiler": "unknown"}

# ---- what is decided, by tables ------------------------------------------------------------------


def foreign(
    *modules: ModuleFacts,
    name: str = "drv",
    version: str = "1.0",
    has_source: bool = True,
    krel: str = K1,
    key: str = "f1",
) -> ForeignBuild:
    owner, place = ("DKMS", "updates/dkms") if has_source else ("the vendor", f"extra/{name}")
    files = tuple(PlacedFile(m.name, f"{place}/{m.name}.ko", None, "0" * 64, 1, 1) for m in modules)
    return ForeignBuild(key, name, version, krel, ForeignOrigin(owner, K1, place, has_source, FEATURES), files, modules)


def standing(*, vermagic: str | None = None, imports: Mapping[str, int] | None = None) -> ModuleFacts:
    made = module("drv", krel=K2, imports=imports or {"printk": 2})
    path = f"/lib/modules/{K2}/updates/dkms/drv.ko"
    return replace(made, path=path, vermagic=vermagic or made.vermagic)


def placed(key: str, link_from: str | None, *, kmp: bool = False) -> KernelRecord:
    origin = foreign(module(), has_source=not kmp).origin
    name = "vend" if kmp else "drv"
    files = (PlacedFile("drv", f"weak-updates/autokmod/{name}/drv.ko", "../x", "0" * 64, 1, 1),)
    kind = DecisionKind.LINK if link_from else DecisionKind.KEEP
    made = Placement(name, "1.0", kind, (), key, None, link_from, 2, files, verified=True, foreign=origin)
    return KernelRecord(K2, 1.0, (made,))


DKMS_K1 = replace(FACTS, foreign_builds=(foreign(module()),))
PATCHED = replace(RECIPE, series=(RecipePatch("mine.patch", 1, "", own=True),))
HERE = replace(foreign(module(krel=K2), krel=K2, key="f2"))
NO_SOURCE = replace(FACTS, packages=(), recipes={}, source_keys={}, keys={})
VENDOR_K1 = replace(NO_SOURCE, foreign_builds=(foreign(module(), name="vend", has_source=False),))
VENDOR_HERE = replace(foreign(module(), name="vend", has_source=False), krel=K2)
UNREADABLE = Reason("foreign-unreadable", "EIO")
NEVER = Config(link=LinkConfig(enabled=False))
CHANGED = abi({**SYMBOLS, "printk": 9})


def decide(facts: Facts) -> Decision:
    (decision,) = decide_kernel(facts)
    return decision


@pytest.mark.parametrize(
    ("facts", "kind", "link_from", "reason", "says"),
    [
        pytest.param(DKMS_K1, "link", K1, "compatible-build", "DKMS's build for", id="DKMS's serve another kernel"),
        pytest.param(
            replace(DKMS_K1, abi=CHANGED), "build", None, "incompatible-build", "DKMS's build for", id="other CRC"
        ),
        pytest.param(replace(DKMS_K1, config=NEVER), "build", None, "policy-disabled", "", id="no links at all"),
        pytest.param(
            replace(DKMS_K1, config=config(link="never")), "build", None, "policy-never", "", id="none of this package"
        ),
        pytest.param(
            replace(DKMS_K1, foreign_builds=(foreign(module(), version="0.9"),)),
            "build",
            None,
            "no-build",
            "",
            id="DKMS built another version",
        ),
        pytest.param(
            replace(DKMS_K1, foreign_builds=(foreign(module(), module("more")),)),
            "build",
            None,
            "no-build",
            "",
            id="not the modules that the recipe promises",
        ),
        pytest.param(
            replace(DKMS_K1, builds=(build("key2", K2),), contents={"key2": (module(krel=K2),)}),
            "build",
            None,
            "stored-build",
            "built for this kernel",
            id="an own build goes first",
        ),
        pytest.param(
            replace(DKMS_K1, record=placed("f1", K1), intact=frozenset({"drv"})),
            "keep",
            K1,
            "in-place",
            "DKMS's build for",
            id="a link that stands",
        ),
        pytest.param(
            replace(DKMS_K1, record=placed("old", K1), intact=frozenset({"drv"})),
            "link",
            K1,
            "compatible-build",
            "",
            id="what it links to was replaced",
        ),
        pytest.param(
            replace(DKMS_K1, foreign=(standing(),), foreign_builds=(foreign(module()), HERE)),
            "skip",
            None,
            "foreign-stands",
            "DKMS has it installed in updates/dkms, and it fits",
            id="DKMS was here too, and it fits",
        ),
        pytest.param(
            replace(DKMS_K1, recipes={PACKAGE.id: PATCHED}),
            "build",
            None,
            "no-build",
            "",
            id="DKMS built it without the administrator's patch",
        ),
        pytest.param(
            replace(DKMS_K1, recipes={PACKAGE.id: replace(RECIPE, undecided=("the administrator's -DX",))}),
            "build",
            None,
            "no-build",
            "",
            id="DKMS built it, and whether the administrator's flag belongs to it nobody can tell",
        ),
        pytest.param(
            replace(
                DKMS_K1,
                recipes={PACKAGE.id: replace(RECIPE, flags=("-DX=1",))},
                foreign=(standing(),),
                foreign_builds=(foreign(module()), HERE),
            ),
            "build",
            None,
            "no-build",
            "",
            id="DKMS was here too, and it lacks the administrator's flag",
        ),
        pytest.param(
            replace(DKMS_K1, recipes={PACKAGE.id: replace(RECIPE, kind="toml")}),
            "build",
            None,
            "no-build",
            "",
            id="DKMS built it by another recipe",
        ),
        pytest.param(
            replace(DKMS_K1, foreign=(standing(vermagic="5.0 SMP "),), foreign_builds=(foreign(module()), HERE)),
            "build",
            None,
            "no-build",
            "",
            id="DKMS was here, and it does not fit: ours is built beside it",
        ),
        pytest.param(
            replace(DKMS_K1, foreign=(standing(),)), "build", None, "no-build", "", id="somebody's module of that name"
        ),
        pytest.param(VENDOR_K1, "link", K1, "compatible-build", "the vendor's build for", id="a vendor's"),
        pytest.param(
            replace(VENDOR_K1, abi=CHANGED),
            "wait",
            None,
            "no-compatible-build",
            "no compatible build: the v",
            id="none fits",
        ),
        pytest.param(
            replace(VENDOR_K1, config=NEVER), "wait", None, "no-compatible-build", "by policy", id="policy bars it"
        ),
        pytest.param(
            replace(
                VENDOR_K1,
                foreign_builds=(
                    replace(
                        VENDOR_K1.foreign_builds[0], key="", modules=(), problem=Reason("foreign-unreadable", "EIO")
                    ),
                ),
            ),
            "wait",
            None,
            "foreign-unreadable",
            "EIO",
            id="unreadable",
        ),
        pytest.param(
            replace(
                VENDOR_K1,
                foreign_builds=(
                    replace(VENDOR_HERE, key="", modules=(), problem=UNREADABLE),
                    *VENDOR_K1.foreign_builds,
                ),
            ),
            "wait",
            None,
            "foreign-unreadable",
            "EIO",
            id="what is here is unreadable: nothing is linked in its way",
        ),
        pytest.param(
            replace(VENDOR_K1, abi=replace(abi(), problems=(Reason("symvers-missing", "no symvers", hint="headers"),))),
            "wait",
            None,
            "no-compatible-build",
            "nobody can tell whether its builds for other kernels fit: no symvers",
            id="nothing to compare with",
        ),
        pytest.param(
            replace(VENDOR_K1, foreign=(replace(standing(), name="inner"),)),
            "skip",
            None,
            "foreign-stands",
            "updates/dkms/drv.ko",
            id="the file's name counts, not what the module calls itself",
        ),
        pytest.param(
            replace(VENDOR_K1, foreign=(standing(),)),
            "skip",
            None,
            "foreign-stands",
            "updates/dkms/drv.ko",
            id="somebody's module of that name wins over a vendor's link",
        ),
        pytest.param(
            replace(VENDOR_K1, foreign=(standing(imports={"printk": 7}),), foreign_builds=(VENDOR_HERE,)),
            "blocked",
            None,
            "foreign-unfit",
            "does not fit",
            id="what the vendor put here would not load",
        ),
        pytest.param(
            replace(VENDOR_K1, record=placed("f1", K1, kmp=True), intact=frozenset({"vend"})),
            "keep",
            K1,
            "in-place",
            "",
            id="a link to a vendor's that stands",
        ),
        pytest.param(
            replace(
                VENDOR_K1,
                foreign_builds=(replace(VENDOR_HERE, taken_over=True),),
                record=placed("f1", None, kmp=True),
                intact=frozenset({"vend"}),
            ),
            "keep",
            None,
            "in-place",
            "in place",
            id="what was taken over of a vendor's",
        ),
        pytest.param(
            replace(NO_SOURCE, lost=((placed("f1", K1, kmp=True).placements[0], Reason("foreign-lost", "gone")),)),
            "wait",
            None,
            "foreign-lost",
            "gone",
            id="a vendor's that went with its kernel",
        ),
    ],
)
def test_decision(facts: Facts, kind: str, link_from: str | None, reason: str, says: str) -> None:
    found = decide(facts)
    assert (found.kind, found.link_from, found.reasons[0].kind) == (kind, link_from, reason)
    assert says in found.reasons[0].text


def test_a_vendor_s_package_is_all_or_nothing() -> None:
    pair = foreign(module(), module("drv2", imports={"gone": 4}), name="vend", has_source=False)
    found = decide(replace(VENDOR_K1, foreign_builds=(pair,)))
    assert (found.kind, found.reasons[0].kind) == ("wait", "no-compatible-build")
    assert found.reasons[0].hint == "install the vendor's package for this kernel"


def test_a_module_of_ours_displaces_what_stands_here() -> None:
    ours = replace(FACTS, builds=(build("key2", K2),), contents={"key2": (module(krel=K2),)})
    facts = replace(ours, foreign=(standing(),), foreign_builds=VENDOR_K1.foreign_builds)
    assert [(d.package, str(d.kind)) for d in decide_kernel(facts)] == [("drv", "build"), ("vend", "skip")]


def test_the_newest_kernel_s_is_taken() -> None:
    older = replace(foreign(module(krel="6.1.0-0-test")), krel="6.1.0-0-test", key="f0")
    older = replace(older, origin=replace(older.origin, krel="6.1.0-0-test"))
    assert decide(replace(DKMS_K1, foreign_builds=(older, foreign(module())))).link_from == K1


def test_signatures_of_others_are_not_ours_to_make() -> None:
    """An own build is signed when it is placed; what another owner left unsigned stays so, and would be refused."""
    insists = Signing(enforced=Reason("sig-force", "only signed modules"))
    own = replace(FACTS, builds=(build("key2", K2),), contents={"key2": (module(krel=K2),)}, signing=insists)
    assert (decide(own).kind, decide(own).stored) == ("build", True)
    found = decide(replace(VENDOR_K1, signing=insists))
    assert (found.kind, found.reasons[0].kind) == ("wait", "no-compatible-build")
    signed = replace(module(), signature=Signature.VERIFIED)
    trusted = replace(VENDOR_K1, foreign_builds=(foreign(signed, name="vend", has_source=False),), signing=insists)
    assert decide(trusted).kind == "link"


def test_a_package_of_that_name_with_source_is_no_vendor_s() -> None:
    found = decide(replace(FACTS, foreign_builds=(foreign(module(), name=PACKAGE.name, has_source=False),)))
    assert (found.package, found.kind, found.reasons[0].kind) == ("drv", "build", "no-build")


# ---- whose they are ------------------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "lib").symlink_to("usr/lib")
    paths = Paths(tmp_path)
    paths.usr_src.mkdir(parents=True)
    (paths.usr_src / "something").mkdir()
    for krel in (K1, K2):
        add_kernel(paths, krel)
        symvers = "0x00000001\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n0x00000002\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n"
        (paths.usr_src / f"linux-headers-{krel}/Module.symvers").write_text(symvers)
        (paths.usr_src / f"linux-headers-{krel}/.config").write_text("CONFIG_MODVERSIONS=y\n")
        put(paths, krel, "kernel/ref.ko", ko("ref", krel, ("intree", "Y")))
    return paths


def ko(name: str, krel: str, *info: tuple[str, str], printk: int = 2) -> bytes:
    return make_ko(
        name=name, krel=krel, versions={"module_layout": 1, "printk": printk}, modinfo=(("license", "GPL"), *info)
    )


def put(paths: Paths, krel: str, file: str, data: bytes = b"x") -> Path:
    path = paths.modulesd(krel) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def dkms_built(paths: Paths, name: str, version: str, krel: str, **files: bytes) -> None:
    tree = paths.at(f"var/lib/dkms/{name}/{version}/{krel}/x86_64/module")
    tree.mkdir(parents=True)
    for file, data in files.items():
        (tree / f"{file}.ko").write_bytes(data)


def installed(paths: Paths, krel: str = K1) -> tuple[Installed, ...]:
    found = find_external(paths, krel, ours=False)
    return find_installed(paths, krel, found, lambda path: path.read_bytes().hex())


def test_groups_by_place(paths: Paths) -> None:
    put(paths, K1, "extra/kmod-a/sub/a-one.ko")
    put(paths, K1, "extra/kmod-a/a_two.ko.xz")
    put(paths, K1, "extra/lonely.ko")
    put(paths, K1, "extra/-odd/odd.ko")
    put(paths, K1, "updates/dkms/orphan.ko")
    put(paths, K1, "updates/autokmod/mine/mine.ko")
    assert [(i.owner, i.package, i.place, sorted(i.files)) for i in installed(paths)] == [
        (VENDOR, "kmod-a", "extra/kmod-a", ["a_one", "a_two"]),
        (VENDOR, "lonely", "extra/lonely.ko", ["lonely"]),
        (VENDOR, "odd", "extra/-odd", ["odd"]),
        (VENDOR, "orphan", "updates/dkms/orphan.ko", ["orphan"]),
    ]


def test_links_of_others_are_no_source(paths: Paths) -> None:
    theirs = put(paths, K1, "extra/kmod/kmod.ko")
    link = paths.modulesd(K2) / "weak-updates/kmod.ko"
    link.parent.mkdir()
    link.symlink_to(theirs)
    assert installed(paths, K2) == ()


def test_a_link_of_weak_modules_wins(linked: Paths) -> None:
    link = linked.modulesd(K2) / "weak-updates/kmod/drv.ko"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"/lib/modules/{K1}/extra/kmod/drv.ko")
    found = reconcile(linked)["kmod"]
    assert (found.kind, found.reasons[0].kind) == ("skip", "foreign-stands")
    assert f"{K1}/extra/kmod/drv.ko" in found.reasons[0].text
    assert links(linked) == {}
    assert link.is_symlink()


def test_dkms_s_by_its_tree(paths: Paths) -> None:
    put(paths, K1, "updates/dkms/drv.ko", b"two")
    dkms_built(paths, "drv", "1.0", K1, drv=b"one")
    dkms_built(paths, "drv", "2.0", K1, drv=b"two")
    dkms_built(paths, "drv", "3.0", K2, drv=b"two")
    assert [(i.owner, i.package, i.version) for i in installed(paths)] == [(DKMS, "drv", "2.0")]


def test_dkms_s_is_whole_or_not_dkms_s(paths: Paths) -> None:
    put(paths, K1, "updates/dkms/drv.ko", b"one")
    dkms_built(paths, "pair", "1.0", K1, drv=b"one", drv2=b"two")
    assert [(i.owner, i.package) for i in installed(paths)] == [(VENDOR, "drv")]


@pytest.mark.parametrize(
    ("file", "is_there"),
    [
        ("kernel/x.ko", False),
        ("weak-updates/x.ko", False),
        ("updates/autokmod/p/x.ko", False),
        ("updates/dkms/x.ko", True),
        ("updates/x.ko", True),
        ("extra/x.ko", True),
    ],
)
def test_where_it_is_worth_looking(paths: Paths, file: str, is_there: bool) -> None:
    put(paths, K1, file)
    assert has_external(paths, K1) == is_there


# ---- the whole way, but for the compiler ---------------------------------------------------------


def reconcile(paths: Paths, krel: str = K2, *, force: bool = False, other_owners: bool = True) -> dict[str, Placement]:
    with closing(Engine(paths, Config(link=LinkConfig(other_owners=other_owners)), lambda: 4e9)) as engine:
        record = engine.reconcile(krel, build=False, force=force)
        return {p.package: p for p in record.placements}


def remove(paths: Paths, krel: str) -> None:
    with closing(Engine(paths, Config(), lambda: 4e9)) as engine:
        engine.remove(krel)


def links(paths: Paths, krel: str = K2) -> dict[str, bool]:
    """Everything of ours, and whether it leads anywhere."""
    found = paths.modulesd(krel).glob("*/autokmod/*/*")
    return {str(p.relative_to(paths.modulesd(krel))): p.is_file() for p in found}


LINK, OWN = "weak-updates/autokmod/kmod/drv.ko", "updates/autokmod/kmod/drv.ko"


@pytest.fixture
def linked(paths: Paths) -> Paths:
    put(paths, K1, "extra/kmod/drv.ko", ko("drv", K1, ("version", "5.6")))
    assert reconcile(paths)["kmod"].kind == "link"
    assert links(paths) == {LINK: True}
    return paths


def test_what_is_recorded_of_a_link(linked: Paths) -> None:
    found = reconcile(linked)["kmod"]
    assert (found.version, found.link_from, found.verified, found.log) == ("5.6", K1, True, None)
    assert found.foreign is not None
    assert (found.foreign.owner, found.foreign.place, found.foreign.has_source) == ("the vendor", "extra/kmod", False)
    assert found.files[0].target == f"../../../../{K1}/extra/kmod/drv.ko"


def test_explain_names_who_made_it(linked: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(linked.root), "explain", "kmod", K2]) == 0
    assert f"made by   the vendor, for {K1}; found there in extra/kmod" in capsys.readouterr().out


def test_the_kernel_s_own_extra_modules_are_not_another_owner_s(paths: Paths) -> None:
    put(paths, K1, "extra/net/sctp.ko", ko("sctp", K1, ("intree", "Y")))
    assert reconcile(paths) == {}


def test_switched_off_nothing_stays(linked: Paths) -> None:
    assert reconcile(linked, other_owners=False) == {}
    assert links(linked) == {}


def test_a_vendor_s_update_is_compared_anew(linked: Paths) -> None:
    put(linked, K1, "extra/kmod/drv.ko", ko("drv", K1, ("version", "5.7")))
    assert reconcile(linked)["kmod"].version == "5.7"
    put(linked, K1, "extra/kmod/drv.ko", ko("drv", K1, printk=9))
    found = reconcile(linked)["kmod"]
    assert (found.kind, found.reasons[0].kind) == ("wait", "no-compatible-build")


def exclude_extra(paths: Paths) -> None:
    paths.at("etc/depmod.d").mkdir(parents=True)
    (paths.at("etc/depmod.d") / "a.conf").write_text("exclude extra\n")


CHANGES: dict[str, Callable[[Paths], object]] = {
    "another file": lambda p: put(p, K1, "extra/kmod/drv.ko", ko("drv", K1, ("version", "6.0"))),
    "one more file": lambda p: put(p, K1, "extra/kmod/more.ko", ko("more", K1)),
    "one more package": lambda p: put(p, K1, "extra/other/other.ko", ko("other", K1)),
    "the first of DKMS": lambda p: put(p, K1, "updates/dkms/other.ko", ko("other", K1)),
    "all gone": lambda p: shutil.rmtree(p.modulesd(K1) / "extra"),
    "how its kernel was configured": lambda p: (p.usr_src / f"linux-headers-{K1}/.config").write_text(
        "CONFIG_MODVERSIONS=y\nCONFIG_PREEMPT=y\n"
    ),
    "a package of that name": lambda p: add_source(p, "kmod", "1.0"),
    "depmod's configuration": exclude_extra,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_remembered_is_what_is_there(
    linked: Paths, monkeypatch: pytest.MonkeyPatch, change: Callable[[Paths], object]
) -> None:
    now = time.time_ns()
    monkeypatch.setattr("autokmod.observe.statcache.time.time_ns", lambda: now + 60_000_000_000)
    looker = Looker(linked, Config())
    (found,) = looker.look(K2).foreign_builds
    assert looker.look(K2).foreign_builds[0] is found
    change(linked)
    assert looker.look(K2).foreign_builds == Looker(linked, Config()).look(K2).foreign_builds != (found,)


def test_the_owner_took_it_away(linked: Paths) -> None:
    """It is wanted no more, and no link is left."""
    shutil.rmtree(linked.modulesd(K1) / "extra")
    assert reconcile(linked) == {}
    assert links(linked) == {}


def test_its_kernel_goes_with_a_word(linked: Paths) -> None:
    theirs = linked.modulesd(K1) / "extra/kmod/drv.ko"
    before = theirs.read_bytes()
    remove(linked, K1)
    assert links(linked) == {OWN: True}
    assert theirs.read_bytes() == before == (linked.modulesd(K2) / OWN).read_bytes()
    shutil.rmtree(linked.modulesd(K1))
    for _ in range(2):
        found = reconcile(linked)["kmod"]
        assert (found.verified, found.link_from, links(linked)) == (True, None, {OWN: True})


def test_its_kernel_goes_and_it_cannot_be_taken_over(linked: Paths) -> None:
    put(linked, K1, "extra/kmod/drv.ko", b"changed since")
    remove(linked, K1)
    assert links(linked) == {}


def test_its_kernel_went_without_a_word(linked: Paths) -> None:
    shutil.rmtree(linked.modulesd(K1))
    for _ in range(2):
        found = reconcile(linked)["kmod"]
        assert (found.kind, found.files, found.reasons[0].kind) == ("wait", (), "foreign-lost")
        assert f"in {K1}" in found.reasons[0].text
    assert links(linked) == {}
    assert reconcile(linked, force=True) == {}


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "announced, and still there"])
def test_a_third_kernel_is_linked_to_what_was_taken_over(linked: Paths, is_gone: bool) -> None:
    """A kernel that was announced to go is no place to link to."""
    remove(linked, K1)
    assert reconcile(linked)["kmod"].link_from is None
    if is_gone:
        shutil.rmtree(linked.modulesd(K1))
    k3 = "6.1.0-3-test"
    add_kernel(linked, k3)
    for part in ("Module.symvers", ".config"):
        shutil.copy(linked.usr_src / f"linux-headers-{K2}" / part, linked.usr_src / f"linux-headers-{k3}" / part)
    put(linked, k3, "kernel/ref.ko", ko("ref", k3, ("intree", "Y")))
    found = reconcile(linked, k3)["kmod"]
    assert (found.kind, found.link_from, found.verified) == ("link", K2, True)
    remove(linked, K2)
    assert links(linked, k3) == {OWN: True}


def test_looking_at_its_kernel_takes_nothing_over(linked: Paths) -> None:
    assert reconcile(linked, K1)["kmod"].reasons[0].kind == "foreign-stands"
    assert links(linked) == {LINK: True}


def test_a_vendor_s_modules_that_cannot_be_read(paths: Paths) -> None:
    put(paths, K1, "extra/kmod/drv.ko", b"no module")
    found = reconcile(paths)["kmod"]
    assert (found.kind, found.reasons[0].kind) == ("wait", "foreign-unreadable")
    assert "drv.ko" in found.reasons[0].text


def test_required_and_another_owner_s(paths: Paths) -> None:
    put(paths, K2, "extra/kmod/drv.ko", ko("drv", K2))
    reconcile(paths)
    sight = next(s for s in look_at_kernels(paths, 4e9) if s.kernel.krel == K2)
    needed = Config(packages=(("kmod", PackageConfig(required=True)),))
    assert not [r for r in decide_readiness(sight, needed, ()).reasons if "kmod" in r.text]


# ---- theirs, relied upon -------------------------------------------------------------------------


def doubts(paths: Paths, krel: str = K2) -> list[str]:
    """As `status` says it, without anybody's looking at the modules."""
    sight = next(s for s in look_at_kernels(paths, 4e9) if s.kernel.krel == krel)
    return [r.kind for r in decide_readiness(sight, Config(), ()).reasons]


@pytest.fixture
def relied(paths: Paths) -> Paths:
    put(paths, K2, "extra/kmod/drv.ko", ko("drv", K2))
    found = reconcile(paths)["kmod"]
    assert (found.kind, found.files, [f.path for f in found.beside]) == ("skip", (), ["extra/kmod/drv.ko"])
    assert found.verified
    assert doubts(paths) == ["initrd-due"]
    return paths


def test_theirs_are_indexed_where_nobody_did(relied: Paths) -> None:
    """Its owner was killed before depmod, or somebody else's depmod ran before it: modprobe would not find it."""
    assert b"extra/kmod/drv.ko:" in (relied.modulesd(K2) / "modules.dep").read_bytes()


def test_theirs_are_not_indexed_again_and_again(relied: Paths) -> None:
    index = relied.modulesd(K2) / "modules.dep"
    before = index.stat().st_mtime_ns
    reconcile(relied)
    assert index.stat().st_mtime_ns == before


def test_an_index_without_theirs_is_told_and_mended(relied: Paths) -> None:
    index = relied.modulesd(K2) / "modules.dep"
    index.write_bytes(b"kernel/ref.ko:\n")
    assert "not-indexed" in doubts(relied)
    reconcile(relied)
    assert "not-indexed" not in doubts(relied)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        pytest.param(lambda file: file.unlink(), "file-gone", id="gone"),
        pytest.param(lambda file: file.write_bytes(b"x"), "file-changed", id="another"),
    ],
)
def test_theirs_went_and_nobody_looked(relied: Paths, change: Callable[[Path], object], kind: str) -> None:
    change(relied.modulesd(K2) / "extra/kmod/drv.ko")
    assert kind in doubts(relied)


@pytest.mark.parametrize("carried", [{}, {"extra/kmod/drv.ko": b"older"}], ids=["lacking", "another"])
def test_theirs_belong_in_the_initrd_like_ours(relied: Paths, carried: dict[str, bytes]) -> None:
    index = "".join(f"{file}:\n" for file in carried).encode()
    files = {f"lib/modules/{K2}/{name}": data for name, data in (carried | {"modules.dep": index}).items()}
    (relied.boot / f"initrd.img-{K2}").write_bytes(archive({"init": b"", **files}))
    config = Config(packages=(("kmod", PackageConfig(initrd=True)),), initrd=InitrdConfig(regenerate=False))
    record = read_record(relied, K2)
    assert record is not None
    done = InitrdStep(relied, config, K2, dict, Cancel(), unattended).run(record)
    assert done.initrd is not None
    assert (done.initrd_ok, "drv" in done.initrd.text) == (False, True), done.initrd.text


def test_dkms_s_package_by_its_source(paths: Paths) -> None:
    """Of a package that has a source here, under another name, no vendor's is made."""
    add_source(paths, "drv", "1.0")
    data = ko("drv", K1)
    put(paths, K1, "updates/dkms/drv.ko", data)
    dkms_built(paths, "drv", "1.0", K1, drv=data)
    assert set(reconcile(paths)) == {"drv"}
