"""New kernels that are not ready, put to systemd's own kernel-install: who gets a boot entry, and when."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import closing

import pytest

from autokmod.config_load import load_config
from autokmod.jobs.engine import Engine
from autokmod.jobs.machine import read_next_boot
from autokmod.jobs.spool import Spool
from autokmod.model import Job, JobResult, KeptOut, Verb
from autokmod.observe.bootguard import read_guard
from autokmod.run import Cancel
from tests.conftest import MakeRoot
from tests.corpus import CHECKOUT, Corpus
from tests.realroot import RealRoot
from tests.system.test_bootguard_real import CONF, MAKE, SOURCE

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

FILES = {"dkms.conf": CONF, "make.sh": MAKE, "guarded.c": SOURCE, "Makefile": "obj-m := guarded.o\n"}
LATER = '#!/bin/sh\necho "$1 $2" >>/var/tmp/later\n'  # whatever stands between us and the entry, as 20-grub does
# In a chroot nobody may make the namespaces of the build sandbox.
INSIDE = """set -e
mount --rbind "$1" "$1"
cd "$1"
mkdir -p .before
pivot_root . .before
umount --lazy /.before
shift
exec "$@"
"""
HOLD = "[boot_guard]\nhold = true\n"


class World:
    """systemd-boot's layout. The package does not build for the newer kernel."""

    def __init__(self, root: RealRoot, older: str, newer: str) -> None:
        self.root, self.older, self.newer = root, older, newer
        self.path, self.paths = root.path, root.paths
        root.install_autokmod()
        self.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        self.write("etc/kernel/cmdline", "root=/dev/sda\n")
        self.write("boot/EFI/systemd/systemd-bootx64.efi", "")
        self.write("boot/loader/entries.srel", "type1\n")
        self.write("etc/kernel/install.d/20-later.install", LATER)
        (self.path / "etc/kernel/install.d/20-later.install").chmod(0o755)
        self.write("etc/autokmod/packages.d/guarded.toml", "required = true\n")
        self.write("etc/autokmod/autokmod.toml", HOLD)
        self.source = root.add_source("guarded", "1", {**FILES, f"broken-{newer}": ""})
        for krel in (older, newer):
            assert root.chroot("depmod", krel).returncode == 0

    def write(self, file: str, text: str) -> None:
        (self.path / file).parent.mkdir(parents=True, exist_ok=True)
        (self.path / file).write_text(text)

    def kernel_install(self, verb: str, krel: str, **env: str) -> str:
        image = (f"/boot/vmlinuz-{krel}",) if verb == "add" else ()
        """What ours said."""
        self.root.chroot("true")  # /proc and /dev are there then
        argv = ["unshare", "--mount", "sh", "-c", INSIDE, "sh", str(self.path), "kernel-install", verb, krel, *image]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **env}
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        return "".join(line for line in done.stdout.splitlines(keepends=True) if line.startswith("autokmod:"))

    def job(self, krel: str, now: float | None = None) -> JobResult:
        clock = time.time if now is None else lambda: now
        with closing(Engine(self.paths, load_config(self.paths), clock)) as engine:
            return engine.run_job(Job(Verb.RECONCILE, krel, "admin", 0.0), Cancel(), lambda _: None)

    def mend(self) -> None:
        (self.source / f"broken-{self.newer}").unlink()

    def entries(self) -> set[str]:
        """Kernels that systemd-boot would show."""
        texts = [f.read_text() for f in (self.path / "boot/loader/entries").glob("*.conf")]
        return {line.split()[1] for text in texts for line in text.splitlines() if line.startswith("version")}

    def kept_out(self) -> tuple[KeptOut, ...]:
        return read_guard(self.paths).kept_out

    def later(self) -> list[str]:
        log = self.path / "var/tmp/later"
        return log.read_text().splitlines() if log.exists() else []

    def status(self) -> str:
        argv = [sys.executable, "-m", "autokmod.ctl.main", "--root", str(self.path), "status"]
        return subprocess.run(argv, capture_output=True, text=True).stdout


