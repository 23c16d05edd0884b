"""DKMS's packages taken over, and given back: what starts its builders is masked, the rest of it stays as it is.

What is masked stays so whatever dpkg or rpm do to DKMS afterwards, short of a purge: dpkg keeps the mode of a
configuration file, run-parts passes over what is not executable, and what stands in /etc hides its namesake in /usr.
Hooks that take DKMS's own modules out of a kernel that goes stay in force: nobody else may remove those.

The record is written before anything is changed, so that it names too much after a crash, never too little.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autokmod.errors import NotInstalled, UsageError
from autokmod.files import fsync_dir, locked, write_file, write_json, write_link
from autokmod.jsonvalue import to_json
from autokmod.model import Reason
from autokmod.observe.adopted import FORMAT, Adopted, Mask, Trigger, Way, find_adopted, read_adopted
from autokmod.observe.neighbours import (
    ALPM,
    DKMS,
    HOOKS,
    PASSES_REMOVALS,
    PLUGINS,
    SWITCH,
    UNITS,
    dkms_triggers,
    is_installed,
)
from autokmod.observe.sources import is_package_name, list_sources, read_names
from autokmod.paths import Paths
from autokmod.run import run

MASKED = "/dev/null"
SWITCH_TEXT = b"Made by 'autokmodctl adopt dkms'; 'autokmodctl release dkms' takes it away.\n"
EXECUTABLE = 0o111
TIME_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Handover:
    """What was done, or would be."""

    name: str
    masks: tuple[Mask, ...]  # adopt: newly masked; release: given back
    left: tuple[Reason, ...] = ()  # what could not be given back, or not as it was
    added: tuple[str, ...] = ()  # NAME/VERSION of sources that DKMS was told of


def preview_adopt(paths: Paths, name: str) -> Handover:
    """Raises NotInstalled, UsageError, FormatError."""
    if name != DKMS:
        raise UsageError(f"{name} cannot be adopted, only {DKMS} can")
    if not is_installed(paths, DKMS):
        raise NotInstalled("DKMS")
    return Handover(name, tuple(_mask(paths, trigger) for trigger in dkms_triggers(paths)))


def adopt(paths: Paths, name: str, now: float) -> Handover:
    """Only what is not masked yet. `now` in s since epoch. Raises as preview_adopt, and OSError."""
    with locked(paths.lock):
        wanted = preview_adopt(paths, name)
        before = find_adopted(paths, name)
        adopted = before or Adopted(name, now, (), _unknown_to_dkms(paths))
        new = _remembering(adopted.masks, wanted.masks)
        if before is None or new:
            again = {mask.made for mask in new}
            old = (mask for mask in adopted.masks if mask.made not in again)
            _record(paths, name, replace(adopted, masks=(*old, *new)))
        for mask in new:
            _apply(paths, mask)
        _reload(paths, new)
    return replace(wanted, masks=new)


def preview_release(paths: Paths, name: str) -> Handover | None:
    """None where it is not adopted. Raises UsageError, FormatError."""
    if name != DKMS:
        raise UsageError(f"{name} cannot be released, only {DKMS} can")
    adopted = find_adopted(paths, name)
    if adopted is None:
        return None
    left = tuple(reason for mask in adopted.masks if (reason := _hindrance(paths, mask)) is not None)
    ours = tuple(mask for mask in adopted.masks if _hindrance(paths, mask) is None)
    return Handover(name, ours, left, tuple(_to_add(paths, adopted)))


def release(paths: Paths, name: str) -> Handover | None:
    """Raises as preview_release, and OSError."""
    with locked(paths.lock):
        wanted = preview_release(paths, name)
        if wanted is None:
            return None
        for mask in wanted.masks:
            _undo(paths, mask)
        _reload(paths, wanted.masks)
        failed = tuple(reason for id_ in wanted.added if (reason := _add_to_dkms(paths, id_)) is not None)
        _record(paths, name, None)
    return replace(wanted, left=(*wanted.left, *failed))


# ---- the record ----------------------------------------------------------------------------------


def _record(paths: Paths, name: str, adopted: Adopted | None) -> None:
    kept = [a for a in read_adopted(paths) if a.name != name] + ([adopted] if adopted else [])
    if kept:
        paths.state.mkdir(parents=True, exist_ok=True)
        write_json(paths.adopted, {"format": FORMAT, "adopted": [to_json(a) for a in kept]})
    else:
        paths.adopted.unlink(missing_ok=True)
        fsync_dir(paths.state)


def _remembering(before: Sequence[Mask], new: Sequence[Mask]) -> tuple[Mask, ...]:
    """What was put aside by an earlier run, which was cut short, or whose mask is gone, is still there."""
    kept = {mask.made: mask.kept for mask in before}
    return tuple(replace(mask, kept=mask.kept or kept.get(mask.made)) for mask in new)


# ---- masks ---------------------------------------------------------------------------------------


def _mask(paths: Paths, trigger: Trigger) -> Mask:
    if trigger.way is Way.PACKAGES:
        return Mask(trigger.way, trigger.path, SWITCH)
    found = paths.at(trigger.path)
    made = f"{_first_directory(trigger)}/{os.path.basename(trigger.path)}"
    if trigger.way is Way.HOOK and made == trigger.path and not found.is_symlink():
        return Mask(trigger.way, trigger.path, made, mode=stat.S_IMODE(found.stat().st_mode))
    # Neither run-parts nor kernel-install, systemd or pacman look at such a name.
    kept = f"{made}.autokmod-kept" if made == trigger.path else None
    return Mask(trigger.way, trigger.path, made, kept=kept)


def _first_directory(trigger: Trigger) -> str:
    every = (*HOOKS, PLUGINS, UNITS, ALPM)
    return next(directories[0] for directories in every if os.path.dirname(trigger.path) in directories)


def _apply(paths: Paths, mask: Mask) -> None:
    made = paths.at(mask.made)
    if mask.mode is not None:
        os.chmod(made, mask.mode & ~EXECUTABLE)
        return
    made.parent.mkdir(parents=True, exist_ok=True)
    if mask.kept is not None and mask.path == mask.made:
        os.rename(made, paths.at(mask.kept))
    if mask.way is Way.PACKAGES:
        write_file(made, SWITCH_TEXT)
    elif mask.way is Way.PLUGIN:
        write_file(made, plugin_text(mask), mode=0o755)
    else:
        write_link(made, MASKED)


def plugin_text(mask: Mask) -> bytes:
    """kernel-install's removals are DKMS's still."""
    program = shlex.quote(mask.kept or mask.path)
    return PASSES_REMOVALS + f'[ "${{1-}}" = remove ] && [ -x {program} ] && exec {program} "$@"\nexit 0\n'.encode()


def _hindrance(paths: Paths, mask: Mask) -> Reason | None:
    """Whoever changed a mask meant it. One that is gone hinders nothing, nor one that was given back already."""
    made = paths.at(mask.made)
    if mask.kept is not None and not os.path.lexists(paths.at(mask.kept)):
        return None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not _is_as_made(made, mask):
            return Reason("mask-changed", f"{mask.made} was changed since: it stays as it is now")
    return None


def _is_as_made(made: Path, mask: Mask) -> bool:
    info = made.lstat()
    if mask.mode is not None:
        return not info.st_mode & EXECUTABLE or stat.S_IMODE(info.st_mode) == mask.mode
    if mask.way in (Way.PACKAGES, Way.PLUGIN):
        wanted = SWITCH_TEXT if mask.way is Way.PACKAGES else plugin_text(mask)
        return stat.S_ISREG(info.st_mode) and made.read_bytes() == wanted
    return stat.S_ISLNK(info.st_mode) and os.readlink(made) == MASKED


def _undo(paths: Paths, mask: Mask) -> None:
    """Gone with its package, or by a hand: then there is nothing to take away, and what was kept comes back."""
    made = paths.at(mask.made)
    if mask.mode is not None:
        with contextlib.suppress(FileNotFoundError):
            os.chmod(made, mask.mode)
        return
    if mask.kept is not None and os.path.lexists(paths.at(mask.kept)):
        os.replace(paths.at(mask.kept), made)
    elif os.path.lexists(made) and _is_as_made(made, mask):
        made.unlink()
    if made.parent.is_dir():
        fsync_dir(made.parent)


def _reload(paths: Paths, masks: Sequence[Mask]) -> None:
    """Where systemd runs, it is told of units that changed."""
    if paths.root == Path("/") and paths.at("run/systemd/system").is_dir() and any(m.way is Way.UNIT for m in masks):
        run(["systemctl", "daemon-reload"], timeout_s=TIME_LIMIT_S)


# ---- what DKMS knows -----------------------------------------------------------------------------


def _sources(paths: Paths) -> Iterator[tuple[str, str]]:
    """Those that DKMS can be told of by name and version."""
    for directory in list_sources(paths):
        name, version = read_names(paths, directory)
        if (
            directory == f"{name}-{version}"
            and is_package_name(name, version)
            and (paths.usr_src / directory / "dkms.conf").is_file()
        ):
            yield name, version


def _unknown_to_dkms(paths: Paths) -> tuple[str, ...]:
    tree = paths.at("var/lib/dkms")
    return tuple(f"{n}/{v}" for n, v in _sources(paths) if not os.path.lexists(tree / n / v / "source"))


def _to_add(paths: Paths, adopted: Adopted) -> Iterator[str]:
    """Packages that came meanwhile, and those that DKMS forgot with the last kernel that it had built them for."""
    if is_installed(paths, DKMS):
        yield from (id_ for id_ in _unknown_to_dkms(paths) if id_ not in adopted.unknown)


def _add_to_dkms(paths: Paths, id_: str) -> Reason | None:
    """As its package's postinst would have. DKMS reads dkms.conf in its own way: that is what giving back means."""
    done = run(paths.command(("dkms", "add", id_)), timeout_s=TIME_LIMIT_S, check=False)
    if done.returncode == 0:
        return None
    said = (done.output.strip().splitlines() or ["it said nothing"])[-1]
    return Reason("not-added", f"DKMS did not take {id_}: {said}", hint=f"dkms add {id_}")
