"""What GRUB finds when it starts: its configuration, its environment block, and files beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from autokmod.errors import FormatError
from autokmod.observe.bls import LoaderEntry

ENV_MAGIC = b"# GRUB Environment Block\n"
ENV_SIZE = 1024
ENV_LINE = re.compile(rb"(?:[^\\\n]|\\.)*\n", re.DOTALL)
DEFAULT = re.compile(r"^\s*(?:export\s+)?GRUB_DEFAULT=(.*?)\s*(?:#.*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GrubLook:
    """`files`: the scripts in its directory that it might read, `names`: all that is there."""

    directory: str  # inside the root: /boot/grub
    script: str
    files: Mapping[str, str]
    names: frozenset[str]
    env: Mapping[str, str]  # of grubenv; empty where there is none
    env_problem: str | None  # why what it says is not known
    entries: tuple[LoaderEntry, ...]  # for blscfg


def parse_grubenv(data: bytes, path: str) -> dict[str, str]:
    """NAME=VALUE lines after the signature, the rest filled with #. Raises FormatError."""
    if not data.startswith(ENV_MAGIC):
        raise FormatError(path, "not a GRUB environment block")
    found = {}
    for line in ENV_LINE.findall(data[len(ENV_MAGIC) :]):
        name, equals, value = line[:-1].partition(b"=")
        if equals and not line.startswith(b"#"):
            found[_text(name)] = _text(re.sub(rb"\\(.)", rb"\1", value, flags=re.DOTALL))
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def parse_grub_default(text: str) -> str | None:
    """GRUB_DEFAULT of /etc/default/grub: what the next grub-mkconfig will write. None: not set."""
    found = DEFAULT.findall(text)
    return found[-1].strip("\"'") if found else None
