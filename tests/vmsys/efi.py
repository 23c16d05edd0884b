"""The same machine with UEFI firmware (OVMF), whose variables it keeps, and a disk with an EFI system partition.

Until a boot loader is installed there, the firmware is handed a kernel; from then on it finds the boot loader, and that
finds the kernel.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.corpus import run
from tests.vmsys.machine import Machine

OVMF = Path("/usr/share/OVMF")
CODE, VARIABLES = OVMF / "OVMF_CODE_4M.fd", OVMF / "OVMF_VARS_4M.fd"
SIZE_MIB, START, SECTOR = 256, 2048, 512


def why_not() -> str | None:
    missing = [tool for tool in ("mkfs.vfat", "sfdisk") if shutil.which(tool) is None]
    missing += [file.name for file in (CODE, VARIABLES) if not file.exists()]
    return f"the machine needs {', '.join(missing)} (dosfstools, fdisk, ovmf)" if missing else None


def make_esp(image: Path) -> None:
    """A disk that is one partition. Raises CorpusError."""
    with open(image, "wb") as f:
        f.truncate(SIZE_MIB << 20)
    table = f"label: gpt\nstart={START}, type=uefi\n"
    subprocess.run(["sfdisk", "--quiet", str(image)], input=table, text=True, check=True)
    kib = (SIZE_MIB - 2) * 1024  # without the table, and its copy at the end
    run(["mkfs.vfat", "-F", "32", "-n", "ESP", f"--offset={START}", str(image), str(kib)])


class EfiMachine(Machine):
    """`loads`: what boots is the firmware's and its boot loader's choice."""

    loads = False

    def __init__(self, scratch: Path, disk: Path, others: tuple[Path, ...]) -> None:
        super().__init__(scratch, disk, others)
        self.variables, self.esp = scratch / "variables.fd", scratch / "esp.img"
        shutil.copy(VARIABLES, self.variables)
        make_esp(self.esp)

    def _loaded(self, krel: str) -> tuple[str, ...]:
        return () if self.loads else super()._loaded(krel)

    def _drives(self) -> Iterator[str]:
        """The partition is on the last one."""
        yield from super()._drives()
        yield from ("-drive", f"file={self.esp},format=raw,if=virtio,cache=unsafe")
        yield from ("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={CODE}")
        yield from ("-drive", f"if=pflash,format=raw,unit=1,file={self.variables}")
