"""Tells the boot loader what to boot by default, with its own tools, and believes it when it is read back."""

from __future__ import annotations

import os
from pathlib import Path

from autokmod.act.initrd import AT_WORK
from autokmod.errors import AutokmodError
from autokmod.files import write_json
from autokmod.model import GuardState, KeptOut, Reason
from autokmod.observe.bootguard import guard_to_json
from autokmod.paths import Paths
from autokmod.run import run

EDITENV = ("grub-editenv", "grub2-editenv")
LIMIT_S = 60
ENTRY_LIMIT_S = 900  # it makes an initrd
LETS_IN = "AUTOKMOD_LETS_IN"  # our plugin does not stop kernel-install for the kernel that it names
# What GRUB itself calls unwritable (check_writable of its 00_header): what it should change after a boot would stay.
UNWRITABLE = frozenset({"btrfs", "cpiofs", "newc", "odc", "romfs", "squashfs", "squash4", "tarfs", "zfs"})


class GuardFailed(AutokmodError):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the default boot entry could not be changed: {self.why}"


def tell_grub(paths: Paths, directory: str, entry: str) -> None:
    """`directory` inside the root; "" for `entry`: nothing is saved. Raises GuardFailed, AutokmodError, OSError."""
    file = f"{directory}/grubenv"
    change = ("set", f"saved_entry={entry}") if entry else ("unset", "saved_entry")
    tool = next((t for t in EDITENV if _is_there(paths, t)), EDITENV[0])
    run(paths.command((tool, file, *change)), timeout_s=LIMIT_S)


def tell_systemd_boot(paths: Paths, entry: str) -> None:
    """Raises AutokmodError, OSError."""
    under_systemd = paths.root == Path("/") and Path("/run/systemd/system").is_dir()
    run(paths.command(bootctl_cmd(entry, under_systemd=under_systemd)), timeout_s=LIMIT_S)


def bootctl_cmd(entry: str, *, under_systemd: bool) -> tuple[str, ...]:
    """The kernel keeps EFI variables immutable, and our service has no right to change that: systemd has it done."""
    outside = ("systemd-run", "--wait", "--pipe", "--collect", "--quiet", "--") if under_systemd else ()
    return (*outside, "bootctl", "set-default", entry)


def add_entry(paths: Paths, kept: KeptOut) -> None:
    """kernel-install once more, and not stopped this time. Raises GuardFailed, AutokmodError, OSError."""
    krel = kept.kernel
    images = (kept.image, f"/usr/lib/modules/{krel}/vmlinuz", f"/boot/vmlinuz-{krel}")
    image = next((i for i in images if _is_file(paths, i)), None)
    if image is None:
        raise GuardFailed(f"{kept.image} is not there any more")
    argv = ("kernel-install", "add", krel, image, *(i for i in kept.initrds if _is_file(paths, i)))
    run(paths.command(argv), timeout_s=ENTRY_LIMIT_S, env={**AT_WORK, LETS_IN: krel})


def _is_file(paths: Paths, inside: str) -> bool:
    return paths.resolve(paths.at(inside)).is_file()


def _is_there(paths: Paths, tool: str) -> bool:
    return any(paths.at(f"{place}/{tool}").exists() for place in ("usr/bin", "usr/sbin", "bin", "sbin"))


def write_guard(paths: Paths, state: GuardState) -> None:
    paths.boot_guard.parent.mkdir(parents=True, exist_ok=True)
    write_json(paths.boot_guard, guard_to_json(state))


# ---- grubenv -------------------------------------------------------------------------------------


def find_grubenv_obstacle(paths: Paths, directory: str) -> Reason | None:
    """Why grubenv cannot be relied upon: GRUB writes into the file's blocks, and cannot do so everywhere."""
    file = paths.resolve(paths.at(f"{directory}/grubenv"))
    try:
        info = file.stat()
    except FileNotFoundError:
        hint = f"grub-editenv {directory}/grubenv create"
        return Reason("guard-no-grubenv", f"there is no {directory}/grubenv", hint=hint)
    if info.st_size == 0 or info.st_size % 512:
        return Reason(
            "guard-grubenv-odd", f"{directory}/grubenv has {info.st_size} bytes, which GRUB does not write to"
        )
    kind, device = _filesystem(file)
    if kind in UNWRITABLE:
        return Reason("guard-unwritable", f"{directory}/grubenv is on {kind}, which GRUB cannot write to")
    layer = _layer(device)
    if layer is not None:
        return Reason("guard-unwritable", f"{directory}/grubenv is on {layer}, which GRUB cannot write to")
    return None


def _filesystem(file: Path) -> tuple[str, str]:
    """Type, and MAJOR:MINOR, of what is mounted where the file is (proc(5), mountinfo)."""
    device = file.stat().st_dev
    best = ("", f"{os.major(device)}:{os.minor(device)}", "")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        fields, point = before.split(), _unescape(before.split()[4])
        is_above = point == "/" or str(file) == point or str(file).startswith(f"{point}/")
        if is_above and len(point) >= len(best[2]):
            best = (after.split()[0], fields[2], point)
    return best[0], best[1]


def _unescape(text: str) -> str:
    for char in " \t\n\\":
        text = text.replace(f"\\{ord(char):03o}", char)
    return text


def _layer(device: str) -> str | None:
    """LVM and RAID, anywhere below the file system."""
    block = Path("/sys/dev/block") / device
    if (block / "md").is_dir():
        return "software RAID"
    if (block / "dm/uuid").is_file() and (block / "dm/uuid").read_text(encoding="ascii").startswith("LVM-"):
        return "LVM"
    below = (block / "slaves").iterdir() if (block / "slaves").is_dir() else ()
    found = (_layer(s.joinpath("dev").read_text(encoding="ascii").strip()) for s in below)
    return next((layer for layer in found if layer), None)
