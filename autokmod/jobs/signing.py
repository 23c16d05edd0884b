"""What is known of keys, firmware and boot options, put together for one kernel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from autokmod.act.sign import TOOLS, try_key
from autokmod.config import Config
from autokmod.decide.signing import Signing, decide_signing, find_enforcement
from autokmod.model import Reason
from autokmod.observe.enforcement import read_boot_facts
from autokmod.observe.keys import SigningKey, find_keys
from autokmod.observe.secureboot import read_firmware
from autokmod.observe.tools import tool_problem
from autokmod.paths import Paths


class TriedKeys:
    """A key behind a password, or of another certificate, is only found out by signing something: once a key."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Reason | None] = {}

    def find(self, paths: Paths, config: Config) -> tuple[SigningKey, ...]:
        """As observe/keys finds them, each with what is wrong with it."""
        keys = find_keys(paths, config.sign)
        if tool_problem(*TOOLS) is not None:
            return keys
        return tuple(key if key.problem else replace(key, problem=self._problem(paths, key)) for key in keys)

    def _problem(self, paths: Paths, key: SigningKey) -> Reason | None:
        try:
            found = os.stat(key.key)
            stamp = (key.key, key.certificate, found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp not in self._known:
                self._known[stamp] = try_key(paths, key)
            return self._known[stamp]
        except OSError as exc:  # gone in this moment, or no room to try it in: that is no fault of the key
            return Reason("key-not-tried", f"the signing key could not be tried: {exc}")


def read_signing(
    paths: Paths, config: Config, krel: str, kernel_config: Mapping[str, str], tried: TriedKeys
) -> Signing:
    """`kernel_config`: CONFIG_… → value, as in KernelAbi."""
    firmware = read_firmware(paths)
    enforced = find_enforcement(krel, kernel_config, read_boot_facts(paths, krel), firmware)
    keys = tried.find(paths, config)
    return decide_signing(config.sign, keys, kernel_config, enforced, firmware, tool_problem(*TOOLS))
