"""What conditions ask: the kernel, its symbols and configuration, its compiler, and the distribution."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from autokmod.conditions import Condition, ConditionFacts, Judgement, judge
from autokmod.config import Config
from autokmod.errors import FormatError
from autokmod.files import open_regular
from autokmod.model import Kernel, KernelAbi
from autokmod.observe.dkmsconf import kernel_arch
from autokmod.observe.toolchain import read_toolchain
from autokmod.paths import Paths

OS_RELEASE = ("etc/os-release", "usr/lib/os-release")  # os-release(5)
SIZE_LIMIT = 64 << 10
_LINE = re.compile(r"""([A-Z_0-9]+)=("([^"]*)"|'([^']*)'|[^\s"']*)\s*""")
_VERSION = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True, slots=True)
class Distribution:
    ids: tuple[str, ...] | None  # ID, then ID_LIKE
    release: str | None


class Facts:
    """`compiler` is only looked for where a condition asks: its version may have to be asked in the sandbox."""

    def __init__(
        self, paths: Paths, config: Config, kernel: Kernel, abi: KernelAbi | None, distribution: Distribution
    ) -> None:
        self._ask = (paths, config, kernel, abi)
        self.has_headers = kernel.kdir is not None
        self.plain = ConditionFacts(
            krel=kernel.krel,
            arch=kernel_arch(abi),
            distribution=distribution.ids,
            release=distribution.release,
            config=_config(abi),
            exports=_exports(abi),
            compiler=None,
        )

    def judge(self, condition: Condition) -> Judgement:
        return judge(condition, self._with_compiler if any(condition.texts("compiler")) else self.plain)

    @cached_property
    def _with_compiler(self) -> ConditionFacts:
        paths, config, kernel, abi = self._ask
        if abi is None or kernel.kdir is None:
            return self.plain
        toolchain, problem = read_toolchain(paths, kernel, abi, config)
        found = parse_compiler(toolchain.identity[0]) if problem is None and toolchain.identity else None
        fields = {name: getattr(self.plain, name) for name in ConditionFacts.__slots__}
        return ConditionFacts(**{**fields, "compiler": found})


def condition_facts(
    paths: Paths, config: Config, kernel: Kernel, abi: KernelAbi | None, distribution: Distribution
) -> Facts:
    return Facts(paths, config, kernel, abi, distribution)


def _config(abi: KernelAbi | None) -> Mapping[str, str] | None:
    return abi.config if abi is not None and abi.config else None


def _exports(abi: KernelAbi | None) -> Mapping[str, object] | None:
    """None also where the symvers is another kernel's."""
    if abi is None or not abi.exports or any(p.kind.startswith("symvers") for p in abi.problems):
        return None
    return abi.exports


def parse_compiler(identity: str) -> tuple[str, str] | None:
    """`gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0`, `Debian clang version 14.0.6`."""
    versions = _VERSION.findall(identity)
    if not versions:
        return None
    if "clang" in identity:
        return "clang", versions[0]
    return ("gcc", versions[-1]) if "gcc" in identity or "GCC" in identity else None


def read_distribution(paths: Paths) -> Distribution:
    for name in OS_RELEASE:
        try:
            with open_regular(paths.resolve(paths.at(name))) as f:
                found = dict(parse_os_release(f.read(SIZE_LIMIT).decode("utf-8", "replace")))
        except (OSError, FormatError):
            continue
        ids = tuple(filter(None, (found.get("ID", "linux"), *found.get("ID_LIKE", "").split())))
        return Distribution(ids, found.get("VERSION_ID"))
    return Distribution(None, None)


def parse_os_release(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found:
            yield found[1], next((g for g in (found[3], found[4]) if g is not None), found[2])
