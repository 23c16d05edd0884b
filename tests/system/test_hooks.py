"""The hooks, called as kernel-install and Debian's maintainer scripts call them, in a whole system.

Whatever is broken, they exit 0 and say nothing: anything else would leave a kernel without a boot entry, or apt stuck.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from autokmod.jobs.spool import Spool
from autokmod.model import Verb
from tests import realroot
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.realroot import RealRoot, mount

pytestmark = pytest.mark.root

KREL = "6.1.0-1-amd64"
IMAGE = f"/boot/vmlinuz-{KREL}"
EVENT = "/usr/libexec/autokmod/kernel-event"
PLUGINS = "/usr/lib/kernel/install.d"
DEBIAN = {
    "postinst.d": (KREL, IMAGE),
    "prerm.d": (KREL, IMAGE),
    "postrm.d": (KREL, IMAGE),
    "header_postinst.d": (KREL,),
}


@pytest.fixture
def system(real_root: MakeRoot) -> RealRoot:
    """To be damaged: autokmod is installed; there is no kernel, and systemd does not run."""
    return prepared(real_root())


@pytest.fixture(scope="module")
def whole_system(corpus: Corpus) -> Iterator[RealRoot]:
    with TemporaryDirectory(prefix="autokmod-test-") as scratch, realroot.made(Path(scratch), corpus) as root:
        yield prepared(root)


@pytest.fixture
def sound(whole_system: RealRoot) -> RealRoot:
    """The same, but the next test gets it too."""
    for file in whole_system.paths.spool.glob("*"):
        file.unlink()
    return whole_system


def prepared(root: RealRoot) -> RealRoot:
    root.install_autokmod()
    (root.path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root.path / "boot" / Path(IMAGE).name).write_bytes(b"a kernel image")
    return root


def queued(root: RealRoot) -> list[tuple[Verb, str, str]]:
    entries, problems = Spool(root.paths).read()
    assert not problems
    assert not list(root.paths.spool.glob(".*"))
    return [(e.job.verb, e.job.krel, e.job.why) for e in entries]


def succeed(root: RealRoot, *argv: str, **env: str) -> str:
    done = root.chroot(*argv, **env)
    assert done.returncode == 0, done.stdout
    return done.stdout


def kernel_install(root: RealRoot, *args: str) -> str:
    """With all plugins of this system and GRUB's layout: no entry directory. Returns what ours said."""
    output = succeed(root, "kernel-install", *args, BOOT_ROOT="/boot")
    return "\n".join(line for line in output.splitlines() if line.startswith("autokmod:"))


def run_parts(root: RealRoot, directory: str, params: str | None) -> str:
    """As linux-run-hooks does."""
    args = [f"--arg={a}" for a in DEBIAN[directory]]
    env = {} if params is None else {"DEB_MAINT_PARAMS": params}
    return succeed(root, "run-parts", "--report", "--exit-on-error", *args, f"/etc/kernel/{directory}", **env)


def every_hook(root: RealRoot) -> Iterator[str]:
    for verb in ("add", "remove"):
        yield kernel_install(root, verb, KREL, *([IMAGE] if verb == "add" else []))
    for directory in DEBIAN:
        yield run_parts(root, directory, None)


# ---- who says what --------------------------------------------------------------------------------


def test_kernel_install_add(sound: RealRoot) -> None:
    assert kernel_install(sound, "add", KREL, IMAGE) == ""
    assert queued(sound) == [(Verb.RECONCILE, KREL, "kernel-install")]


def test_kernel_install_without_the_fast_path_queues_at_each_end(sound: RealRoot) -> None:
    """45 before the initrd is made, 95 when the entry is written: each must do without the other."""
    for plugin in ("45-autokmod.install", "95-autokmod.install"):
        succeed(sound, f"{PLUGINS}/{plugin}", "add", KREL, f"/boot/0123/{KREL}", IMAGE)
        assert queued(sound) == [(Verb.RECONCILE, KREL, "kernel-install")]
        (sound.paths.spool / f"reconcile-{KREL}.json").unlink()


def test_kernel_install_remove_withdraws_what_was_queued(sound: RealRoot) -> None:
    kernel_install(sound, "add", KREL, IMAGE)
    assert kernel_install(sound, "remove", KREL) == ""
    assert [job for job in queued(sound) if job[0] is Verb.RECONCILE] == []


def test_kernel_install_called_by_a_generator_that_autokmod_runs(sound: RealRoot) -> None:
    """It would queue the very job that runs, and wait for the lock that this job holds."""
    succeed(sound, "kernel-install", "add", KREL, IMAGE, BOOT_ROOT="/boot", AUTOKMOD_AT_WORK="1")
    assert queued(sound) == []


