"""The planner, by tables: which decision, from which facts, for which reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from autokmod.config import Config, LinkConfig, PackageConfig
from autokmod.decide.early import select_versions
from autokmod.decide.facts import Facts
from autokmod.decide.fingerprint import fingerprint
from autokmod.decide.plan import decide_kernel
from autokmod.model import (
    Build,
    BuildError,
    BuiltModule,
    Decision,
    DecisionKind,
    ElfIdent,
    Export,
    Import,
    Kernel,
    KernelAbi,
    KernelRecord,
    KernelState,
    ModuleFacts,
    Package,
    PlacedFile,
    Placement,
    Reason,
    Recipe,
    RecipeModule,
    Signature,
)

K1, K2 = "6.1.0-1-test", "6.1.0-2-test"
X86 = ElfIdent(64, "little", 62)
TAIL = "SMP preempt mod_unload modversions "
SYMBOLS = {"module_layout": 1, "printk": 2, "kmalloc": 3}
PACKAGE = Package("drv", "1.0", "/usr/src/drv-1.0", "dkms", "digest")
RECIPE = Recipe("drv", "1.0", (RecipeModule("drv", "", "drv", True),), "make", (), True, (), "", "", None)


def export(name: str, crc: int, exporter: str = "vmlinux") -> Export:
    return Export(name, crc, exporter, False, None)


def abi(symbols: Mapping[str, int] = SYMBOLS, krel: str = K2) -> KernelAbi:
    exports = {name: export(name, crc) for name, crc in symbols.items()}
    return KernelAbi(krel, X86, f"{krel} {TAIL}", 1024, True, exports, "/symvers", "digest", "config", {}, ())


def module(
    name: str = "drv",
    imports: Mapping[str, int] = {"printk": 2},
    exports: Mapping[str, int] = {},
    krel: str = K1,
) -> ModuleFacts:
    return ModuleFacts(
        path=f"/{name}.ko",
        name=name,
        ident=X86,
        vermagic=f"{krel} {TAIL}",
        struct_size=1024,
        licenses=("GPL",),
        depends=(),
        import_ns=(),
        imports=tuple(Import(i, weak=False) for i in imports),
        versions={"module_layout": 1, **imports},
        ext_versions=None,
        exports=tuple(export(n, c, name) for n, c in exports.items()),
        srcversion=None,
        version=None,
        signature=Signature.NONE,
        has_btf=False,
        has_btf_base=False,
        livepatch=False,
    )


def build(key: str, krel: str, *, ok: bool = True, name: str = "drv", transient: bool = False) -> Build:
    errors = () if ok else (BuildError("drv.c", 7, "error: unknown type name 'foo'"),)
    modules = (BuiltModule(name, name, f"{name}.ko", "0" * 64, 1, None, None),) if ok else ()
    where, features = f"/builds/{key}", fingerprint({})
    return Build(key, f"source-{name}", name, "1.0", krel, ok, transient, errors, modules, 3.0, 2.0, where, features)


def kernel(state: KernelState = KernelState.COMPLETE) -> Kernel:
    kdir = None if state is KernelState.NO_HEADERS else "/kdir"
    problems = (Reason("headers-missing", "headers are not installed", hint="install"),) if kdir is None else ()
    return Kernel(K2, state, f"/lib/modules/{K2}", kdir, "/boot/vmlinuz", problems, 0.0)


FACTS = Facts(
    kernel(),
    abi(),
    Config(),
    (PACKAGE,),
    recipes={PACKAGE.id: RECIPE},
    source_keys={PACKAGE.id: "source-drv"},
    keys={PACKAGE.id: "key2"},
)
WITH_K1 = replace(FACTS, builds=(build("key1", K1),), contents={"key1": (module(),)}, owners={"key1": (K1,)})


def record(key: str, *, verified: bool = True, link_from: str | None = None) -> KernelRecord:
    files = (PlacedFile("drv", "updates/autokmod/drv/drv.ko", None, "0" * 64, 1, 1),)
    placed = Placement("drv", "1.0", DecisionKind.BUILD, (), key, "source-drv", link_from, 2, files, verified=verified)
    return KernelRecord(K2, 1.0, (placed,))


def only(facts: Facts) -> Decision:
    (decision,) = decide_kernel(facts)
    return decision


def config(**package: object) -> Config:
    return Config(packages=(("drv", PackageConfig(**package)),))  # type: ignore[arg-type]


WITHOUT_HEADERS = replace(
    FACTS,
    kernel=kernel(KernelState.NO_HEADERS),
    abi=abi({}),
    keys={},
    recipes={},
    record=record("key2"),
    intact=frozenset({"drv"}),
)


@pytest.mark.parametrize(
    ("facts", "kind", "stored", "reason"),
    [
        pytest.param(FACTS, "build", False, "no-build", id="never built"),
        pytest.param(WITH_K1, "link", True, "compatible-build", id="compatible build elsewhere"),
        pytest.param(replace(WITH_K1, owners={}), "build", True, "stored-build", id="its owner is gone: a copy"),
        pytest.param(
            replace(WITH_K1, abi=abi({**SYMBOLS, "printk": 9})), "build", False, "incompatible-build", id="CRC changed"
        ),
        pytest.param(
            replace(WITH_K1, abi=abi({"module_layout": 1})), "build", False, "incompatible-build", id="symbol gone"
        ),
        pytest.param(
            replace(WITH_K1, config=Config(link=LinkConfig(enabled=False))),
            "build",
            False,
            "policy-disabled",
            id="links off",
        ),
        pytest.param(replace(WITH_K1, config=config(link="never")), "build", False, "policy-never", id="link = never"),
        pytest.param(
            replace(WITH_K1, recipes={PACKAGE.id: replace(RECIPE, link_allowed=False)}),
            "build",
            False,
            "policy-recipe",
            id="its author wants no links",
        ),
        pytest.param(
            replace(WITH_K1, builds=(replace(build("key1", K1), features={"compiler": "gcc 11"}),)),
            "build",
            False,
            "policy-compiler",
            id="other compiler",
        ),
        pytest.param(
            replace(WITH_K1, config=config(link="never"), abi=abi({**SYMBOLS, "printk": 9})),
            "build",
            False,
            "incompatible-build",
            id="what the loader refuses needs no policy",
        ),
        pytest.param(
            replace(
                WITH_K1, config=config(link="never"), record=record("key1", link_from=K1), intact=frozenset({"drv"})
            ),
            "build",
            False,
            "policy-never",
            id="a link that stands and may be no more",
        ),
        pytest.param(
            replace(WITH_K1, builds=(*WITH_K1.builds, build("key2", K2, ok=False)), config=config(link="never")),
            "build",
            True,
            "build-failed",
            id="policy does not hide that the build failed",
        ),
        pytest.param(
            replace(WITH_K1, source_keys={PACKAGE.id: "other"}), "build", False, "source-changed", id="source changed"
        ),
        pytest.param(replace(FACTS, config=config(enabled=False)), "skip", False, "disabled", id="disabled"),
        pytest.param(
            replace(FACTS, config=config(exclude_kernels=("6.1.0-*",))), "skip", False, "excluded", id="excluded krel"
        ),
        pytest.param(
            replace(FACTS, recipes={PACKAGE.id: replace(RECIPE, autoinstall=False)}),
            "skip",
            False,
            "no-autoinstall",
            id="no AUTOINSTALL",
        ),
        pytest.param(
            replace(FACTS, recipes={PACKAGE.id: replace(RECIPE, excluded=Reason("build-exclusive", "not for rt"))}),
            "skip",
            False,
            "build-exclusive",
            id="excluded by the recipe",
        ),
        pytest.param(
            replace(FACTS, recipes={}, recipe_problems={PACKAGE.id: Reason("recipe-broken", "line 3")}),
            "blocked",
            False,
            "recipe-broken",
            id="broken recipe",
        ),
        pytest.param(
            replace(WITH_K1, packages=(replace(PACKAGE, problem=Reason("outward-link", "x")),)),
            "blocked",
            False,
            "outward-link",
            id="bad source tree",
        ),
        pytest.param(
            replace(FACTS, build_problem=Reason("compiler-missing", "gcc-12")),
            "blocked",
            False,
            "compiler-missing",
            id="no compiler",
        ),
        pytest.param(
            replace(WITH_K1, build_problem=Reason("compiler-missing", "gcc-12")),
            "link",
            True,
            "compatible-build",
            id="no compiler, but nothing to compile",
        ),
        pytest.param(
            replace(WITH_K1, signing_problem=Reason("no-signing-key", "enforced")),
            "blocked",
            False,
            "no-signing-key",
            id="signatures enforced",
        ),
        pytest.param(
            replace(FACTS, kernel=kernel(KernelState.NO_HEADERS), abi=abi({}), keys={}),
            "wait",
            False,
            "headers-missing",
            id="no headers",
        ),
        pytest.param(
            replace(FACTS, builds=(build("key2", K2, ok=False),)), "build", True, "build-failed", id="failed before"
        ),
        pytest.param(
            replace(FACTS, builds=(build("key2", K2, ok=False),), force=True), "build", False, "no-build", id="forced"
        ),
        pytest.param(
            replace(FACTS, builds=(build("key2", K2, ok=False, transient=True),)),
            "build",
            False,
            "no-build",
            id="failed for a reason that may pass",
        ),
        pytest.param(
            replace(FACTS, builds=(build("key2", K2, ok=False, transient=True),), tried={"key2": None}),
            "build",
            True,
            "build-interrupted",
            id="interrupted in this very run: not again at once",
        ),
        pytest.param(
            replace(FACTS, builds=(build("key2", K2, ok=False),), kernel=replace(kernel(), changed_at=1.5)),
            "build",
            False,
            "no-build",
            id="failed before the last of the headers came",
        ),
        pytest.param(
            replace(
                FACTS,
                builds=(build("key2", K2, ok=False),),
                kernel=replace(kernel(), changed_at=99.0),
                record=KernelRecord(K2, 4.0, (), kernel_changed_at=99.0),
            ),
            "build",
            True,
            "build-failed",
            id="failed before, on a kernel from the future",
        ),
        pytest.param(
            replace(
                FACTS,
                builds=(build("key2", K2, ok=False),),
                kernel=replace(kernel(), changed_at=99.0),
                record=KernelRecord(K2, 100.0, (), kernel_changed_at=99.0),
            ),
            "build",
            False,
            "no-build",
            id="failed before, and the kernel changed before that was recorded",
        ),
        pytest.param(
            replace(FACTS, builds=(build("key2", K2, ok=False),), force=True, tried={"key2": None}),
            "build",
            True,
            "build-failed",
            id="forced, and failed again",
        ),
        pytest.param(
            replace(FACTS, tried={"key2": Reason("build-impossible", "no space")}),
            "blocked",
            False,
            "build-impossible",
            id="could not even be tried",
        ),
        pytest.param(
            replace(FACTS, builds=(build("key2", K2),), contents={"key2": (module(krel=K2),)}),
            "build",
            True,
            "stored-build",
            id="exact build in the store",
        ),
        pytest.param(
            replace(
                FACTS,
                builds=(build("key2", K2),),
                contents={"key2": (module(krel=K2),)},
                record=record("key2"),
                intact=frozenset({"drv"}),
            ),
            "keep",
            True,
            "in-place",
            id="right already",
        ),
        pytest.param(
            replace(
                FACTS,
                builds=(build("key2", K2),),
                contents={"key2": (module(krel=K2),)},
                record=record("key2", verified=False),
                intact=frozenset({"drv"}),
            ),
            "build",
            True,
            "stored-build",
            id="in place but never verified",
        ),
        pytest.param(
            WITHOUT_HEADERS,
            "keep",
            False,
            "in-place",
            id="right already, headers removed since",
        ),
        pytest.param(
            replace(WITHOUT_HEADERS, record=replace(record("key2"), kernel_installed_at=7.0)),
            "wait",
            False,
            "headers-missing",
            id="headers removed, and then the kernel replaced under its name",
        ),
        pytest.param(
            replace(WITHOUT_HEADERS, packages=(replace(PACKAGE, version="2.0"),)),
            "wait",
            False,
            "headers-missing",
            id="headers removed, and then the package upgraded",
        ),
    ],
)
def test_decision(facts: Facts, kind: str, stored: bool, reason: str) -> None:
    decision = only(facts)
    assert (decision.kind, decision.stored, decision.reasons[0].kind) == (kind, stored, reason)


def test_link_names_the_kernel_and_counts_symbols() -> None:
    decision = only(WITH_K1)
    assert (decision.link_from, decision.key, decision.symbols_compared) == (K1, "key1", 2)


def test_rebuild_says_which_symbols() -> None:
    facts = replace(
        WITH_K1,
        contents={"key1": (module(imports={"printk": 2, "kmalloc": 3}),)},
        abi=abi({"module_layout": 7, "printk": 8, "kmalloc": 9}),
    )
    sentence, *symbols = only(facts).reasons
    assert sentence.text == f"the build for {K1} does not fit: printk and 2 more symbols changed" or (
        sentence.text == f"the build for {K1} does not fit: kmalloc and 2 more symbols changed"
    )
    assert {(s.symbol, s.wanted_crc, s.offered_crc) for s in symbols} == {
        ("module_layout", 1, 7),
        ("printk", 2, 8),
        ("kmalloc", 3, 9),
    }


BUILT_HERE = replace(FACTS, builds=(build("key2", K2),), contents={"key2": (module(imports={"gone": 4}, krel=K2),)})


def test_what_was_built_and_does_not_fit_is_not_built_again() -> None:
    decision = only(BUILT_HERE)
    assert (decision.kind, decision.stored) == (DecisionKind.BLOCKED, False)
    assert decision.reasons[0].text.startswith("it was built, but does not fit: ")


def test_a_person_may_have_it_built_again_once() -> None:
    asked = replace(BUILT_HERE, force=True)
    assert only(asked).kind is DecisionKind.BUILD
    assert only(replace(asked, tried={"key2": None})).kind is DecisionKind.BLOCKED


def test_newest_kernels_build_is_linked_to() -> None:
    k0 = "6.1.0-0-test"
    facts = replace(
        FACTS,
        builds=(build("key0", k0), build("key1", K1)),
        contents={"key0": (module(krel=k0),), "key1": (module(),)},
        owners={"key0": (k0,), "key1": (K1,)},
    )
    assert only(facts).link_from == K1


def test_a_build_that_lacks_a_promised_module_is_no_candidate() -> None:
    two = replace(RECIPE, modules=(*RECIPE.modules, RecipeModule("more", "", "more", True)))
    assert only(replace(WITH_K1, recipes={PACKAGE.id: two})).stored is False


def test_no_rebuild_for_a_module_of_the_kernel_that_is_not_installed() -> None:
    exports = {**abi().exports, "cec_call": export("cec_call", 5, "drivers/media/cec")}
    target = replace(abi(), exports=exports, absent=frozenset({"drivers/media/cec"}))
    facts = replace(WITH_K1, abi=target, contents={"key1": (module(imports={"printk": 2, "cec_call": 5}),)})
    decision = only(facts)
    assert (decision.kind, decision.reasons[0].kind) == ("wait", "provider-absent")
    assert "drivers/media/cec" in decision.reasons[0].text


# ---- sets of packages ----------------------------------------------------------------------------

LIB = Package("lib", "1.0", "/usr/src/lib-1.0", "dkms", "digest")
LIB_RECIPE = replace(RECIPE, name="lib", modules=(RecipeModule("lib", "", "lib", True),))
PAIR = replace(
    WITH_K1,
    packages=(PACKAGE, LIB),
    recipes={PACKAGE.id: RECIPE, LIB.id: LIB_RECIPE},
    source_keys={PACKAGE.id: "source-drv", LIB.id: "source-lib"},
    keys={PACKAGE.id: "key2", LIB.id: "lib2"},
    builds=(build("key1", K1), build("lib1", K1, name="lib")),
    contents={
        "key1": (module(imports={"lib_call": 77}),),
        "lib1": (module("lib", imports={"printk": 2}, exports={"lib_call": 77}),),
    },
    owners={"key1": (K1,), "lib1": (K1,)},
)


def kinds(facts: Facts) -> dict[str, tuple[str, bool, str]]:
    return {d.package: (d.kind, d.stored, d.reasons[0].kind) for d in decide_kernel(facts)}


def test_provider_among_packages_lets_both_link() -> None:
    assert kinds(PAIR) == {"drv": ("link", True, "compatible-build"), "lib": ("link", True, "compatible-build")}


def test_consumer_waits_for_a_provider_that_must_be_rebuilt() -> None:
    facts = replace(PAIR, abi=abi({**SYMBOLS, "printk": 9}))
    assert kinds(facts) == {"drv": ("wait", False, "dependency-pending"), "lib": ("build", False, "incompatible-build")}


def test_licence_taint_crosses_packages() -> None:
    """The loader refuses a user of GPL-only symbols that also needs a proprietary module's: so must the planner."""
    gpl = {**abi().exports, "printk": replace(export("printk", 2), gpl_only=True)}
    proprietary = replace(module("lib", imports={"kmalloc": 3}, exports={"lib_call": 77}), licenses=("Proprietary",))
    facts = replace(
        PAIR,
        abi=replace(abi(), exports=gpl),
        contents={"key1": (module(imports={"printk": 2, "lib_call": 77}),), "lib1": (proprietary,)},
    )
    assert kinds(facts)["drv"][0] != "link"
    assert kinds(facts)["lib"] == ("link", True, "compatible-build")


