"""The step after the modules, while others are at work: package managers, boot loaders, hooks, a person who cancels."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from autokmod.act.generators.suse import SCRIPT
from autokmod.config import Config
from autokmod.jobs.engine import Engine, job_result
from autokmod.jobs.initrd.say import WAIT_LIMIT_S
from autokmod.observe.blob import read_blob
from autokmod.observe.records import read_record
from autokmod.run import Cancel
from tests.realroot import mount
from tests.system.test_initrd import World, word, world

__all__ = ["world"]
pytestmark = [pytest.mark.root, pytest.mark.kbuild]

HOLD = """import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def package_manager(world: World) -> Iterator[None]:
    lock = world.root.paths.at("var/lib/dpkg/lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout is not None
        held.stdout.readline()
        yield
        held.communicate()


def test_a_boot_loader_that_was_not_told(world: World) -> None:
    """The image is good then, and what boots may be another one: only telling it again makes the kernel ready."""
    hook = world.root.path / "etc/initramfs/post-update.d/loader"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    for _ in range(2):
        record = world.reconcile()
        assert (record.initrd_ok, word(record).kind) == (False, "initrd-untold")
    assert world.runs == 1
    hook.write_text('#!/bin/sh\necho "$@" >/tmp/told\n')
    record = world.reconcile()
    assert (record.initrd_ok, word(record).kind, world.runs) == (True, "initrd-right", 1)
    assert (world.root.path / "tmp/told").read_text() == f"{world.krel} /boot/initrd.img-{world.krel}\n"


def test_a_copy_for_the_boot_loader(world: World) -> None:
    """systemd-boot reads no /boot of Debian's: what it has is a copy, which a hook makes, or does not."""
    token, other = "a" * 32, "b" * 32
    (world.root.path / "etc/machine-id").write_text(f"{token}\n")
    copy, others = (world.root.paths.boot / "efi" / t / world.krel / f"initrd.img-{world.krel}" for t in (token, other))
    for path in (copy, others):  # made before the module was there
        path.parent.mkdir(parents=True)
        path.write_bytes(world.image().read_bytes())
    record = world.reconcile()
    assert (record.initrd_ok, word(record).kind) == (False, "initrd-untold"), word(record).text
    assert f"/boot/efi/{token}/{world.krel}" in word(record).text
    assert "it lacks rootdrv" in word(record).text
    hook = world.root.path / "etc/initramfs/post-update.d/loader"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text(f"#!/bin/sh\ncp $2 /boot/efi/{token}/$1/\n")
    hook.chmod(0o755)
    record = world.reconcile()
    assert (record.initrd_ok, word(record).kind, world.runs) == (True, "initrd-right", 1), word(record).text
    assert copy.read_bytes() == world.image().read_bytes() != others.read_bytes()


def test_telling_a_boot_loader_keeps_nobody_waiting(world: World) -> None:
    """A post-update hook may take its time, and must be able to ask: hooks of kernels need the lock."""
    lock = world.root.paths.lock.relative_to(world.root.path)
    hook = world.root.path / "etc/initramfs/post-update.d/loader"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec flock --nonblock /{lock} true\n")
    hook.chmod(0o755)
    record = world.reconcile()
    assert (record.initrd_ok, word(record).kind) == (True, "initrd-refreshed"), word(record).text


def test_a_boot_loader_is_told_after_a_power_cut(world: World) -> None:
    hook = world.root.path / "etc/initramfs/post-update.d/loader"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text(f"#!/bin/sh\ncp /var/lib/autokmod/kernels/{world.krel}.json /tmp/meanwhile\n")
    hook.chmod(0o755)
    assert world.reconcile().initrd_ok
    meanwhile = json.loads((world.root.path / "tmp/meanwhile").read_text())
    assert (meanwhile["initrd_ok"], meanwhile["initrd"]["kind"]) == (False, "initrd-untold")


def in_place(world: World, script: str) -> None:
    """SUSE's way: $image is the one that stands."""
    path = world.root.path / SCRIPT.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho run >>/tmp/runs\nimage=/boot/initrd.img-{world.krel}\n{script}\n")
    path.chmod(0o755)


def test_a_generator_that_fails_in_place_wakes_nobody_for_ever(world: World) -> None:
    """What it wrote and what was put back are both seen by the watcher: it must not be run again for that."""
    in_place(world, "echo rubbish >$image")
    before = world.image().read_bytes()
    record = world.reconcile(asked=False)
    assert (record.initrd_ok, word(record).kind) == (False, "initrd-failed")
    assert not job_result(record).transient
    assert world.image().read_bytes() == before
    assert world.reconcile(asked=False).initrd == record.initrd
    assert world.runs == 1
    assert world.reconcile(asked=True).initrd == record.initrd
    assert world.runs == 2
    world.image().touch()  # somebody was at it
    assert world.reconcile(asked=False).initrd == record.initrd
    assert world.runs == 3
    in_place(world, "mkinitramfs.real -o $image ${image#*img-}")
    assert world.reconcile().initrd_ok


def test_a_kernel_that_goes_while_its_image_is_made_in_place(world: World) -> None:
    """Its image was removed by whoever removed it, and is not put back."""
    state = f"/var/lib/autokmod/kernels/{world.krel}.json"
    in_place(world, f'sed -i \'s/"going": false/"going": true/\' {state}; rm $image')
    assert world.reconcile().going
    assert not world.image().exists()


def test_an_image_that_changes_while_a_package_manager_is_at_work(world: World) -> None:
    """Nobody may be told that all is well, and the look must come once it has finished."""
    assert world.reconcile().initrd_ok
    (world.root.path / "etc/initramfs-tools/modules").write_text("")
    with package_manager(world):
        world.make_image()
        record = world.reconcile()
        assert (record.initrd_ok, word(record).kind) == (False, "initrd-due")
        assert job_result(record).patient
        assert world.reconcile().initrd == record.initrd
    assert world.reconcile().initrd_ok


def test_a_package_manager_that_never_ends(world: World) -> None:
    """A lock may be held for hours by a program that somebody left open."""
    (world.root.path / "etc/initramfs-tools/modules").write_text("rootdrv\n")
    with package_manager(world):
        record = world.reconcile()
        assert "dpkg (/var/lib/dpkg/lock)" in word(record).text
        assert world.reconcile(later_s=WAIT_LIMIT_S - 60) == record
        assert world.runs == 0
        done = world.reconcile(later_s=WAIT_LIMIT_S + 1)
        assert (done.initrd_ok, word(done).kind) == (True, "initrd-refreshed"), word(done).text
        assert done.initrd_waits_since is None


def test_kernel_install_is_waited_for(world: World) -> None:
    """It takes no lock, and whoever runs it by hand holds none either: a generator may be at work below it."""
    (world.root.path / "etc/initramfs-tools/modules").write_text("rootdrv\n")
    plugin = world.root.path / "etc/kernel/install.d/50-slow.install"
    plugin.parent.mkdir(parents=True, exist_ok=True)
    plugin.write_text("#!/bin/sh\necho begun\nread -r _\n")
    plugin.chmod(0o755)
    settings = (
        "KERNEL_INSTALL_PLUGINS=/etc/kernel/install.d/50-slow.install",
        f"MACHINE_ID={'a' * 32}",
        "BOOT_ROOT=/boot",
    )
    command = [
        "chroot",
        str(world.root.path),
        "env",
        *settings,
        "kernel-install",
        "add",
        world.krel,
        f"/boot/vmlinuz-{world.krel}",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kernel_install:
        assert kernel_install.stdout is not None
        assert kernel_install.stdout.readline() == b"begun\n"
        record = world.reconcile()
        assert (record.initrd_ok, word(record).kind, world.runs) == (False, "initrd-due", 0)
        assert "kernel-install (process" in word(record).text
        assert job_result(record).patient
        kernel_install.communicate(b"\n")
    assert kernel_install.returncode == 0
    assert word(world.reconcile()).kind == "initrd-refreshed"


MEANWHILE = "/usr/sbin/mkinitramfs.real -o /boot/theirs {krel} && mv /boot/theirs /boot/initrd.img-{krel}"


def test_what_others_made_meanwhile_stays(world: World) -> None:
    """Whoever began later knows more: an upgrade of cryptsetup, say. Ours is made once more, from their world."""
    (world.root.path / "etc/initramfs-tools/modules").write_text("")
    (world.root.path / "etc/dracut.conf.d/1.conf").write_text('add_drivers+=" rootdrv "\n')
    world.wrap(MEANWHILE.format(krel=world.krel) + "\necho rootdrv >/etc/initramfs-tools/modules")
    before = world.image().stat().st_ino
    record = world.reconcile()
    assert (record.initrd_ok, word(record).kind) == (False, "initrd-due"), word(record).text
    theirs = world.image().stat()
    assert theirs.st_ino != before
    assert world.runs == 1
    world.wrap("")
    assert world.reconcile().initrd_ok


def test_what_hooks_recorded_while_a_generator_failed_stays(world: World) -> None:
    """The removal of this kernel was announced: what was known before must not be written over that."""
    state = f"/var/lib/autokmod/kernels/{world.krel}.json"
    world.wrap(f'sed -i \'s/"going": false/"going": true/\' {state}\nexit 3')
    record = world.reconcile()
    assert record.going
    assert read_record(world.root.paths, world.krel) == record


def test_cancelled(world: World) -> None:
    """It did not fail: it is still due, and nobody is alarmed."""
    begun, cancel = world.root.path / "tmp/begun", Cancel()
    world.wrap("echo >/tmp/begun; sleep 1000")

    def end() -> None:
        while not begun.exists():
            time.sleep(0.05)
        cancel.cancel()

    thread = threading.Thread(target=end)
    thread.start()
    with closing(Engine(world.root.paths, Config(), time.time)) as engine:
        record = engine.reconcile(world.krel, cancel=cancel)
    thread.join()
    assert (record.initrd_ok, word(record).kind) == (False, "initrd-due")


def test_a_boot_that_cannot_be_written(world: World) -> None:
    boot = world.root.paths.boot
    files = {p.name: p.read_bytes() for p in boot.iterdir() if p.is_file()}
    mount("-t", "tmpfs", "tmpfs", str(boot))
    for name, data in files.items():
        (boot / name).write_bytes(data)
    mount("-o", "remount,ro", str(boot))
    record = world.reconcile()
    assert (record.initrd_ok, word(record).kind) == (False, "initrd-failed")
    assert "Read-only file system" in word(record).text
    assert job_result(record).transient


def test_plugins_below_a_generator_know_that_it_is_ours(world: World) -> None:
    """They would wait for the lock that we hold, and queue this very job again without end."""
    world.wrap("env >/tmp/env")
    hook = world.root.path / "etc/initramfs/post-update.d/loader"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text("#!/bin/sh\nenv >/tmp/env2\n")
    hook.chmod(0o755)
    assert world.reconcile().initrd_ok
    for name in ("env", "env2"):
        assert "AUTOKMOD_AT_WORK=1" in (world.root.path / "tmp" / name).read_text().split()


def dracut(world: World, krel: str) -> None:
    """Few modules, or it takes minutes."""
    conf = world.root.path / "etc/dracut.conf.d/1.conf"
    conf.write_text('dracutmodules+=" base kernel-modules "\ndrivers+=" dummy "\nhostonly=no\n')
    done = world.root.chroot("dracut", "--force", f"/boot/initrd.img-{krel}", krel)
    assert done.returncode == 0, done.stdout
    conf.write_text(conf.read_text() + 'drivers+=" rootdrv "\n')


@pytest.mark.parametrize("generator", ["mkinitramfs", "dracut"])
def test_a_module_that_is_a_link_to_another_kernels(world: World, tmp_path: Path, generator: str) -> None:
    """Inside the image, too, it has to lead to a module, and to this one."""
    world.reconcile(world.krels[0])
    krel = world.krels[1]
    if generator == "dracut":
        dracut(world, krel)
    record = world.reconcile(krel)
    assert (record.initrd_ok, word(record).kind) == (True, "initrd-refreshed"), word(record).text
    assert generator == "mkinitramfs" or "dracut" in word(record).text
    (placement,) = record.placements
    assert placement.link_from == world.krels[0]
    subprocess.run(["unmkinitramfs", str(world.image(krel)), str(tmp_path)], check=True)
    (top,) = [d.parent for d in tmp_path.glob("**/usr") if (d / "lib/modules" / krel).is_dir()]
    shown = subprocess.run(
        ["modprobe", "-C", "/dev/null", "-d", str(top), "-S", krel, "--show-depends", "rootdrv"],
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.split()[-1]  # fmt: skip
    wanted = read_blob(world.root.paths.modulesd(krel) / placement.files[0].path)
    assert hashlib.sha256(read_blob(Path(shown).resolve())).digest() == hashlib.sha256(wanted).digest()
    assert Path(shown).resolve().is_relative_to(top)
