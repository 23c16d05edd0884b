"""Policy, by tables: what each rule refuses, what it says, and that its switch turns it off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autokmod.config import LinkConfig
from autokmod.decide.fingerprint import FEATURES, fingerprint
from autokmod.decide.policy import Origin, check_policy
from autokmod.model import KernelAbi, Reason, Stablelist
from tests.unit.test_plan import abi, module

K1, K2, CLOUD = "6.1.0-55-amd64", "6.1.0-56-amd64", "6.1.0-56-cloud-amd64"
EL87_BAD, EL87, EL86 = (f"4.18.0-{v}.x86_64" for v in ("425.3.1.el8", "425.10.1.el8_7", "372.9.1.el8"))
EL93, EL94 = (f"5.14.0-{v}.x86_64" for v in ("362.8.1.el9_3", "427.13.1.el9_4"))
GCC12 = {"CONFIG_CC_IS_GCC": "y", "CONFIG_GCC_VERSION": "120200", "CONFIG_CLANG_VERSION": "0"}
DEFAULTS = LinkConfig()
LISTED = Stablelist("/lib/modules/kabi-rhel94/kabi_stablelist_x86_64", frozenset({"printk"}))


def target(krel: str = K2, **config: str) -> KernelAbi:
    options = {f"CONFIG_{name}": value for name, value in config.items()}
    return replace(abi(krel=krel), config={**GCC12, **options})


def origin(krel: str = K1, **config: str) -> Origin:
    return Origin(krel, fingerprint(target(krel, **config).config))


def reasons(
    there: Origin, here: KernelAbi, *, link: LinkConfig = DEFAULTS, stable: Stablelist | None = None
) -> tuple[Reason, ...]:
    return check_policy(link, there, here, [module(imports={"printk": 2, "kmalloc": 3, "other_packages": 4})], stable)


RULES = [
    pytest.param(origin(CLOUD), target(), None, "policy-flavour", LinkConfig(same_flavour=False), id="flavour"),
    pytest.param(origin(EL93), target(EL94), None, "policy-stream", LinkConfig(same_stream=False), id="stream"),
    pytest.param(
        origin(GCC_VERSION="110200"), target(), None, "policy-compiler",
        LinkConfig(same_features=tuple(f for f in FEATURES if f != "compiler")), id="compiler",
    ),
    *(
        pytest.param(
            origin(**{option: "y"}), target(), None, f"policy-{feature}",
            LinkConfig(same_features=tuple(f for f in FEATURES if f != feature)), id=option,
        )
        for feature, option in (
            ("cfi", "CFI_CLANG"), ("ibt", "X86_KERNEL_IBT"), ("return-thunks", "RETHUNK"), ("kasan", "KASAN"),
            ("kcsan", "KCSAN"), ("kmsan", "KMSAN"), ("plugins", "GCC_PLUGIN_STACKLEAK"),
            ("randstruct", "RANDSTRUCT"), ("preemption", "PREEMPT_DYNAMIC"),
        )
    ),
    pytest.param(
        Origin(K1, None), target(), None, "policy-features-unknown", LinkConfig(same_features=()), id="unknown features"
    ),
    pytest.param(
        origin(EL86), target(EL87_BAD), None, "policy-known-bad", LinkConfig(known_bad_kernels=False), id="to a bad one"
    ),
    pytest.param(
        origin(EL87_BAD), target(EL87), None, "policy-known-bad",
        LinkConfig(known_bad_kernels=False), id="from a bad one",
    ),
    pytest.param(
        origin(EL93.replace("9_3", "9_4")), target(EL94), LISTED, "policy-stablelist", LinkConfig(stablelist=False),
        id="not on the stablelist",
    ),
    pytest.param(
        origin(EL93.replace("9_3", "9_4")), target(EL94), replace(LISTED, symbols=frozenset(), problem="damaged"),
        "policy-stablelist", LinkConfig(stablelist=False), id="a damaged stablelist",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("there", "here", "stable", "kind", "without"), RULES)
def test_each_rule(there: Origin, here: KernelAbi, stable: Stablelist | None, kind: str, without: LinkConfig) -> None:
    (reason,) = reasons(there, here, stable=stable)
    assert reason.kind == kind
    assert reason.text.startswith("by policy (link.")
    switch = reason.text.partition("(link.")[2].partition(")")[0]
    assert reason.hint is not None
    assert switch in reason.hint
    assert getattr(DEFAULTS, switch) != getattr(without, switch)
    assert reasons(there, here, stable=stable, link=without) == ()


def test_the_administrators_denylist() -> None:
    link = LinkConfig(denied_kernels=("6.1.0-55-*", "5.*"))
    (reason,) = reasons(origin(), target(), link=link)
    assert (reason.kind, "6.1.0-55-*" in reason.text) == ("policy-denied", True)
    assert reasons(origin(), target()) == ()
    assert reasons(origin(K1), target(K1), link=link) == (), "a build for that very kernel is no link"


def test_what_the_kernel_exports_alone_is_looked_up() -> None:
    """`kmalloc` is not listed; `other_packages` is not the kernel's, so no list could have it."""
    (reason,) = reasons(origin(EL94.replace("427", "428")), target(EL94), stable=LISTED)
    assert (reason.symbol, "`kmalloc` is not in" in reason.text) == ("kmalloc", True)
    both = replace(LISTED, symbols=frozenset({"printk", "kmalloc"}))
    assert reasons(origin(EL94.replace("427", "428")), target(EL94), stable=both) == ()


