"""One module made for the purpose, and what the checker has to say of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

FORCED = "the kernel is built with CONFIG_MODULE_FORCE_LOAD: it loads what nobody has compared, and taints itself"
UNCOMPARED = "mainline's loader warns, and loads what nobody has compared; Debian's refuses"
CHANCE = "it depends on what is loaded at that moment"
UNKNOWN_KEY = "files do not tell which keys a kernel trusts"
LIVEPATCH = "a live patch is for one kernel alone: policy"
SIZE = "kernels before 6.4 do not look at the size"
UNREADABLE = "no tool makes such a file, and what cannot be read whole is not called good"

KMOD = "/insmod"  # kmod goes by the name that it is called by
ENFORCE, LOCKDOWN = "module.sig_enforce=1", "lockdown=integrity"


@dataclass(frozen=True, slots=True)
class Made:
    id: str
    name: str  # of the module
    data: bytes
    kind: str | None = None  # of the checker's reason; None: compatible
    doubt: bool = False  # the verdict is unknown, not incompatible
    why: str = ""  # the loader may accept it all the same, because …
    others: tuple[Made, ...] = ()  # inserted before it, and judged in the same set
    symbols: tuple[str, ...] = ()  # whose exporters among the kernel's own modules are loaded before
    options: str = ""  # for the kernel's command line
    suffix: str = ".ko"
    tool: str | None = None
    flags: int = 0


def good(label: str, module: Made, data: bytes | None = None) -> Made:
    return replace(module, id=label, data=module.data if data is None else data)


def bad(label: str, module: Made, data: bytes, kind: str, why: str = "") -> Made:
    return replace(module, id=label, data=data, kind=kind, why=why)


def doubtful(label: str, module: Made, data: bytes, kind: str, why: str) -> Made:
    return replace(module, id=label, data=data, kind=kind, doubt=True, why=why)
