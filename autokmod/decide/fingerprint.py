"""What of a kernel's configuration shapes the code of a module, and shows in no CRC.

A fingerprint is feature → value, a word or two for people; it has every feature of FEATURES. Options were renamed over
the years: the value is the same under every name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from autokmod.config import Feature

FEATURES: tuple[Feature, ...] = get_args(Feature)
UNKNOWN = "unknown"
SWITCHES: dict[Feature, tuple[str, ...]] = {
    "cfi": ("CONFIG_CFI", "CONFIG_CFI_CLANG"),
    "ibt": ("CONFIG_X86_KERNEL_IBT", "CONFIG_ARM64_BTI_KERNEL"),
    "return-thunks": ("CONFIG_MITIGATION_RETHUNK", "CONFIG_RETHUNK"),
    "kcsan": ("CONFIG_KCSAN",),
    "kmsan": ("CONFIG_KMSAN",),
}
KASAN = {"CONFIG_KASAN_SW_TAGS": "software tags", "CONFIG_KASAN_HW_TAGS": "hardware tags", "CONFIG_KASAN": "generic"}
RANDSTRUCT = {
    "CONFIG_RANDSTRUCT_PERFORMANCE": "performance",
    "CONFIG_GCC_PLUGIN_RANDSTRUCT_PERFORMANCE": "performance",
    "CONFIG_RANDSTRUCT": "full",
    "CONFIG_GCC_PLUGIN_RANDSTRUCT": "full",
}
# Those that change code or layouts (scripts/gcc-plugins/Kconfig).
PLUGINS = ("ARM_SSP_PER_TASK", "LATENT_ENTROPY", "SANCOV", "STACKLEAK", "STRUCTLEAK")
# PREEMPT_RT comes first: such a kernel has CONFIG_PREEMPTION too. With PREEMPT_DYNAMIC code is always made for full
# preemption, whatever the model that the kernel starts with.
PREEMPTION = {
    "CONFIG_PREEMPT_RT": "rt",
    "CONFIG_PREEMPT_RT_FULL": "rt",
    "CONFIG_PREEMPT_DYNAMIC": "dynamic",
    "CONFIG_PREEMPT_LAZY": "lazy",
    "CONFIG_PREEMPTION": "full",
    "CONFIG_PREEMPT": "full",
    "CONFIG_PREEMPT_VOLUNTARY": "voluntary",
}


def fingerprint(config: Mapping[str, str]) -> dict[str, str]:
    """Of CONFIG_… → value, as in KernelAbi.config."""
    found: dict[str, str] = dict.fromkeys(FEATURES, UNKNOWN)
    found["compiler"] = _compiler(config)
    for feature, options in SWITCHES.items():
        found[feature] = "on" if any(config.get(option) == "y" for option in options) else "off"
    found["kasan"] = _first(config, KASAN, "off")
    found["randstruct"] = _first(config, RANDSTRUCT, "off")
    plugins = [name.lower() for name in PLUGINS if config.get(f"CONFIG_GCC_PLUGIN_{name}") == "y"]
    found["plugins"] = ", ".join(plugins) or "none"
    found["preemption"] = _first(config, PREEMPTION, "none")
    return found


def _first(config: Mapping[str, str], values: Mapping[str, str], otherwise: str) -> str:
    return next((value for option, value in values.items() if config.get(option) == "y"), otherwise)


def _compiler(config: Mapping[str, str]) -> str:
    """`gcc 12`. Kernels before 4.18 do not say it in their configuration."""
    for name, option in (("clang", "CONFIG_CLANG_VERSION"), ("gcc", "CONFIG_GCC_VERSION")):
        number = config.get(option, "")
        if number.isdecimal() and int(number) > 0:
            return f"{name} {int(number) // 10000}"
    text = re.search(r"(gcc|clang)\S*(?: version| \(.*\)) (\d+)\.", config.get("CONFIG_CC_VERSION_TEXT", ""))
    return f"{text[1]} {text[2]}" if text else UNKNOWN
