"""The checker's rules, one by one: what the loader accepts, what it refuses, and what nobody can tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from autokmod.decide.compat import check_set
from autokmod.decide.compat_symbols import may_use
from autokmod.model import (
    CompatResult,
    ElfIdent,
    Export,
    Import,
    KernelAbi,
    ModuleFacts,
    Reason,
    Signature,
    Verdict,
)

X86 = ElfIdent(64, "little", 62)
FLAGS = "SMP preempt mod_unload modversions "
KREL = "6.1.0-56-amd64"
COMPATIBLE, INCOMPATIBLE, UNKNOWN = Verdict.COMPATIBLE, Verdict.INCOMPATIBLE, Verdict.UNKNOWN
FORCE = {"CONFIG_MODULE_FORCE_LOAD": "y"}


def exported(*exports: Export) -> dict[str, Export]:
    return {e.name: e for e in exports}


SYMVERS = exported(
    Export("module_layout", 1, "vmlinux", False, None),
    Export("kfree", 2, "vmlinux", False, None),
    Export("device_create", 3, "vmlinux", True, None),
    Export("dma_buf_vmap", 4, "drivers/dma-buf/dma-buf", False, "DMA_BUF"),
    Export("kvm_one", 5, "vmlinux", False, "module:kvm-*,vfio"),
    Export("usb_register", 6, "drivers/usb/core/usbcore", False, None),
    Export("uncounted", None, "vmlinux", False, None),
)
ABI = KernelAbi(
    krel=KREL,
    ident=X86,
    vermagic=f"{KREL} {FLAGS}",
    struct_size=896,
    modversions=True,
    exports=SYMVERS,
    symvers_path="/usr/src/x/Module.symvers",
    symvers_digest="0",
    config_digest="0",
    config={"CONFIG_MODVERSIONS": "y", "CONFIG_MODULE_SIG": "y"},
    problems=(),
)


def abi(config: Mapping[str, str] | None = None, exports: Iterable[Export] = (), **changes: Any) -> KernelAbi:
    return replace(ABI, config={**ABI.config, **(config or {})}, exports={**SYMVERS, **exported(*exports)}, **changes)


def module(name: str = "sample", needs: Mapping[str, int | None] | None = None, **changes: Any) -> ModuleFacts:
    """Built for another release of the same ABI. `needs`: symbols and their CRCs; None: no entry in the table."""
    wanted = {"kfree": 2} if needs is None else needs
    table = {"module_layout": 1, **{n: c for n, c in wanted.items() if c is not None}}
    facts = ModuleFacts(
        path=f"{name}.ko",
        name=name,
        ident=X86,
        vermagic=f"6.1.0-55-amd64 {FLAGS}",
        struct_size=896,
        licenses=("GPL",),
        depends=(),
        import_ns=(),
        imports=tuple(Import(n, weak=False) for n in wanted if n != "module_layout"),
        versions=table,
        ext_versions=None,
        exports=(),
        srcversion=None,
        version=None,
        signature=Signature.NONE,
        has_btf=False,
        has_btf_base=False,
        livepatch=False,
    )
    return replace(facts, **changes)


def check(one: ModuleFacts, kernel: KernelAbi = ABI, providers: Iterable[Export] = ()) -> CompatResult:
    (result,) = check_set([one], kernel, exported(*providers))
    return result


def kinds(result: CompatResult) -> list[str]:
    return [r.kind for r in result.reasons]


def weak(name: str, crc: int | None = None) -> ModuleFacts:
    table = {"module_layout": 1} | ({} if crc is None else {name: crc})
    return module(imports=(Import(name, weak=True),), versions=table)


def test_compatible() -> None:
    result = check(module(needs={"kfree": 2, "device_create": 3}))
    assert result == CompatResult("sample.ko", "sample", COMPATIBLE, 3, ())


OTHER_FLAGS = f"{KREL} SMP mod_unload modversions "
UNSIGNED_32 = ElfIdent(32, "little", 3)
BTF = {"CONFIG_DEBUG_INFO_BTF_MODULES": "y"}
LENIENT_BTF = BTF | {"CONFIG_MODULE_ALLOW_BTF_MISMATCH": "y"}
ALLOW_NS = {"CONFIG_MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS": "y"}
PLAIN = f"{KREL} SMP mod_unload "
NO_MODVERSIONS = abi(modversions=False, vermagic=PLAIN)

RULES: list[tuple[str, ModuleFacts, KernelAbi, Verdict, list[str]]] = [
    ("32-bit object", module(ident=UNSIGNED_32), ABI, INCOMPATIBLE, ["other-machine"]),
    ("refused anywhere", module(problems=(Reason("common-symbol", "x"),)), ABI, INCOMPATIBLE, ["common-symbol"]),
    # vermagic
    ("flags differ", module(vermagic=OTHER_FLAGS), ABI, INCOMPATIBLE, ["vermagic-mismatch"]),
    ("a blank less", module(vermagic=f"{KREL} {FLAGS[:-1]}"), ABI, INCOMPATIBLE, ["vermagic-mismatch"]),
    ("no vermagic", module(vermagic=None), ABI, INCOMPATIBLE, ["no-vermagic"]),
    ("no vermagic, forced", module(vermagic=None), abi(FORCE), UNKNOWN, ["no-vermagic"]),
    ("kernel's not known", module(), abi(vermagic=None), COMPATIBLE, []),
    # struct module
    ("size differs, 6.1", module(struct_size=960), ABI, UNKNOWN, ["struct-size"]),
    ("size differs, 6.4", module(struct_size=960), abi(krel="6.4.0-1-amd64"), INCOMPATIBLE, ["struct-size"]),
    ("size differs, 10.0", module(struct_size=960), abi(krel="10.0-rc1"), INCOMPATIBLE, ["struct-size"]),
    ("size differs, odd", module(struct_size=960), abi(krel="next-6.12"), UNKNOWN, ["struct-size"]),
    # tables
    ("no table", module(versions=None, vermagic=ABI.vermagic), ABI, INCOMPATIBLE, ["no-versions"]),
    ("no table, forced", module(versions=None, vermagic=ABI.vermagic), abi(FORCE), UNKNOWN, ["no-versions"]),
    ("no table, other release", module(versions=None), ABI, INCOMPATIBLE, ["release-mismatch", "no-versions"]),
    ("empty table", module(versions={}), ABI, UNKNOWN, ["summary", "crc-missing", "crc-missing"]),
    ("entry missing", module(needs={"kfree": None}), ABI, UNKNOWN, ["crc-missing"]),
    ("module_layout missing", module(versions={"kfree": 2}), ABI, UNKNOWN, ["crc-missing"]),
    ("module_layout changed", module(versions={"module_layout": 9, "kfree": 2}), ABI, INCOMPATIBLE, ["crc-mismatch"]),
    ("CRC changed", module(needs={"kfree": 9}), ABI, INCOMPATIBLE, ["crc-mismatch"]),
    ("symbol gone", module(needs={"strlcpy": 9}), ABI, INCOMPATIBLE, ["symbol-missing"]),
    ("kernel's without CRC", module(needs={"uncounted": 9}), ABI, COMPATIBLE, []),
    ("more in the table", module(versions={"module_layout": 1, "kfree": 2, "gone": 3}), ABI, COMPATIBLE, []),
    # extended tables
    ("both agree", module(ext_versions={"module_layout": 1, "kfree": 2}), ABI, COMPATIBLE, []),
    ("extended counts", module(ext_versions={"module_layout": 1, "kfree": 9}), ABI, INCOMPATIBLE,
     ["crc-mismatch", "tables-disagree"]),
    ("they disagree", module(needs={"kfree": 9}, ext_versions={"module_layout": 1, "kfree": 2}), ABI, UNKNOWN,
     ["tables-disagree"]),
    ("extended lacks one", module(ext_versions={"module_layout": 1}), ABI, UNKNOWN, ["crc-missing"]),
    ("extended only, other release", module(versions=None, ext_versions={"module_layout": 1, "kfree": 2}), ABI,
     INCOMPATIBLE, ["release-mismatch"]),
    ("extended only, same release",
     module(versions=None, ext_versions={"module_layout": 1, "kfree": 2}, vermagic=ABI.vermagic), ABI, COMPATIBLE, []),
    # weak symbols
    ("weak and absent", weak("gone"), ABI, COMPATIBLE, []),
    ("weak and absent, with an entry", weak("gone", 7), ABI, COMPATIBLE, []),
    ("weak and present", weak("kfree", 2), ABI, COMPATIBLE, []),
    ("weak and changed", weak("kfree", 9), ABI, INCOMPATIBLE, ["crc-mismatch"]),
    ("weak without entry", weak("kfree"), ABI, UNKNOWN, ["crc-missing"]),
    ("weak and GPL-only", replace(weak("device_create", 9), licenses=("MIT",)), ABI, COMPATIBLE, []),
    # licences
    ("GPL-only", module(needs={"device_create": 3}, licenses=("Proprietary",)), ABI, INCOMPATIBLE, ["gpl-only"]),
    ("no licence", module(needs={"device_create": 3}, licenses=()), ABI, INCOMPATIBLE, ["gpl-only"]),
    ("first licence", module(needs={"device_create": 3}, licenses=("MIT", "GPL")), ABI, INCOMPATIBLE, ["gpl-only"]),
    ("dual", module(needs={"device_create": 3}, licenses=("Dual MIT/GPL",)), ABI, COMPATIBLE, []),
    ("not believed", module("lve", needs={"device_create": 3}), ABI, INCOMPATIBLE, ["gpl-only"]),
    ("proprietary without", module(licenses=("Proprietary",)), ABI, COMPATIBLE, []),
    # namespaces
    ("namespace", module(needs={"dma_buf_vmap": 4}), ABI, INCOMPATIBLE, ["namespace-not-imported"]),
    ("imported", module(needs={"dma_buf_vmap": 4}, import_ns=("A", "DMA_BUF")), ABI, COMPATIBLE, []),
    ("allowed", module(needs={"dma_buf_vmap": 4}), abi(ALLOW_NS), COMPATIBLE, []),
    ("for others", module(needs={"kvm_one": 5}), ABI, INCOMPATIBLE, ["namespace-not-imported"]),
    ("not by import", module(needs={"kvm_one": 5}, import_ns=("module:kvm-*,vfio",)), ABI, INCOMPATIBLE,
     ["namespace-not-imported"]),
    ("by name, in-tree", module("kvm_intel", needs={"kvm_one": 5}, intree=True), ABI, COMPATIBLE, []),
    ("by name, external", module("vfio", needs={"kvm_one": 5}), ABI, UNKNOWN, ["namespace-not-imported"]),
    # a kernel's module that is not installed
    ("not installed", module(needs={"usb_register": 6}), abi(absent=frozenset({"drivers/usb/core/usbcore"})),
     INCOMPATIBLE, ["provider-absent"]),
    ("not installed, weak", weak("usb_register", 6), abi(absent=frozenset({"drivers/usb/core/usbcore"})),
     COMPATIBLE, []),
    # exports
    ("the kernel's", module(exports=(Export("kfree", 2, "sample", False, None),)), ABI, INCOMPATIBLE,
     ["duplicate-export"]),
    ("a module's", module(exports=(Export("usb_register", 6, "sample", False, None),)), ABI, UNKNOWN,
     ["duplicate-export"]),
    ("its twin's", module("usbcore", exports=(Export("usb_register", 8, "usbcore", False, None),)), ABI, COMPATIBLE,
     []),
    ("no CRCs", module(exports=(Export("mine", None, "sample", False, None),)), ABI, INCOMPATIBLE,
     ["exports-without-crc"]),
    ("no CRCs, forced", module(exports=(Export("mine", None, "sample", False, None),)), abi(FORCE), UNKNOWN,
     ["exports-without-crc"]),
    # signatures
    ("damaged", module(signature=Signature.DAMAGED), ABI, INCOMPATIBLE, ["signature-damaged"]),
    ("unsigned, forced", module(), abi({"CONFIG_MODULE_SIG_FORCE": "y"}), INCOMPATIBLE, ["unsigned"]),
    ("signed, forced", module(signature=Signature.PRESENT), abi({"CONFIG_MODULE_SIG_FORCE": "y"}), UNKNOWN,
     ["signer-unverified"]),
    ("signed", module(signature=Signature.PRESENT), ABI, COMPATIBLE, []),
    # BTF
    ("BTF", module(has_btf=True), abi(BTF), UNKNOWN, ["btf-unverified"]),
    ("BTF with a base", module(has_btf=True, has_btf_base=True), abi(BTF), COMPATIBLE, []),
    ("BTF of this kernel", module(has_btf=True, vermagic=ABI.vermagic), abi(BTF), COMPATIBLE, []),
    ("BTF, lenient", module(has_btf=True), abi(LENIENT_BTF), COMPATIBLE, []),
    ("BTF, not looked at", module(has_btf=True), ABI, COMPATIBLE, []),
    # live patches
    ("live patch", module(livepatch=True), ABI, INCOMPATIBLE, ["livepatch"]),
    ("live patch of this kernel", module(livepatch=True, vermagic=ABI.vermagic), ABI, COMPATIBLE, []),
    # kernels without modversions
    ("no modversions", module(vermagic=PLAIN, versions=None), NO_MODVERSIONS, COMPATIBLE, []),
    ("no modversions, other release", module(vermagic="6.1.0-55-amd64 SMP mod_unload ", versions=None),
     NO_MODVERSIONS, INCOMPATIBLE, ["release-mismatch"]),
    ("no modversions, with a table", module(vermagic=f"{KREL} {FLAGS}"), NO_MODVERSIONS, INCOMPATIBLE,
     ["vermagic-mismatch"]),
    ("no modversions, symbol gone", module(needs={"gone": 1}, vermagic=PLAIN), NO_MODVERSIONS, INCOMPATIBLE,
     ["symbol-missing"]),
    # symvers that is not whole
    ("no module_layout", module(), replace(ABI, exports=exported(SYMVERS["kfree"])), UNKNOWN, ["symbol-missing"]),
]  # fmt: skip


@pytest.mark.parametrize(("one", "kernel", "verdict", "expected"), [r[1:] for r in RULES], ids=[r[0] for r in RULES])
def test_rule(one: ModuleFacts, kernel: KernelAbi, verdict: Verdict, expected: list[str]) -> None:
    result = check(one, kernel)
    assert (result.verdict, kinds(result)) == (verdict, expected)


def test_a_disagreement_is_named_in_full() -> None:
    result = check(module(needs={"usb_register": 9}))
    text = "`usb_register` changed: the module wants 0x00000009, drivers/usb/core/usbcore has 0x00000006"
    assert result.reasons == (Reason("crc-mismatch", text, "usb_register", 9, 6, "drivers/usb/core/usbcore"),)
    assert result.symbols_compared == 2


@pytest.mark.parametrize(
    ("needs", "sentence"),
    [
        ({"module_layout": 9, "kfree": 9, "device_create": 9}, "`device_create` and 2 more symbols changed"),
        ({"kfree": 9, "device_create": 9}, "`device_create` and 1 more symbol changed"),
        ({"kfree": 9, "gone": 1}, "`gone` is not exported, `kfree` changed"),
        ({"gone": 1, "kfree": 9, "b": 1}, "`b` and 1 more symbol are not exported, `kfree` changed"),
    ],
)
def test_the_shortest_true_sentence_first(needs: Mapping[str, int | None], sentence: str) -> None:
    result = check(module(needs=needs))
    assert result.reasons[0] == Reason("summary", sentence)
    assert {r.symbol for r in result.reasons[1:]} == set(needs)


def test_the_gravest_first() -> None:
    result = check(module(needs={"kfree": None, "device_create": 9}, vermagic=OTHER_FLAGS))
    assert result.verdict is INCOMPATIBLE
    assert kinds(result) == ["vermagic-mismatch", "crc-mismatch", "crc-missing"]


def test_a_kernel_that_was_not_read_raises_doubts_only() -> None:
    problem = Reason("symvers-unreadable", "empty")
    kernel = replace(ABI, exports={}, problems=(problem,), vermagic=None, struct_size=None)
    assert check(module(needs={"gone": 1}), kernel) == CompatResult("sample.ko", "sample", UNKNOWN, 0, (problem,))
    suspect = replace(ABI, problems=(problem,))
    result = check(module(needs={"gone": 1}), suspect)
    assert (result.verdict, kinds(result)) == (UNKNOWN, ["symvers-unreadable", "symbol-missing"])


def test_nothing_saves_what_every_loader_refuses() -> None:
    result = check(module(problems=(Reason("not-a-module", "x"),)), replace(ABI, problems=(Reason("a", "b"),)))
    assert (result.verdict, kinds(result)) == (INCOMPATIBLE, ["not-a-module", "a"])


@pytest.mark.parametrize(
    ("enforced", "signature", "verdict"),
    [
        (True, Signature.NONE, INCOMPATIBLE),
        (True, Signature.PRESENT, UNKNOWN),
        (True, Signature.DAMAGED, INCOMPATIBLE),
        (False, Signature.NONE, COMPATIBLE),
        (False, Signature.DAMAGED, INCOMPATIBLE),
    ],
)
def test_enforced_from_outside(enforced: bool, signature: Signature, verdict: Verdict) -> None:
    for kernel in (ABI, abi({"CONFIG_MODULE_SIG_FORCE": "y"})):
        (result,) = check_set([module(signature=signature)], kernel, {}, sig_enforced=enforced)
        assert result.verdict is verdict


# ---- sets


def provider(name: str = "base", symbol: str = "base_fn", crc: int = 70, **changes: Any) -> ModuleFacts:
    exports = (Export(symbol, crc, name, changes.pop("gpl_only", False), changes.pop("namespace", None)),)
    return module(name, exports=exports, **changes)


def verdicts(*modules: ModuleFacts, kernel: KernelAbi = ABI) -> list[tuple[Verdict, list[str]]]:
    return [(r.verdict, kinds(r)) for r in check_set(modules, kernel, {})]


def test_modules_of_a_set_provide_to_one_another() -> None:
    user = module("user", needs={"base_fn": 70, "kfree": 2})
    assert [r.symbols_compared for r in check_set([user, provider()], ABI, {})] == [3, 2]
    assert verdicts(user, provider()) == [(COMPATIBLE, []), (COMPATIBLE, [])]
    assert verdicts(user) == [(INCOMPATIBLE, ["symbol-missing"])]
    assert verdicts(user, provider(crc=71))[0] == (INCOMPATIBLE, ["crc-mismatch"])


def test_modules_outside_the_set() -> None:
    user = module("user", needs={"base_fn": 70})
    assert check(user, providers=[Export("base_fn", 70, "base", False, None)]).verdict is COMPATIBLE
    result = check(user, providers=[Export("base_fn", 71, "base", False, None)])
    assert result.reasons[0].exporter == "base"


def test_no_better_than_what_it_needs() -> None:
    """To the end of the chain, in whatever order they are given."""
    chain = [
        provider("a", "a_fn", 1, needs={"kfree": 9}),
        provider("b", "b_fn", 2, needs={"a_fn": 1}),
        module("c", needs={"b_fn": 2}),
    ]
    expected = [(INCOMPATIBLE, ["crc-mismatch"])] + [(INCOMPATIBLE, ["provider-incompatible"])] * 2
    assert verdicts(*chain) == expected
    assert verdicts(*reversed(chain)) == expected[::-1]


def test_unknown_spreads_as_unknown_and_grows_worse() -> None:
    base = provider("a", "a_fn", 1, needs={"kfree": None})
    user = module("b", needs={"a_fn": 1})
    assert verdicts(base, user) == [(UNKNOWN, ["crc-missing"]), (UNKNOWN, ["provider-unknown"])]
    worse = module("b", needs={"a_fn": 1, "device_create": 9})
    assert verdicts(base, worse)[1] == (INCOMPATIBLE, ["crc-mismatch", "provider-unknown"])


def test_an_in_tree_twin_offers_nothing() -> None:
    twin = provider("usbcore", "usb_new", 8)
    user = module("user", needs={"usb_register": 6})
    assert verdicts(user) == [(COMPATIBLE, [])]
    assert verdicts(user, twin)[0] == (INCOMPATIBLE, ["symbol-missing"])
    better = provider("usbcore", "usb_register", 66)
    assert verdicts(user, better)[0] == (INCOMPATIBLE, ["crc-mismatch"])


def test_a_twin_outside_the_set_counts_too() -> None:
    user = module("user", needs={"usb_register": 6})
    result = check(user, providers=[Export("usb_new", 8, "usbcore", False, None)])
    assert kinds(result) == ["symbol-missing"]


def test_two_modules_that_export_the_same() -> None:
    assert verdicts(provider("a", "fn"), provider("b", "fn")) == [(UNKNOWN, ["duplicate-export"])] * 2
    assert verdicts(provider("a", "fn"), provider("a", "fn", path="other/a.ko")) == [(COMPATIBLE, [])] * 2
    outside = [Export("fn", 1, "b", False, None)]
    assert kinds(check(provider("a", "fn"), providers=outside)) == ["duplicate-export"]
    assert check(provider("b", "fn"), providers=outside).verdict is COMPATIBLE


def test_a_cycle() -> None:
    a = provider("a", "a_fn", 1, needs={"b_fn": 2})
    b = provider("b", "b_fn", 2, needs={"a_fn": 1})
    user = module("user", needs={"a_fn": 1})
    assert [v for v, _ in verdicts(a, b, user)] == [INCOMPATIBLE] * 3
    assert "dependency-cycle" in verdicts(a, b, user)[0][1]
    assert verdicts(a, b, user)[2][1] == ["provider-incompatible"]


def test_proprietary_by_inheritance() -> None:
    secret = provider("secret", licenses=("Proprietary",))
    relay = provider("relay", "relay_fn", 80, needs={"base_fn": 70})
    user = module("user", needs={"relay_fn": 80, "device_create": 3})
    assert verdicts(secret, relay, user) == [
        (COMPATIBLE, []),
        (COMPATIBLE, []),
        (INCOMPATIBLE, ["proprietary-provider"]),
    ]
    reason = check_set([secret, relay, user], ABI, {})[2].reasons[0]
    assert (reason.symbol, reason.exporter) == ("relay_fn", "relay")
    assert reason.text == "it uses GPL-only symbols, and `relay_fn` of relay, which secret makes proprietary"


def test_rules_hold_for_symbols_of_the_set() -> None:
    user = module("user", needs={"base_fn": 70})
    assert verdicts(user, provider(namespace="NS"))[0] == (INCOMPATIBLE, ["namespace-not-imported"])
    assert verdicts(replace(user, licenses=("MIT",)), provider(gpl_only=True))[0] == (INCOMPATIBLE, ["gpl-only"])


@pytest.mark.parametrize(
    ("namespace", "name", "allowed"),
    [
        ("module:kvm", "kvm", True),
        ("module:kvm", "kvm_intel", False),
        ("module:kvm-*", "kvm_intel", True),
        ("module:a,kvm-intel", "kvm_intel", True),
        ("module:", "x", False),
        ("module:*", "x", True),
    ],
)
def test_module_namespaces(namespace: str, name: str, allowed: bool) -> None:
    assert may_use(namespace, name) is allowed