@pytest.fixture
def world(real_root: MakeRoot, corpus: Corpus) -> World:
    """The older kernel is ready, and the default."""
    older, newer = corpus.trio.other, corpus.trio.first
    world = World(real_root(kernels=(older, newer)), older, newer)
    assert world.kernel_install("add", older) == ""
    assert world.entries() == {older}, "not ready either, but the only one"
    assert world.job(older).result == "done"
    assert read_next_boot(world.paths).krel == older
    (world.path / "var/tmp/later").unlink()
    return world


def test_a_kernel_that_waits_for_its_entry(world: World) -> None:
    older, newer = world.older, world.newer
    assert f"{newer} gets no boot entry yet: guarded" in world.kernel_install("add", newer)
    assert (world.entries(), world.later()) == ({older}, [])
    (kept,) = world.kept_out()
    assert (kept.kernel, kept.image, kept.initrds) == (newer, f"/boot/vmlinuz-{newer}", ())
    assert (Verb.RECONCILE, newer) in [(j.verb, j.krel) for j in Spool(world.paths).jobs()]
    assert f"boot guard: no boot entry yet: {newer} (guarded" in world.status()

    assert world.job(newer).result == "failed"
    assert (world.entries(), len(world.kept_out())) == ({older}, 1)
    assert "broken on purpose" in world.kept_out()[0].why.text
    assert read_next_boot(world.paths).krel == older

    world.kernel_install("add", newer, AUTOKMOD_AT_WORK="1")  # an initrd generator's hook, for instance
    assert world.entries() == {older}
    assert world.kept_out()[0].since == kept.since

    world.mend()
    assert world.job(newer).result == "done"
    assert (world.entries(), world.kept_out()) == ({older, newer}, ())
    assert world.later() == [f"add {newer}"]
    assert read_next_boot(world.paths).krel == newer
    assert "no boot entry" not in world.status()


def test_nobody_asked_for_it(world: World) -> None:
    (world.path / "etc/autokmod/autokmod.toml").unlink()
    assert world.kernel_install("add", world.newer) == ""
    assert world.entries() == {world.older, world.newer}
    assert world.kept_out() == ()


def test_one_that_is_ready_at_once(world: World) -> None:
    world.mend()
    world.job(world.newer)
    assert world.kernel_install("add", world.newer) == ""
    assert world.entries() == {world.older, world.newer}


def test_one_that_has_an_entry_keeps_it(world: World) -> None:
    """What it is for, then, is a new initrd."""
    world.kernel_install("add", world.newer, AUTOKMOD_LETS_IN=world.newer)
    assert world.kernel_install("add", world.newer) == ""
    assert world.later() == [f"add {world.newer}"] * 2
    assert world.kept_out() == ()


def test_its_bound(world: World) -> None:
    world.kernel_install("add", world.newer)
    world.job(world.newer, now=time.time() + 86401)
    assert (world.entries(), world.kept_out()) == ({world.older, world.newer}, ())


def test_a_daemon_that_never_comes(world: World) -> None:
    """Whoever runs kernel-install after the time is over need not wait for it."""
    world.kernel_install("add", world.newer)
    path = world.paths.boot_guard
    state = json.loads(path.read_text())
    state["kept_out"][0]["since"] -= 86401
    path.write_text(json.dumps(state))
    world.kernel_install("add", world.newer)
    assert (world.entries(), world.kept_out()) == ({world.older, world.newer}, ())


def test_what_the_machine_relies_on_goes(world: World) -> None:
    world.kernel_install("add", world.newer)
    world.kernel_install("remove", world.older)
    assert (world.entries(), world.kept_out()) == ({world.newer}, ())


def test_another_kernel_goes(world: World) -> None:
    world.kernel_install("add", world.newer)
    world.kernel_install("remove", "6.1.0-1-amd64")
    assert world.entries() == {world.older}


def test_it_goes_itself(world: World) -> None:
    world.kernel_install("add", world.newer)
    world.kernel_install("remove", world.newer)
    world.root.remove_kernel(world.newer)
    world.job(world.older)
    assert (world.entries(), world.kept_out()) == ({world.older}, ())


@pytest.mark.parametrize("what", ["hold", "required", "disabled"])
def test_nothing_is_asked_for_any_more(world: World, what: str) -> None:
    world.kernel_install("add", world.newer)
    packages = world.path / "etc/autokmod/packages.d/guarded.toml"
    if what == "hold":
        (world.path / "etc/autokmod/autokmod.toml").unlink()
    elif what == "required":
        packages.unlink()
    else:
        packages.write_text("required = true\nenabled = false\n")
    world.job(world.newer)
    assert (world.entries(), world.kept_out()) == ({world.older, world.newer}, ())