def test_kernel_install_knows_verbs_that_we_do_not(sound: RealRoot) -> None:
    for plugin in ("45-autokmod.install", "95-autokmod.install"):
        assert succeed(sound, f"{PLUGINS}/{plugin}", "inspect", KREL) == ""
        assert succeed(sound, f"{PLUGINS}/{plugin}") == ""
    assert queued(sound) == []


ADDED = [(Verb.RECONCILE, KREL, "debian-postinst")]
GONE = [(Verb.RECONCILE, KREL, "debian-postrm")]
HEADERS = [(Verb.RECONCILE, KREL, "debian-headers")]
NOTHING: list[tuple[Verb, str, str]] = []


@pytest.mark.parametrize(
    ("directory", "params", "expected"),
    [
        ("postinst.d", "'configure' '6.1.1-1'", ADDED),
        ("postinst.d", "configure 6.1.1-1", ADDED),
        ("postinst.d", "'configure'", ADDED),
        ("postinst.d", None, ADDED),
        ("postinst.d", "'abort-remove'", ADDED),
        ("postinst.d", "'abort-upgrade' '6.1.1-1'", NOTHING),
        ("postinst.d", "'configured; touch /x'", NOTHING),
        ("header_postinst.d", "'configure' ''", HEADERS),
        ("header_postinst.d", None, HEADERS),
        ("header_postinst.d", "'abort-upgrade'", NOTHING),
        ("prerm.d", "'upgrade' '6.1.2-1'", NOTHING),
        ("prerm.d", "'failed-upgrade' '6.1.2-1'", NOTHING),
        ("postrm.d", "'remove'", GONE),
        ("postrm.d", "'purge'", GONE),
        ("postrm.d", "'upgrade' '6.1.2-1'", NOTHING),
        ("postrm.d", "'disappear' 'other'", NOTHING),
    ],
)
def test_debian(sound: RealRoot, directory: str, params: str | None, expected: list[tuple[Verb, str, str]]) -> None:
    assert run_parts(sound, directory, params) == ""
    assert queued(sound) == expected


def test_debian_hooks_have_names_that_run_parts_takes(sound: RealRoot) -> None:
    for directory in DEBIAN:
        assert succeed(sound, "run-parts", "--test", f"/etc/kernel/{directory}").split() == [
            f"/etc/kernel/{directory}/autokmod"
        ]


# ---- what must not matter -------------------------------------------------------------------------

HOSTILE = ["", ".", "..", "../../etc", "/", "a/b", "a b", "-rf", ".x", "a;touch /x", "$(touch /x)", "`touch /x`"]
HOSTILE += ['a"b', "a'b", "a\\b", "a\nb", "a*", "é", "x" * 129, "all", "a%sb", "a{b}", "\x7f"]


@pytest.mark.parametrize("krel", HOSTILE)
def test_no_name_of_a_kernel_does_harm(sound: RealRoot, krel: str) -> None:
    before = sorted(p.name for p in sound.path.iterdir())
    for verb in ("add", "remove"):
        for plugin in ("45-autokmod.install", "95-autokmod.install"):
            assert succeed(sound, f"{PLUGINS}/{plugin}", verb, krel, "/boot/x", IMAGE) == ""
    for directory in DEBIAN:
        assert succeed(sound, f"/etc/kernel/{directory}/autokmod", krel, IMAGE) == ""
    for verb in ("add", "written", "remove", "gone"):
        assert succeed(sound, EVENT, verb, krel, "kernel-install") == ""
    assert queued(sound) == []
    assert sorted(p.name for p in sound.path.iterdir()) == before


@pytest.mark.parametrize("args", [(), ("add",), ("add", KREL), ("add", KREL, 'a"b'), ("explode", KREL, "x")])
def test_a_wrong_call_does_nothing(sound: RealRoot, args: tuple[str, ...]) -> None:
    assert succeed(sound, EVENT, *args) == ""
    assert queued(sound) == []


def take_python_away(root: RealRoot) -> None:
    for python in (root.path / "usr/bin").glob("python3*"):
        python.unlink()


def break_python(root: RealRoot) -> None:
    """As in the middle of an upgrade: the interpreter starts, a library is missing."""
    (root.path / "usr/lib/autokmod/python/autokmod/jobs/spool.py").unlink()
    for cached in (root.path / "usr/lib/autokmod/python/autokmod/jobs/__pycache__").glob("spool.*"):
        cached.unlink()


