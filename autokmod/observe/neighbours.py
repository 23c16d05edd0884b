"""Who else builds or links out-of-tree modules on this machine: DKMS, akmods, weak-modules, where they really start.

A program that nobody starts is no neighbour, nor are hooks whose program is gone (dpkg keeps configuration files of a
removed package). Hooks that only take away what their owner put into a kernel that goes do not count either: nobody
else may do that. What starts the builders of DKMS 3.0 to 3.4, by their packages:

    /etc/kernel/{postinst,header_postinst}.d/dkms   Debian
    kernel-install's 40-dkms.install                Fedora, RHEL, SUSE; Debian after 12
    dkms.service                                    Fedora, RHEL, SUSE
    pacman's 70-dkms-install.hook                   Arch
    /usr/lib/dkms/common.postinst                   the postinst of every *-dkms package; not with DKMS's own switch
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from autokmod.errors import FormatError
from autokmod.files import open_regular
from autokmod.model import Reason
from autokmod.observe.adopted import Adopted, Trigger, Way, find_adopted
from autokmod.paths import Paths

DKMS, AKMODS, WEAK_MODULES = "dkms", "akmods", "weak-modules"
PROGRAMS = {DKMS: ("/usr/sbin/dkms", "/usr/bin/dkms"), AKMODS: ("/usr/sbin/akmods", "/usr/bin/akmods")}
# RHEL's is called by each kernel's and each kmod's scriptlets, SUSE's likewise, where they find it executable.
SCRIPTLETS = ("/usr/sbin/weak-modules", "/usr/lib/module-init-tools/weak-modules2")
# The first directory that has a name decides about it.
HOOKS = (
    ("/etc/kernel/postinst.d", "/usr/share/kernel/postinst.d"),
    ("/etc/kernel/header_postinst.d", "/usr/share/kernel/header_postinst.d"),
)
PLUGINS = tuple(f"{top}/kernel/install.d" for top in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))
UNITS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
ALPM = ("/etc/pacman.d/hooks", "/usr/share/libalpm/hooks")
POSTINST = "/usr/lib/dkms/common.postinst"
SWITCH = "/etc/dkms/no-autoinstall"
# What stands first in what autokmod puts before DKMS's plugin: it only passes removals on.
PASSES_REMOVALS = b"#!/bin/sh\n# Made by 'autokmodctl adopt dkms'; 'autokmodctl release dkms' takes it away.\n"


@dataclass(frozen=True, slots=True)
class Neighbour:
    name: str
    triggers: tuple[Trigger, ...]  # what starts it
    adopted: bool
    reason: Reason  # who it is and what it does; the hint: what to do


def find_neighbours(paths: Paths) -> tuple[Neighbour, ...]:
    """Cheap, and as any user. DKMS is told of as long as it is adopted, too."""
    found = (_dkms(paths), _akmods(paths), _weak_modules(paths))
    return tuple(neighbour for neighbour in found if neighbour is not None)


def is_installed(paths: Paths, name: str) -> bool:
    return any(_is_live(paths, program, executable=True) for program in PROGRAMS[name])


def dkms_triggers(paths: Paths) -> tuple[Trigger, ...]:
    if not is_installed(paths, DKMS):
        return ()
    hooks = [Trigger(Way.HOOK, p) for directories in HOOKS for p in _effective(paths, directories, "dkms")]
    plugins = [Trigger(Way.PLUGIN, p) for p in _plugins(paths, "*dkms*.install")]
    alpm = [Trigger(Way.ALPM, p) for p in _effective(paths, ALPM, "*dkms-install.hook", executable=False)]
    packages = [Trigger(Way.PACKAGES, POSTINST)] if _builds_for_packages(paths) else []
    return (*hooks, *plugins, *_units(paths, "dkms.service"), *alpm, *packages)


# ---- the three -----------------------------------------------------------------------------------


def _dkms(paths: Paths) -> Neighbour | None:
    triggers = dkms_triggers(paths)
    try:
        adopted = find_adopted(paths, DKMS)
    except FormatError as exc:
        text = f"whether DKMS is adopted is not known: {exc}"
        hint = f"'mv {exc.path} {exc.path}.damaged', then 'autokmodctl adopt dkms' again, if that was meant"
        return Neighbour(DKMS, triggers, adopted=False, reason=Reason("adopted-damaged", text, hint=hint))
    if not triggers and adopted is None:
        return None
    return Neighbour(DKMS, triggers, adopted is not None, _about_dkms(triggers, adopted))


def _about_dkms(triggers: tuple[Trigger, ...], adopted: Adopted | None) -> Reason:
    if adopted is None:
        text = "DKMS is active as well: it builds for new kernels and packages; what it installs is left alone"
        return Reason("neighbour-active", text, hint="'autokmodctl adopt dkms' leaves all of it to autokmod")
    if triggers:
        back = ", ".join(t.path for t in triggers)
        text = f"DKMS is adopted, and builds for new kernels or packages all the same: {back} came back"
        return Reason("neighbour-back", text, hint="'autokmodctl adopt dkms' masks that again")
    return Reason("neighbour-adopted", "DKMS is adopted: it builds nothing by itself until 'autokmodctl release dkms'")


def _akmods(paths: Paths) -> Neighbour | None:
    if not is_installed(paths, AKMODS):
        return None
    plugins = [Trigger(Way.PLUGIN, p) for p in _plugins(paths, "*akmods*.install")]
    triggers = (*plugins, *_units(paths, "akmods.service"))
    if not triggers:
        return None
    text = "akmods is active as well: it builds its own packages for new kernels; what it installs is left alone"
    hint = f"it may stay; to stop it: {'; '.join(map(_mask_command, triggers))}"
    return Neighbour(AKMODS, triggers, adopted=False, reason=Reason("neighbour-active", text, hint=hint))


def _mask_command(trigger: Trigger) -> str:
    name = os.path.basename(trigger.path)
    return f"systemctl mask {name}" if trigger.way is Way.UNIT else f"ln -sf /dev/null {PLUGINS[0]}/{name}"


def _weak_modules(paths: Paths) -> Neighbour | None:
    found = tuple(Trigger(Way.SCRIPTLET, p) for p in SCRIPTLETS if _is_live(paths, p, executable=True))
    if not found:
        return None
    text = "weak-modules is active as well: packages have it link their modules into other kernels; that is left alone"
    reason = Reason("neighbour-active", text, hint="it may stay: nothing is linked twice")
    return Neighbour(WEAK_MODULES, found, adopted=False, reason=reason)


# ---- what is effective ---------------------------------------------------------------------------


def _effective(paths: Paths, directories: tuple[str, ...], pattern: str, *, executable: bool = True) -> Iterator[str]:
    seen: set[str] = set()
    for directory in directories:
        for name in _names(paths, directory, pattern):
            path = f"{directory}/{name}"
            if name not in seen and _is_live(paths, path, executable=executable):
                yield path
            seen.add(name)


def _plugins(paths: Paths, pattern: str) -> Iterator[str]:
    return (p for p in _effective(paths, PLUGINS, pattern) if not _passes_removals(paths, p))


def _passes_removals(paths: Paths, path: str) -> bool:
    with open_regular(paths.resolve(path)) as f:
        return f.read(len(PASSES_REMOVALS)) == PASSES_REMOVALS


def _units(paths: Paths, name: str) -> list[Trigger]:
    """Enabled, and not masked."""
    wanted = any(
        os.path.lexists(paths.at(f"{directory}/{wants}/{name}"))
        for directory in UNITS
        for wants in (*_names(paths, directory, "*.wants"), *_names(paths, directory, "*.requires"))
    )
    return [Trigger(Way.UNIT, p) for p in _effective(paths, UNITS, name, executable=False)] if wanted else []


def _builds_for_packages(paths: Paths) -> bool:
    return _is_live(paths, POSTINST, executable=False) and not paths.at(SWITCH).is_file()


def _names(paths: Paths, directory: str, pattern: str) -> list[str]:
    try:
        return sorted(n for n in os.listdir(paths.resolve(directory)) if fnmatchcase(n, pattern))
    except (FormatError, FileNotFoundError, NotADirectoryError):
        return []


def _is_live(paths: Paths, path: str, *, executable: bool) -> bool:
    """A file that is not empty. A link to /dev/null and an empty file are masks."""
    try:
        file: Path = paths.resolve(path)
        return file.is_file() and file.stat().st_size > 0 and (not executable or bool(file.stat().st_mode & 0o111))
    except (FormatError, OSError):
        return False
