"""Looking things up in an evaluated dkms.conf, with errors that name the conf and the key. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autokmod.errors import RecipeError
from autokmod.observe.dkmseval import RawConf


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What BUILD_EXCLUSIVE_* asks of a kernel. `config` is None where there are no headers."""

    krel: str
    arch: str
    config: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Conf:
    raw: RawConf
    path: str

    def scalar(self, name: str) -> str:
        return " ".join(self.array(name).get(0, "").split())

    def array(self, name: str) -> Mapping[int, str]:
        return self.raw.values.get(name, {})

    def at(self, name: str, index: int) -> str:
        return self.array(name).get(index, "").strip()

    def error(self, key: str, why: str) -> RecipeError:
        return RecipeError(self.path, key, why)

    def is_matched(self, name: str, index: int) -> bool:
        status = self.raw.matches[name][index]
        if status == 2:
            raise self.error(key_of(name, index), f"'{self.array(name)[index]}' is not a regular expression")
        return status == 0

    def yes_no(self, name: str) -> bool:
        value = self.scalar(name)
        if value.lower() not in ("yes", "no", ""):
            raise self.error(name, f"'{value}' is neither yes nor no")
        return value.lower() == "yes"


def key_of(name: str, index: int) -> str:
    return f"{name}[{index}]"
