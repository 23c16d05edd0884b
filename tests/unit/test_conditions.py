"""`when = {…}`: each kind of term, how they combine, and what is unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autokmod.conditions import Condition, ConditionFacts, is_within, judge
from autokmod.tomltable import TomlError, read_table

FACTS = ConditionFacts(
    krel="6.1.0-56-cloud-amd64",
    arch="x86_64",
    distribution=("ubuntu", "debian"),
    release="22.04",
    config={"CONFIG_PCI": "y", "CONFIG_USB": "m", "CONFIG_HZ": "250", "CONFIG_NAME": '"text"'},
    exports={"strlcpy": None, "printk": None},
    compiler=("gcc", "12.2.0"),
)
UNKNOWN = ConditionFacts("6.1.0", "x86_64", None, None, None, None, None)


def condition(**keys: Any) -> Condition:
    return read_table(Condition, keys)


@pytest.mark.parametrize(
    ("version", "bound", "holds"),
    [
        ("6.1.0-56-amd64", ">=6.1", True),
        ("6.1.0-56-amd64", ">=6.2", False),
        ("6.12.117+deb12-amd64", "<6.13", True),
        ("6.12.117+deb12-amd64", "<6.12", False),
        ("6.12.117+deb12-amd64", "<=6.12", True),  # what the bound does not mention does not count
        ("6.12.117+deb12-amd64", ">6.12", False),
        ("6.13.0-1", ">6.12", True),
        ("6.12.117+deb12-amd64", "=6.12", True),
        ("6.12.117+deb12-amd64", "==6.12.1", False),
        ("6.12.117+deb12-amd64", "!=6.12", False),
        ("6.12.0-rc1", ">=6.12", False),
        ("5.14.0-427.el9", ">= 5.14.0-284", True),
        ("12", ">=11", True),
        ("9.10", ">=9.4", True),
    ],
)
def test_bounds(version: str, bound: str, holds: bool) -> None:
    assert is_within(version, bound) is holds


@pytest.mark.parametrize(
    ("keys", "holds"),
    [
        ({}, True),
        ({"kernel": ">=6.0, <6.2"}, True),
        ({"kernel": ">=6.2, <6.13"}, False),
        ({"kernel": ["<5", ">=6"]}, True),
        ({"kernel": ["<5", ">=7"]}, False),
        ({"kernel": "*-cloud-*"}, True),
        ({"kernel": "!*-rt-*"}, True),
        ({"kernel": "6.1.*, !*-cloud-*"}, False),
        ({"distribution": "ubuntu"}, True),
        ({"distribution": "debian"}, True),
        ({"distribution": ["fedora", "rhel"]}, False),
        ({"release": "22.04"}, True),
        ({"release": ">=24"}, False),
        ({"config": "CONFIG_PCI"}, True),
        ({"config": "CONFIG_USB"}, True),
        ({"config": "CONFIG_HZ"}, False),
        ({"config": "CONFIG_HZ=250"}, True),
        ({"config": "CONFIG_NAME=text"}, True),
        ({"config": "!CONFIG_PREEMPT_RT, CONFIG_PCI=y"}, True),
        ({"config": "CONFIG_USB=y"}, False),
        ({"arch": "x86_64"}, True),
        ({"arch": ["aarch64", "arm*"]}, False),
        ({"exports": "strlcpy"}, True),
        ({"exports": "!strlcpy"}, False),
        ({"exports": "!strscpy, printk"}, True),
        ({"compiler": "gcc"}, True),
        ({"compiler": "gcc >=12"}, True),
        ({"compiler": "gcc >=13"}, False),
        ({"compiler": ">=12, <13"}, True),
        ({"compiler": "clang"}, False),
        ({"not": {"kernel": ">=6.2"}}, True),
        ({"not": {"kernel": ">=6", "arch": "aarch64"}}, True),  # not both
        ({"not": [{"kernel": ">=6.2"}, {"arch": "x86_64"}]}, False),  # none of them
        ({"kernel": ">=6", "arch": "aarch64"}, False),
    ],
)
def test_what_holds(keys: dict[str, Any], holds: bool) -> None:
    found = judge(condition(**keys), FACTS)
    assert found.holds is holds
    assert found.why or not keys


@pytest.mark.parametrize(
    ("keys", "holds"),
    [
        ({"config": "CONFIG_PCI"}, None),
        ({"config": "!CONFIG_PCI"}, None),
        ({"exports": "printk"}, None),
        ({"distribution": "debian"}, None),
        ({"release": "12"}, None),
        ({"compiler": "gcc"}, None),
        ({"not": {"exports": "printk"}}, None),
        ({"exports": "printk", "kernel": ">=7"}, False),  # no, whatever the symbols are
        ({"exports": "printk", "kernel": ">=6"}, None),
        ({"not": {"exports": "printk", "kernel": ">=7"}}, True),
    ],
)
def test_what_cannot_be_read_is_unknown(keys: dict[str, Any], holds: bool | None) -> None:
    assert judge(condition(**keys), UNKNOWN).holds is holds


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"kernel": ">=6.2, <6.13"}, "6.1.0-56-cloud-amd64 is not >=6.2"),
        ({"exports": "!strscpy"}, "the kernel does not export strscpy"),
        ({"exports": "!strlcpy"}, "the kernel exports strlcpy"),
        ({"distribution": "debian"}, "the distribution is ubuntu, which is like debian"),
        ({"config": "CONFIG_X"}, "CONFIG_X is not set"),
        ({"arch": "x86_64", "compiler": "gcc"}, "the architecture is x86_64 and the compiler is gcc 12.2.0"),
        ({"kernel": ["<5", ">7"]}, "6.1.0-56-cloud-amd64 is not <5 and 6.1.0-56-cloud-amd64 is not >7"),
    ],
)
def test_the_reason_is_the_fact_that_decided(keys: dict[str, Any], why: str) -> None:
    assert judge(condition(**keys), FACTS).why == why


def test_a_missing_os_release_in_the_reason() -> None:
    found = judge(condition(distribution="debian"), replace(FACTS, distribution=None))
    assert "os-release" in found.why


@pytest.mark.parametrize(
    ("keys", "key", "why"),
    [
        ({"kernel": ">=six"}, "kernel", "'>=six' is not a bound"),
        ({"kernel": ">=6.2,"}, "kernel", "'' is not a bound"),
        ({"config": "PCI"}, "config", "'PCI' is not an option of the kernel"),
        ({"exports": "not-a-symbol"}, "exports", "'not-a-symbol' is not the name of a symbol"),
        ({"compiler": "tcc"}, "compiler", "'tcc' is not a compiler"),
        ({"kernal": "6"}, "kernal", "did you mean kernel?"),
        ({"not": {"exports": 1}}, "not.exports", "a text expected, not 1"),
        ({"not": [{"arch": "x y"}]}, "not[0].arch", "'x y' is not an architecture"),
        ({"kernel": [1]}, "kernel", "a list of texts expected"),
    ],
)
def test_a_wrong_condition_is_one_clear_sentence(keys: dict[str, Any], key: str, why: str) -> None:
    with pytest.raises(TomlError) as caught:
        condition(**keys)
    assert caught.value.name == key
    assert why in caught.value.why


def test_all_texts_of_a_key() -> None:
    found = condition(**{"config": "!CONFIG_A, CONFIG_B", "not": [{"config": "CONFIG_C=y"}]})
    assert list(found.texts("config")) == ["CONFIG_A", "CONFIG_B", "CONFIG_C=y"]
