"""What makes a kernel load only signed modules, beside its configuration and Secure Boot: how it will be booted.

In order: the boot loader's entries for this kernel; what new entries are made from; how the running one was booted.
The first of these that there is, counts.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.files import open_regular
from autokmod.paths import Paths

ENTRIES = ("boot/loader/entries", "efi/loader/entries", "boot/efi/loader/entries")  # of the boot loader specification
GRUB = ("boot/grub/grub.cfg", "boot/grub2/grub.cfg", "boot/efi/EFI/fedora/grub.cfg")
GRUB_LINUX = re.compile(r"^\s*linux(?:16|efi)?\s+(\S+)(.*)$", re.MULTILINE)
DEFAULTS = re.compile(r"^\s*GRUB_CMDLINE_LINUX(?:_DEFAULT)?=(.*)$", re.MULTILINE)
SIZE_LIMIT = 4 << 20
LOCKED = ("[integrity]", "[confidentiality]")


@dataclass(frozen=True, slots=True)
class BootFacts:
    """`options`: words of every command line that this kernel may get. The rest is about the running kernel."""

    options: frozenset[str] = frozenset()
    is_running: bool = False
    locked_down: bool = False
    enforces_now: bool = False


def read_boot_facts(paths: Paths, krel: str) -> BootFacts:
    return BootFacts(
        frozenset(word for line in _command_lines(paths, krel) for word in split_options(line)),
        is_running=paths.root == Path("/") and os.uname().release == krel,
        locked_down=any(mark in _read(paths, "sys/kernel/security/lockdown") for mark in LOCKED),
        enforces_now=_read(paths, "sys/module/module/parameters/sig_enforce").strip() == "Y",
    )


def _command_lines(paths: Paths, krel: str) -> list[str]:
    own = [*_loader_entries(paths, krel), *_grub_entries(paths, krel)]
    if own:
        return own
    if paths.at("etc/kernel/cmdline").exists():
        return [_read(paths, "etc/kernel/cmdline")]
    defaults = parse_grub_defaults(_read(paths, "etc/default/grub"))
    return defaults or [_read(paths, "proc/cmdline")]


def _loader_entries(paths: Paths, krel: str) -> Iterator[str]:
    for directory in ENTRIES:
        for name in _names(paths, directory):
            yield from parse_loader_entry(_read(paths, f"{directory}/{name}"), krel)


def parse_loader_entry(text: str, krel: str) -> list[str]:
    """The options of an entry that is of this kernel."""
    pairs = [(key, value.strip()) for key, _, value in (line.strip().partition(" ") for line in text.splitlines())]
    is_its = any(key == "version" and value == krel for key, value in pairs)
    is_its = is_its or any(key in ("linux", "efi", "uki") and names_kernel(value, krel) for key, value in pairs)
    return [" ".join(value for key, value in pairs if key == "options")] if is_its else []


def _grub_entries(paths: Paths, krel: str) -> list[str]:
    found = (GRUB_LINUX.findall(_read(paths, file)) for file in GRUB)
    return [options for entries in found for image, options in entries if names_kernel(image, krel)]


def names_kernel(image: str, krel: str) -> bool:
    """…/vmlinuz-KREL, …/KREL/linux, …/ID-KREL.efi; but not 6.1.0-5 in 6.1.0-55."""
    return re.search(rf"(?:^|[-/]){re.escape(krel)}(?:$|/|\.efi$)", image) is not None


def parse_grub_defaults(text: str) -> list[str]:
    return [" ".join(split_options(value)) for value in DEFAULTS.findall(text)]


def split_options(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=False)
    except ValueError:  # a quotation mark without its twin
        return line.split()


def _names(paths: Paths, directory: str) -> list[str]:
    try:
        return sorted(n for n in os.listdir(paths.resolve(paths.at(directory))) if n.endswith(".conf"))
    except (OSError, FormatError):
        return []


def _read(paths: Paths, file: str) -> str:
    """Nothing where it is not there, or not for this user."""
    try:
        with open_regular(paths.resolve(paths.at(file))) as f:
            return f.read(SIZE_LIMIT).decode("utf-8", "replace")
    except (OSError, FormatError):
        return ""
