"""A system whose / is an ext4 file system on a disk image, with GRUB's own files made by GRUB's own tools.

grub-mkconfig and grub-probe ask the block device of /, so overlays will not do; and 10_linux takes loop0 to loop9 for
something else, hence a number above those. QEMU starts GRUB itself from the image (lnxboot.img makes it a "kernel").
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autokmod.act.archive import PROGRAM, archive
from autokmod.paths import Paths
from tests.realroot import RealRoot, mount

PACKAGES = ("grub-common", "grub2-common", "grub-pc-bin")
SHARED = ("usr", "etc", "var", "tmp", "run", "root", "home")
MODULES = [
    "biosdisk",
    "ext2",
    "normal",
    "search",
    "search_fs_uuid",
    "configfile",
    "linux",
    "loadenv",
    "test",
    "echo",
    "minicmd",
    "serial",
]
LOOP_ADD, LOOP_REMOVE = 0x4C80, 0x4C81
SIZE = 160 << 20
INIT = r"""
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <unistd.h>
int main(void) {
    struct utsname name;
    uname(&name);
    printf("BOOTED %s\n", name.release);
    fflush(stdout);
    sleep(1); /* for the serial port to be empty */
    reboot(RB_POWER_OFF);
    return 0;
}
"""


@dataclass(frozen=True, slots=True)
class GrubDisk:
    root: RealRoot
    image: Path
    path: Path

    @property
    def paths(self) -> Paths:
        return Paths(self.path)

    def chroot(self, *argv: str) -> str:
        """Its output. Raises CalledProcessError."""
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["chroot", str(self.path), *argv], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def configure(self, default: str, *more: str) -> None:
        """/etc/default/grub, and update-grub."""
        directory = self.path / "etc/default"
        directory.mkdir(exist_ok=True)
        lines = (f"GRUB_DEFAULT={default}", "GRUB_DISTRIBUTOR=Debian", "GRUB_TIMEOUT=0", *more)
        (directory / "grub").write_text("".join(f"{line}\n" for line in lines))
        (self.path / "boot/grub").mkdir(exist_ok=True)
        self.chroot("grub-mkconfig", "-o", "/boot/grub/grub.cfg")

    def grubenv(self) -> str:
        return self.chroot("grub-editenv", "/boot/grub/grubenv", "list")

    # ---- booting

    def make_bootable(self, scratch: Path) -> Path:
        """GRUB itself, as QEMU starts it."""
        mods = self.path / "usr/lib/grub/i386-pc"
        shutil.copytree(mods, self.path / "boot/grub/i386-pc")
        core = ("grub-mkimage", "-O", "i386-pc", "-p", "(hd0)/boot/grub", "-o", "/boot/grub/core.img", *MODULES)
        self.chroot(*core)
        started = scratch / "grub.lnx"
        started.write_bytes((mods / "lnxboot.img").read_bytes() + (self.path / "boot/grub/core.img").read_bytes())
        return started

    def add_initrds(self, scratch: Path) -> None:
        """Each kernel says who it is, and that is all."""
        (scratch / "init.c").write_text(INIT)
        subprocess.run(["gcc", "-static", "-O2", "-o", scratch / "init", scratch / "init.c"], check=True)
        data = archive({"init": (scratch / "init").read_bytes()}, PROGRAM)
        for image in self.paths.boot.glob("vmlinuz-*"):
            image.with_name(image.name.replace("vmlinuz", "initrd.img")).write_bytes(data)

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[Path]:
        """The image as it would be after a shutdown: GRUB reads no journal."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)
        try:
            yield self.image
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(self.path)], check=True)


@contextlib.contextmanager
def made(root: RealRoot) -> Iterator[GrubDisk]:
    with tempfile.TemporaryDirectory(prefix="autokmod-grub-") as scratch, contextlib.ExitStack() as stack:
        image, path = Path(scratch) / "disk.img", Path(scratch) / "root"
        path.mkdir()
        os.chmod(scratch, 0o755)
        with open(image, "wb") as f:
            f.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-L", "autokmod", str(image)], check=True)
        mount("-o", f"loop={stack.enter_context(loop())}", str(image), str(path))
        stack.callback(subprocess.run, ["umount", "--recursive", str(path)], check=True)
        _fill(root, path)
        yield GrubDisk(root, image, path)


def _fill(root: RealRoot, path: Path) -> None:
    for name in SHARED:
        (path / name).mkdir()
        mount("--rbind", str(root.path / name), str(path / name))
    for link in root.path.iterdir():
        if link.is_symlink():
            (path / link.name).symlink_to(os.readlink(link))
    shutil.copytree(root.paths.boot, path / "boot")
    for name in ("proc", "sys", "dev"):
        (path / name).mkdir()
    mount("-t", "proc", "proc", str(path / "proc"))
    mount("--rbind", "/dev", str(path / "dev"))


@contextlib.contextmanager
def loop() -> Iterator[str]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = _free_number(control)
        yield f"/dev/loop{number}"
        with contextlib.suppress(OSError):  # it goes by itself as soon as it is let go
            fcntl.ioctl(control, LOOP_REMOVE, number)
    finally:
        os.close(control)


def _free_number(control: int) -> int:
    for number in range(70, 200):
        with contextlib.suppress(FileExistsError):
            return int(fcntl.ioctl(control, LOOP_ADD, number))
    raise OSError("no loop device is free")
