"""What a quick look tells of one kernel: from the disk, as any user, without reading a single module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autokmod.model import Kernel, KernelRecord, Reason
from autokmod.observe.secureboot import Firmware


@dataclass(frozen=True, slots=True)
class Source:
    """A directory that holds a package, by its name alone: nothing in it was read."""

    name: str
    version: str

    @property
    def id(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def directory(self) -> str:
        return f"{self.name}-{self.version}"


@dataclass(frozen=True, slots=True)
class Sight:
    kernel: Kernel
    record: KernelRecord | None
    sources: tuple[Source, ...] = ()
    running: bool = False
    doubts: tuple[Reason, ...] = ()  # why the record as a whole is not believed
    changed: Mapping[str, tuple[Reason, ...]] = field(default_factory=dict)  # package name → what is not as recorded
    firmware: Firmware | None = None  # looked at where the kernel loads only signed modules
    boot_id: str | None = None  # of the running kernel