def crash_the_hook(root: RealRoot) -> None:
    (root.path / "usr/libexec/autokmod/hook").write_text("#!/bin/sh\nkill -SEGV $$\n")


def hang_the_hook(root: RealRoot) -> None:
    (root.path / "usr/libexec/autokmod/hook").write_text("#!/bin/sh\nexec sleep 1000\n")
    event = root.path / EVENT.lstrip("/")
    text = event.read_text()
    assert "\nlimit=60 " in text
    event.write_text(text.replace("\nlimit=60 ", "\nlimit=1 "))


@pytest.mark.parametrize("damage", [take_python_away, break_python, crash_the_hook, hang_the_hook])
def test_the_intent_survives(system: RealRoot, damage: Callable[[RealRoot], None]) -> None:
    damage(system)
    assert kernel_install(system, "add", KREL, IMAGE) == ""
    assert queued(system) == [(Verb.RECONCILE, KREL, "kernel-install")]
    assert run_parts(system, "prerm.d", "'remove'") == ""
    assert queued(system) == [(Verb.REMOVE, KREL, "debian-prerm")], "the last word counts"
    assert run_parts(system, "postinst.d", "'configure' ''") == ""
    assert queued(system) == [(Verb.RECONCILE, KREL, "debian-postinst")]


def take_libexec_away(root: RealRoot) -> None:
    subprocess.run(["rm", "-r", root.path / "usr/libexec/autokmod"], check=True)


def make_spool_readonly(root: RealRoot) -> None:
    root.paths.spool.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", "ro", "readonly", str(root.paths.spool))


def fill_the_disk(root: RealRoot) -> None:
    root.paths.spool.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", "size=4k", "full", str(root.paths.spool))
    (root.paths.spool / "remove-1.0.json").write_bytes(b" " * 4096)


def make_spool_a_file(root: RealRoot) -> None:
    root.paths.state.mkdir(parents=True, exist_ok=True)
    if root.paths.spool.is_dir():
        root.paths.spool.rmdir()
    root.paths.spool.touch()


@pytest.mark.parametrize("damage", [take_libexec_away, make_spool_readonly, fill_the_disk, make_spool_a_file])
def test_nothing_breaks_a_kernels_installation(system: RealRoot, damage: Callable[[RealRoot], None]) -> None:
    damage(system)
    assert "".join(every_hook(system)) == ""


@pytest.mark.parametrize("mark", [".buildenv", "run/ostree-booted"])
def test_image_builders_are_left_alone(system: RealRoot, mark: str) -> None:
    (system.path / mark).touch()
    assert "".join(every_hook(system)) == ""
    assert queued(system) == []


def test_verbose_kernel_install_hears_what_could_not_be_done(system: RealRoot) -> None:
    make_spool_a_file(system)
    assert f"autokmod: cannot queue {KREL}" in kernel_install(system, "--verbose", "add", KREL, IMAGE)


def spy_on_systemctl(root: RealRoot, body: str) -> Path:
    """systemd cannot run here; what it would be asked can be seen."""
    (root.path / "run/systemd/system").mkdir(parents=True)
    calls = root.path / "tmp/calls"
    systemctl = root.path / "usr/bin/systemctl"
    systemctl.unlink(missing_ok=True)
    systemctl.write_text(f'#!/bin/sh\necho "$*" >>/tmp/calls\n{body}\n')
    systemctl.chmod(0o755)
    return calls


def test_the_daemon_is_woken_but_not_waited_for(system: RealRoot) -> None:
    calls = spy_on_systemctl(system, "case $* in *is-active*) exit 3 ;; esac")
    succeed(system, EVENT, "gone", KREL, "debian-postrm")
    assert calls.read_text().splitlines()[-1] == "--quiet --no-block start autokmodd.service"


@pytest.mark.parametrize(
    "body", ["case $* in *is-enabled*) exit 1 ;; esac", ":"], ids=["not enabled", "offline update"]
)
def test_the_daemon_is_not_woken(system: RealRoot, body: str) -> None:
    calls = spy_on_systemctl(system, body)
    succeed(system, EVENT, "gone", KREL, "debian-postrm")
    assert "start" not in calls.read_text()


# ---- the entry in Python --------------------------------------------------------------------------


def test_the_fast_path_looks_at_the_kernel(system: RealRoot) -> None:
    krel = system.corpus.trio.first
    system.add_kernel(krel)
    succeed(system, EVENT, "add", krel, "debian-postinst")
    assert system.paths.record(krel).is_file()
    assert queued(system) == [(Verb.RECONCILE, krel, "debian-postinst")]
