"""What is known of keys, firmware and boot options, put together for one kernel."""

from __future__ import annotations

from collections.abc import Mapping

from autokmod.act.sign import TOOLS
from autokmod.config import Config
from autokmod.decide.signing import Signing, decide_signing, find_enforcement
from autokmod.observe.enforcement import read_boot_facts
from autokmod.observe.keys import find_keys
from autokmod.observe.secureboot import read_firmware
from autokmod.observe.tools import tool_problem
from autokmod.paths import Paths


def read_signing(paths: Paths, config: Config, krel: str, kernel_config: Mapping[str, str]) -> Signing:
    """`kernel_config`: CONFIG_… → value, as in KernelAbi."""
    firmware = read_firmware(paths)
    enforced = find_enforcement(krel, kernel_config, read_boot_facts(paths, krel), firmware)
    keys = find_keys(paths, config.sign)
    return decide_signing(config.sign, keys, kernel_config, enforced, firmware, tool_problem(*TOOLS))