def test_the_package_is_gone_and_still_required(world: World) -> None:
    """Only the administrator can say what is meant: it is said, and the time goes on."""
    world.kernel_install("add", world.newer)
    shutil.rmtree(world.source)
    world.job(world.newer)
    assert [k.why.kind for k in world.kept_out()] == ["required-absent"]
    assert "guarded is required, and not on this machine" in world.status()
    world.job(world.newer, now=time.time() + 86401)
    assert world.entries() == {world.older, world.newer}


def crash(world: World) -> None:
    (world.path / "usr/libexec/autokmod/hook").write_text("#!/bin/sh\nkill -SEGV $$\n")


def hang(world: World) -> None:
    (world.path / "usr/libexec/autokmod/hook").write_text("#!/bin/sh\nexec sleep 1000\n")
    for file in ("usr/lib/kernel/install.d/10-autokmod.install", "usr/libexec/autokmod/kernel-event"):
        text = (world.path / file).read_text()
        assert "\nlimit=60 " in text
        (world.path / file).write_text(text.replace("\nlimit=60 ", "\nlimit=1 "))


def lose_python(world: World) -> None:
    (world.path / "usr/lib/autokmod/python/autokmod/jobs/keepout.py").unlink()
    for cached in (world.path / "usr/lib/autokmod/python/autokmod/jobs/__pycache__").glob("keepout.*"):
        cached.unlink()


def misconfigure(world: World) -> None:
    world.write("etc/autokmod/autokmod.toml", "[boot_guard]\nhold = 3\n")


def damage(world: World) -> None:
    world.paths.boot_guard.write_text("{")


@pytest.mark.parametrize("how", [crash, hang, lose_python, misconfigure, damage])
def test_whatever_goes_wrong_it_gets_its_entry(world: World, how: object) -> None:
    assert callable(how)
    how(world)
    world.kernel_install("add", world.newer)
    assert world.entries() == {world.older, world.newer}


def test_not_while_a_package_manager_is_at_work(world: World) -> None:
    """It may be making the initrd of that very kernel."""
    world.kernel_install("add", world.newer)
    world.mend()
    world.write("var/lib/pacman/db.lck", "")
    result = world.job(world.newer)
    assert (result.result, result.transient, result.patient) == ("failed", True, True), "tried again soon"
    assert world.entries() == {world.older}
    (world.path / "var/lib/pacman/db.lck").unlink()
    assert world.job(world.newer).result == "done"
    assert (world.entries(), world.kept_out()) == ({world.older, world.newer}, ())


def test_an_entry_that_cannot_be_made(world: World) -> None:
    """It is tried again, and said meanwhile."""
    world.kernel_install("add", world.newer)
    plugin = world.path / "etc/kernel/install.d/20-later.install"
    plugin.write_text("#!/bin/sh\nexit 3\n")
    world.mend()
    world.job(world.newer)
    assert world.entries() == {world.older}
    assert "its boot entry could not be made" in world.status()
    plugin.write_text(LATER)
    world.job(world.newer)
    assert (world.entries(), world.kept_out()) == ({world.older, world.newer}, ())


def test_uninstalled_meanwhile(world: World) -> None:
    """Nobody would come any more to let it in."""
    world.kernel_install("add", world.newer)
    shutil.copy(CHECKOUT / "systemd/activate", world.path / "tmp/activate")
    done = world.root.chroot("/tmp/activate", "uninstall", "", "/usr/sbin")
    assert done.returncode == 0, done.stdout
    assert (world.entries(), world.kept_out()) == ({world.older, world.newer}, ())


def test_its_files_are_deleted_meanwhile(world: World) -> None:
    """The plugin goes with everything else: the next kernel-install asks nobody."""
    world.kernel_install("add", world.newer)
    for plugin in (world.path / "usr/lib/kernel/install.d").glob("*-autokmod.install"):
        plugin.unlink()
    world.kernel_install("add", world.newer)
    assert world.entries() == {world.older, world.newer}