def test_consumer_is_blocked_by_a_provider_that_failed() -> None:
    facts = replace(
        PAIR,
        abi=abi({**SYMBOLS, "printk": 9}),
        builds=(*PAIR.builds, build("lib2", K2, ok=False, name="lib")),
    )
    assert kinds(facts)["drv"] == ("blocked", False, "dependency-failed")


def test_declared_dependency_that_is_not_here() -> None:
    facts = replace(FACTS, recipes={PACKAGE.id: replace(RECIPE, build_depends=("lib",))})
    assert kinds(facts)["drv"] == ("wait", False, "dependency-missing")


def test_newest_version_of_a_name_is_chosen() -> None:
    versions = [replace(PACKAGE, version=v) for v in ("1.9", "1.10", "1.2")]
    assert [p.version for p in select_versions(versions)] == ["1.10"]


# ---- other owners' modules -----------------------------------------------------------------------

FOREIGN = replace(module("lib", imports={"printk": 2}, exports={"lib_call": 77}), path="/extra/lib.ko")
NEEDY = replace(WITH_K1, contents={"key1": (module(imports={"lib_call": 77}),)}, foreign=(FOREIGN,))


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        pytest.param(NEEDY, "link", id="it provides"),
        pytest.param(replace(NEEDY, foreign=()), "build", id="nobody provides"),
        pytest.param(
            replace(NEEDY, foreign=(replace(FOREIGN, exports=(export("lib_call", 78, "lib"),)),)),
            "build",
            id="other CRC",
        ),
        pytest.param(
            replace(NEEDY, foreign=(replace(FOREIGN, vermagic="6.0 SMP "),)), "build", id="it would not load itself"
        ),
        pytest.param(replace(NEEDY, foreign=(replace(FOREIGN, name="drv"),)), "build", id="one that ours displaces"),
    ],
)
def test_other_owners_modules_as_providers(facts: Facts, kind: str) -> None:
    assert only(facts).kind == kind