def test_an_empty_stablelist_promises_nothing_and_forbids_nothing() -> None:
    empty = replace(LISTED, symbols=frozenset())
    assert reasons(origin(EL94.replace("427", "428")), target(EL94), stable=empty) == ()


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (origin(), target()),
        (origin(EL86), target(EL87)),
        (origin(CLOUD), target(CLOUD)),
        (Origin(K2, None), target(K2)),
        (Origin(K1, {}), target()),  # recorded when nothing was looked at
    ],
)
def test_nothing_in_the_way(there: Origin, here: KernelAbi) -> None:
    assert reasons(there, here) == ()


def test_a_kernel_configured_anew_under_its_name() -> None:
    (reason,) = reasons(origin(K2, KASAN="y"), target(K2))
    assert reason.kind == "policy-kasan"


# ---- fingerprints --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "feature", "value"),
    [
        (GCC12, "compiler", "gcc 12"),
        ({"CONFIG_CLANG_VERSION": "170006", "CONFIG_GCC_VERSION": "0"}, "compiler", "clang 17"),
        ({"CONFIG_CC_VERSION_TEXT": '"gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"'}, "compiler", "gcc 12"),
        ({"CONFIG_CC_VERSION_TEXT": '"gcc (GCC) 8.5.0 20210514 (Red Hat 8.5.0-10)"'}, "compiler", "gcc 8"),
        ({"CONFIG_CC_VERSION_TEXT": '"Debian clang version 14.0.6"'}, "compiler", "clang 14"),
        ({"CONFIG_CC_VERSION_TEXT": '"tcc 1"'}, "compiler", "unknown"),
        ({}, "compiler", "unknown"),
        ({"CONFIG_CFI": "y"}, "cfi", "on"),
        ({}, "cfi", "off"),
        ({"CONFIG_MITIGATION_RETHUNK": "y"}, "return-thunks", "on"),
        ({"CONFIG_KASAN": "y", "CONFIG_KASAN_GENERIC": "y"}, "kasan", "generic"),
        ({"CONFIG_KASAN": "y", "CONFIG_KASAN_SW_TAGS": "y"}, "kasan", "software tags"),
        ({"CONFIG_GCC_PLUGINS": "y"}, "plugins", "none"),
        ({"CONFIG_GCC_PLUGIN_STACKLEAK": "y", "CONFIG_GCC_PLUGIN_SANCOV": "y"}, "plugins", "sancov, stackleak"),
        ({"CONFIG_RANDSTRUCT": "y", "CONFIG_RANDSTRUCT_PERFORMANCE": "y"}, "randstruct", "performance"),
        ({"CONFIG_RANDSTRUCT_NONE": "y"}, "randstruct", "off"),
        ({"CONFIG_PREEMPT_RT": "y", "CONFIG_PREEMPTION": "y"}, "preemption", "rt"),
        ({"CONFIG_PREEMPT_VOLUNTARY": "y", "CONFIG_PREEMPT_DYNAMIC": "y"}, "preemption", "dynamic"),
        ({"CONFIG_PREEMPT_VOLUNTARY": "y"}, "preemption", "voluntary"),
        ({"CONFIG_PREEMPT": "y", "CONFIG_PREEMPTION": "y"}, "preemption", "full"),
        ({}, "preemption", "none"),
    ],
)  # fmt: skip
def test_fingerprint(config: dict[str, str], feature: str, value: str) -> None:
    found = fingerprint(config)
    assert found[feature] == value
    assert tuple(found) == FEATURES
