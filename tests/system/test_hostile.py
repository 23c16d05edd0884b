"""Packages that mean harm, built by the real engine: what each tries fails, the machine is clean afterwards, other
builds are unharmed, and what the status says names the limit that was met.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from autokmod.act.build import JobSlot
from autokmod.config import BuildConfig, Config
from autokmod.jobs.tokens import TokenPool
from autokmod.model import Build
from autokmod.observe.records import read_record
from autokmod.run import run
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.system.test_builds import DUMMY, Workshop, conf, wait_for

pytestmark = pytest.mark.root

MARKER = f"{os.getpid()}.5151"  # seconds that only sleeps of this test run sleep
SECRET = "WHAT-NOBODY-MAY-READ"
# Whose files these are does not matter: readable for all as they are here, they must be out of sight.
SECRETS = (
    "var/lib/autokmod/keys/module.key",
    "var/lib/autokmod/spool/job.json",
    "var/lib/dkms/mok.key",
    "var/lib/shim-signed/mok/MOK.priv",
    "etc/pki/akmods/private/private_key.priv",
    "etc/ssl/private/site.key",
    "etc/autokmod/autokmod.toml",
    "etc/shadow",
    "etc/passwd",
    "root/.ssh/id_ed25519",
    "home/me/letter",
    "run/secrets/token",
    "srv/data",
    "tmp/note",
    "var/tmp/note",
)
PLACES = (
    "/ /usr /usr/bin /usr/src /lib /lib/modules /lib/modules/$kernelver /etc /etc/dkms /boot /root /home /run /tmp/.. "
    "/var /var/lib /var/lib/autokmod /var/lib/autokmod/builds /var/cache /var/tmp /dev /dev/shm /sys /srv /proc "
    "/proc/1/root /proc/self/root/usr /usr/src/neighbour-1.0 /var/lib/dkms/hello/1.0/source/../neighbour-1.0"
)
# `tried WHAT COMMAND…`: says so where it succeeded.
TRIED = """tried() { local what=$1; shift; if "$@" >/dev/null 2>&1; then echo "REACHED $what"; fi; }
py() { /usr/bin/python3 -c "$@"; }
"""


@pytest.fixture
def workshop(real_root: MakeRoot, corpus: Corpus) -> Iterator[Workshop]:
    pool = TokenPool(2)
    shop = Workshop(real_root(kernels=(corpus.trio.first,)), corpus.trio.first, pool)
    shop.root.add_source("neighbour", "1.0", {"Makefile": "obj-m := neighbour.o\n"})
    yield shop
    assert MARKER not in commands()
    assert str(shop.paths.work) not in Path("/proc/self/mounts").read_text()
    pool.close()


def commands() -> str:
    return run(["ps", "-eo", "args"], timeout_s=10).output


def limited(workshop: Workshop, **limits: object) -> None:
    build = replace(BuildConfig(time_limit_s=60), **limits)  # type: ignore[arg-type]
    workshop.config = Config(build=build)


# ---- what it must not reach, from wherever a package runs its own code ----------------------------


@dataclass(frozen=True)
class Listeners:
    """Of this machine: a port, a name in the abstract namespace, the system bus."""

    port: int
    abstract: str
    bus: Path
    socket: socket.socket


@pytest.fixture
def listeners(workshop: Workshop) -> Iterator[Listeners]:
    bus = workshop.paths.at("run/dbus/system_bus_socket")
    bus.parent.mkdir(parents=True)
    bus.parent.chmod(0o755)
    argv = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address=unix:path={bus}"]
    with (
        subprocess.Popen(argv, stderr=subprocess.DEVNULL) as daemon,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract,
    ):
        try:
            name = f"autokmod-hostile-{os.getpid()}"
            abstract.bind(f"\0{name}")
            abstract.listen()
            wait_for(bus.exists)
            bus.chmod(0o777)
            server.setblocking(False)
            yield Listeners(server.getsockname()[1], name, bus, server)
        finally:
            daemon.terminate()


def attack(workshop: Workshop, listeners: Listeners) -> str:
    root = workshop.paths.root
    secrets = " ".join(f"/{s} {root}/{s} /proc/1/root/{s}" for s in SECRETS)
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1].replace('@', chr(0)))"
    return f"""#!/bin/bash
{TRIED}
for f in {secrets}; do grep -q {SECRET} $f 2>/dev/null && echo "REACHED $f"; done
for d in {PLACES} {root} {root}/tmp; do
    tried "$d, to write" touch $d/planted-$$
    tried "$d, to link" ln -s /etc/passwd $d/link-$$
    tried "$d, to make a node" mknod $d/node-$$ c 1 3
done 2>/dev/null
rm -f /tmp/planted-* /tmp/link-*
tried "a port" bash -c 'exec 3<>/dev/tcp/127.0.0.1/{listeners.port}'
tried "a port, IPv6" bash -c 'exec 3<>/dev/tcp/::1/{listeners.port}'
tried "an abstract socket" py "{connect}" @{listeners.abstract}
tried "the system bus" py "{connect}" /run/dbus/system_bus_socket
tried "the system bus" py "{connect}" {listeners.bus}
tried "a process of the host" kill -0 {os.getpid()}
kill -9 1
tried "root, by a set-id program" bash -c '[[ $(su -c "id -u" 2>/dev/null) == 0 ]]'
tried "another namespace" unshare --user --map-root-user true
tried "a mount" mount -t tmpfs none /tmp
tried "the host's name" hostname hostile
tried "the kernel's settings" bash -c 'echo 1 >/proc/sys/kernel/panic'
tried "a magic key" bash -c 'echo h >/proc/sysrq-trigger'
tried "modules" bash -c 'insmod /lib/modules/$kernelver/kernel/drivers/net/dummy.ko'
tried "a block device" bash -c 'ls /dev/vda /dev/sda /dev/mem /dev/kmsg /dev/kvm /dev/fuse | grep .'
tried "priority" py "import os; os.nice(-5)"
tried "a higher limit" prlimit --nproc=100000 true
tried "/sys" ls /sys/kernel
for fd in /proc/$$/fd/*; do
    case $(readlink $fd) in pipe:* | /dev/null | /proc/* | *attack.sh | */log | */dkms.conf | /tmp/*) ;;
        *) echo "REACHED descriptor $fd: $(readlink $fd)" ;; esac
done
:"""


def plant_secrets(workshop: Workshop) -> None:
    for name in SECRETS:
        path = workshop.paths.at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as f:
            f.write(f"\n# {SECRET}\n")
        path.chmod(0o644)


def everything(workshop: Workshop) -> set[str]:
    """All that was ever written in this system, but the store, the cache and directories of work."""
    top = workshop.root.path.parent
    found = run(["find", str(top), "-xdev", "-name", "work", "-prune", "-o", "-print"], timeout_s=60).output
    own = ("/var/lib/autokmod/builds", "/var/cache/autokmod")
    return {line for line in found.splitlines() if not any(o in line for o in own)}


ATTACKED = 'bash "${BASH_SOURCE%/*}/attack.sh"'
WAYS = {
    "make": (f"MAKE='bash ./attack.sh; {DUMMY}'",),
    "pre": (f"MAKE='{DUMMY}'", "PRE_BUILD=attack.sh"),
    "post": (f"MAKE='{DUMMY}'", "POST_BUILD=attack.sh"),
    # What the evaluation saw is told by the build that follows from it.
    "conf": (f"said=$({ATTACKED} 2>/dev/null)", f"MAKE=\"echo '$said'; {DUMMY}\""),
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_reached(workshop: Workshop, listeners: Listeners, way: str) -> None:
    plant_secrets(workshop)
    files = {
        "dkms.conf": conf("hello", *WAYS[way], module="dummy"),
        "attack.sh": attack(workshop, listeners)
        + f"\necho ATTACKED as $(id -u)\n(setsid sleep {MARKER} >/dev/null 2>&1 &)",
    }
    source = workshop.root.add_source("hello", "1.0", files)
    (source / "attack.sh").chmod(0o755)
    before = everything(workshop)
    build = workshop.build("hello")
    said = workshop.log(build)
    assert [line for line in said.splitlines() if line.startswith("REACHED")] == []
    assert "ATTACKED as 64917" in said
    assert SECRET not in said
    assert everything(workshop) == before
    with pytest.raises(BlockingIOError):
        listeners.socket.accept()
    workshop.is_clean()


def test_the_attack_would_be_seen(workshop: Workshop, listeners: Listeners) -> None:
    """The same script without the sandbox, as root, reaches most of it: silence above means something."""
    plant_secrets(workshop)
    script = workshop.paths.at("tmp/attack.sh")
    script.write_text(attack(workshop, listeners).replace("mknod", "false"))
    harmless = script.read_text().replace("hostname hostile", "hostname").replace("echo 1 >/proc/sys", "echo 1 >/nope")
    harmless = harmless.replace("\nkill -9 1\n", "\n").replace("echo h >/proc/sysrq-trigger", "false")
    harmless = harmless.replace("insmod", "false").replace("touch", "false").replace("ln -s", "false")
    harmless = harmless.replace("mount -t tmpfs", "false").replace("rm -f", ": ")
    script.write_text(harmless)
    said = subprocess.run(["bash", str(script)], stdout=subprocess.PIPE, text=True, timeout=60).stdout
    reached = {line.removeprefix("REACHED ") for line in said.splitlines()}
    assert {"a port", "an abstract socket", "the system bus", "a process of the host"} <= reached
    assert {f"{workshop.paths.root}/{s}" for s in SECRETS} <= reached


def test_what_the_kernel_would_do_unwatched_is_refused(workshop: Workshop) -> None:
    """Disk taken in no time, memory that is no process's, keyrings of whoever started the service."""
    code = """
import ctypes, errno, fcntl, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    what = getattr(libc, name, None)
    print(name, what(*args) if what else -1, errno.errorcode.get(ctypes.get_errno()))
with open("big", "wb") as f:
    call("fallocate", f.fileno(), 0, ctypes.c_long(0), ctypes.c_long(1 << 20))
    try: fcntl.ioctl(f.fileno(), 0x40305828, struct.pack("hhqqI4xQQ", 0, 0, 0, 1 << 20, 0, 0, 0)); print("RESVSP 0")
    except OSError as exc: print("RESVSP -1", errno.errorcode[exc.errno])
    call("memfd_create", b"x", 0)
    call("shmget", 0, 1 << 20, 0o1600)
    call("msgget", 0, 0o1600)
    ctypes.set_errno(0)
    for nr in (250, 248, 249, 425):
        print("syscall", nr, libc.syscall(nr, 0, 0, 0, 0, 0), errno.errorcode[ctypes.get_errno()])
"""
    workshop.root.add_source("hello", "1.0", {"dkms.conf": conf(module="dummy"), "try.py": code})
    (workshop.paths.usr_src / "hello-1.0/dkms.conf").write_text(
        conf("hello", f"MAKE='/usr/bin/python3 try.py; {DUMMY}'", module="dummy")
    )
    build = workshop.build("hello")
    assert build.ok, workshop.log(build)
    said = [line for line in workshop.log(build).splitlines() if not line.startswith("==>")]
    assert said == [
        "fallocate -1 ENOTSUP",
        "RESVSP -1 ENOTSUP",
        "memfd_create -1 ENOSYS",
        "shmget -1 ENOSYS",
        "msgget -1 ENOSYS",
        "syscall 250 -1 EPERM",
        "syscall 248 -1 EPERM",
        "syscall 249 -1 EPERM",
        "syscall 425 -1 ENOSYS",
    ]


# ---- limits ---------------------------------------------------------------------------------------


def test_a_disk_is_not_filled_with_many_files(workshop: Workshop) -> None:
    limited(workshop, disk_limit_mb=60)
    build = workshop.dummy(make="for n in $(seq 400); do head -c 5M /dev/zero >f$n; sleep 0.05; done")
    workshop.says(build, "stopped: it had written more than 60 MiB (build.disk_limit_mb)")
    assert not build.transient


def test_nor_deep_down_where_names_become_too_long(workshop: Workshop) -> None:
    limited(workshop, disk_limit_mb=60)
    deep = "for i in $(seq 60); do mkdir $(printf 'd%.0s' {1..200}) && cd d*; done"
    build = workshop.dummy(make=f"{deep}; for n in $(seq 400); do head -c 5M /dev/zero >f$n; sleep 0.05; done")
    workshop.says(build, "stopped: it had written more than 60 MiB")


def test_nor_with_files_that_have_no_name(workshop: Workshop) -> None:
    """No walk over the directory finds those; that the disk becomes full is found all the same."""
    workshop.paths.work.mkdir(parents=True)
    room = os.statvfs(workshop.paths.work)
    free_mb = room.f_bavail * room.f_frsize >> 20
    limited(workshop, keep_free_mb=free_mb - 100)
    hide = "import os, time\nfs = []\nwhile True:\n  f = open('x', 'wb'); os.unlink('x'); f.write(bytes(5 << 20))"
    build = workshop.dummy(make=f'/usr/bin/python3 -c "{hide}; f.flush(); fs.append(f); time.sleep(0.05)"')
    workshop.says(build, f"less than {free_mb - 100} MiB (build.keep_free_mb)")
    assert build.transient
    after = os.statvfs(workshop.paths.work)
    assert after.f_bavail * after.f_frsize >> 20 > free_mb - 20


def test_memory_is_counted_over_all_processes(workshop: Workshop) -> None:
    limited(workshop, memory_limit_mb=300, total_memory_mb=250)
    hog = "import time; x = bytearray(100 << 20); time.sleep(100)"
    build = workshop.dummy(make=f'for i in 1 2 3 4; do /usr/bin/python3 -c "{hog}" & done; wait')
    workshop.says(build, "stopped: it used more than 250 MiB of memory (build.total_memory_mb)")


def test_one_process_s_memory(workshop: Workshop) -> None:
    limited(workshop, memory_limit_mb=300)
    build = workshop.dummy(make="/usr/bin/python3 -c 'bytearray(1 << 30)'")
    workshop.says(build, "a process wanted more than 300 MiB of memory (build.memory_limit_mb)")


def test_endless_output(workshop: Workshop) -> None:
    limited(workshop, output_limit_mb=5)
    build = workshop.dummy(make="yes 'some line of output'")
    workshop.says(build, "stopped: it had printed more than 5 MiB (build.output_limit_mb)")


def test_one_endless_file(workshop: Workshop) -> None:
    limited(workshop, file_limit_mb=5)
    build = workshop.dummy(make="cat /dev/zero >x")
    workshop.says(build, "a file grew larger than 5 MiB (build.file_limit_mb)")


def test_outliving_the_time_limit(workshop: Workshop) -> None:
    limited(workshop, time_limit_s=1)
    build = workshop.dummy(make=f"trap '' TERM HUP INT; (setsid nohup sleep {MARKER} &); sleep {MARKER}")
    workshop.says(build, "stopped: it took longer than 1 s (build.time_limit_s)")


def test_leaving_a_daemon_behind(workshop: Workshop) -> None:
    """Forked twice, in a session of its own, with nothing open."""
    build = workshop.dummy(make=f"{DUMMY}; (setsid bash -c 'sleep {MARKER} & disown' </dev/null >&0 2>&0 &)")
    workshop.says(build, "it left processes behind: sleep")


# Process 1 of the sandbox is bwrap's, of the same user: it can be made to forget that it is to end with its parent.
HIJACK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def ptrace(request, data=0):
    if libc.ptrace(request, 1, 0, data) != 0: raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
SEIZE, INTERRUPT, GETREGS, SETREGS, STEP, DETACH = 0x4206, 0x4207, 12, 13, 9, 17
RSI, RDI, RAX, ORIG_RAX, RIP = 13, 14, 10, 15, 16
libc.ptrace.argtypes = [ctypes.c_long] * 2 + [ctypes.c_void_p] * 2
regs = (ctypes.c_ulonglong * 27)()
ptrace(SEIZE); ptrace(INTERRUPT); os.waitpid(1, 0x40000000)
ptrace(GETREGS, ctypes.addressof(regs))
kept = list(regs)
for call, first, second in ((157, 1, 0), (112, 0, 0)):  # prctl(PR_SET_PDEATHSIG, 0), setsid()
    regs[:] = kept
    regs[RAX], regs[RDI], regs[RSI], regs[RIP], regs[ORIG_RAX] = call, first, second, kept[RIP] - 2, 2**64 - 1
    ptrace(SETREGS, ctypes.addressof(regs)); ptrace(STEP); os.waitpid(1, 0x40000000)
    ptrace(GETREGS, ctypes.addressof(regs))
    print("HIJACKED", call, regs[RAX])
regs[:] = kept
regs[RAX], regs[RIP] = kept[ORIG_RAX], kept[RIP] - 2
ptrace(SETREGS, ctypes.addressof(regs)); ptrace(DETACH)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the attack is written for x86-64")
@pytest.mark.parametrize("end", ["", f"sleep {MARKER}"], ids=["at-its-end", "at-the-time-limit"])
def test_taking_over_process_1(workshop: Workshop, end: str) -> None:
    limited(workshop, time_limit_s=3)
    files = {
        "dkms.conf": conf("hello", "MAKE='source ./make.sh'", module="dummy"),
        "make.sh": f"/usr/bin/python3 hijack.py; (setsid sleep {MARKER} >/dev/null 2>&1 &); {end}\n{DUMMY}\n",
        "hijack.py": HIJACK,
    }
    build = workshop.made("hello", files)
    assert "HIJACKED 157 0" in workshop.log(build)
    assert not build.ok
    wait_for(lambda: MARKER not in commands())
    workshop.is_clean()


def test_a_build_that_says_that_the_sandbox_is_at_fault(workshop: Workshop) -> None:
    """It can empty its log and write there what bwrap would: that is its own failure, not the machine's."""
    code = "import os; os.ftruncate(1, 0); os.lseek(1, 0, 0); os.write(1, b'x\\nbwrap: no user namespaces\\n')"
    build = workshop.dummy(make=f'/usr/bin/python3 -c "{code}"; exit 1')
    assert not build.ok
    workshop.is_clean()


# ---- others are unharmed -----------------------------------------------------------------------------


@contextlib.contextmanager
def victim(workshop: Workshop) -> Iterator[Callable[[], Build]]:
    """Runs until what is yielded is called; then it starts 30 processes at once and copies its module."""
    many = "for i in $(seq 30); do sleep 0.2 & done; wait"
    make = f"echo VICTIM-WAS-HERE >mine; until [[ -e go ]]; do sleep 0.1; done; {many}; {DUMMY}; cat mine"
    lines = (f"MAKE='{make}'",)
    workshop.root.add_source("victim", "1.0", {"dkms.conf": conf("victim", *lines, module="dummy")})
    built: list[Build] = []
    thread = threading.Thread(target=lambda: built.append(workshop.build("victim")))
    thread.start()

    def find() -> list[Path]:
        return list(workshop.paths.work.glob(".work-*/dkms/victim/1.0/build/mine"))

    def finish() -> Build:
        if not built:
            (find()[0].parent / "go").write_text("")
        thread.join()
        return built[0]

    wait_for(lambda: bool(find()))
    try:
        yield finish
    finally:
        with contextlib.suppress(IndexError):
            finish()
        thread.join()


def unharmed(workshop: Workshop, build: Build) -> None:
    assert build.ok, workshop.log(build)
    assert "VICTIM-WAS-HERE" in workshop.log(build)
    assert "fork" not in workshop.log(build)


def test_forking_without_end(workshop: Workshop) -> None:
    limited(workshop, process_limit=60, time_limit_s=8)
    bomb = "import os, time\nwhile True:\n  try: os.fork()\n  except OSError as e: print(e, flush=True); time.sleep(99)"
    with victim(workshop) as finish:
        done: list[Build] = []
        make = f'/usr/bin/python3 -c "{bomb}"'
        thread = threading.Thread(target=lambda: done.append(workshop.dummy(make=make)))
        thread.start()
        wait_for(lambda: any("unavailable" in f.read_text() for f in workshop.paths.work.glob(".work-*/log")))
        other = finish()
        thread.join()
    unharmed(workshop, other)
    assert not done[0].ok
    texts = [e.text for e in done[0].errors]
    assert any("more than 60 processes at once (build.process_limit)" in t for t in texts), texts
    workshop.is_clean()


def test_other_builds_are_neither_seen_nor_reached(workshop: Workshop) -> None:
    seek = f"""{TRIED}
    for p in /proc/[0-9]*; do
        tr '\\0' ' ' <$p/cmdline | grep -q victim && echo "REACHED process $p"
        ls $p/root/var/lib/dkms/ | grep -q victim && echo "REACHED root of $p"
    done 2>/dev/null
    find / -path /proc -prune -o -name 'mine' -print 2>/dev/null | sed 's/^/REACHED /'
    find {workshop.paths.work} {workshop.paths.state} -print 2>/dev/null | sed 's/^/REACHED /'
    echo LOOKED; kill -9 -1"""
    with victim(workshop) as finish:
        build = workshop.dummy(make=seek)
        other = finish()
    unharmed(workshop, other)
    said = workshop.log(build).splitlines()
    assert "LOOKED" in said
    assert [line for line in said if line.startswith("REACHED")] == []
    workshop.is_clean()


# ---- job tokens ----------------------------------------------------------------------------------------

FDS = 'import os, re; r, w = map(int, re.search(r"auth=(\\d+),(\\d+)", os.environ["MAKEFLAGS"]).groups())'
SWALLOW = f"{FDS}; os.set_blocking(r, False)\\ntry:\\n  while True: os.read(r, 1)\\nexcept BlockingIOError: print(1, 2)"
FORGE = f'{FDS}; os.write(w, b"+" * 5000); print(1, 2)'


def free(slot: JobSlot) -> int:
    size = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ioctl(slot.read_fd, 0x541B, ctypes.byref(size)) == 0  # FIONREAD
    return size.value


@pytest.mark.parametrize("code", [SWALLOW, FORGE], ids=["swallowed", "forged"])
def test_tokens_are_right_again_when_the_build_has_ended(workshop: Workshop, code: str) -> None:
    build = workshop.dummy(make=f"/usr/bin/python3 -c $'{code}'; {DUMMY}")
    assert "\n1 2\n" in workshop.log(build)
    assert build.ok
    with workshop.pool.slot() as slot:
        assert free(slot) == 1


def test_forged_tokens_are_taken_away_while_others_build(workshop: Workshop) -> None:
    with workshop.pool.slot() as slot:
        build = workshop.dummy(make=f"/usr/bin/python3 -c $'{FORGE}'; sleep 1; {DUMMY}")
        assert "\n1 2\n" in workshop.log(build)
        assert free(slot) == 1
    assert build.ok, workshop.log(build)


def test_swallowed_tokens_keep_nobody_from_building(workshop: Workshop) -> None:
    """One is missing as long as the other build goes on, and who waits for it starts without."""
    with workshop.pool.slot() as other:
        build = workshop.dummy(make=f"/usr/bin/python3 -c $'{SWALLOW}'; {DUMMY}")
        assert "\n1 2\n" in workshop.log(build)
        os.set_blocking(other.read_fd, False)
        with contextlib.suppress(BlockingIOError):
            os.read(other.read_fd, 1)
        with workshop.pool.slot(patience_s=0.1):
            pass
    with workshop.pool.slot() as slot:
        assert free(slot) == 1


def test_the_status_says_what_was_tried(workshop: Workshop) -> None:
    """From the configuration's file through the whole engine to what a person reads."""
    workshop.paths.etc.mkdir(parents=True, exist_ok=True)
    (workshop.paths.etc / "autokmod.toml").write_text("[build]\ndisk_limit_mb = 60\n[initrd]\nregenerate = false\n")
    make = "for n in $(seq 400); do head -c 5M /dev/zero >f$n; sleep 0.05; done"
    files = {"dkms.conf": conf("hello", "MAKE=$(cat ${BASH_SOURCE%/*}/what)", module="dummy"), "what": make}
    workshop.root.add_source("hello", "1.0", files)
    shutil.rmtree(workshop.paths.usr_src / "neighbour-1.0")
    argv = [sys.executable, "-m", "autokmod.daemon.main", "--oneshot", "--root", str(workshop.paths.root)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.returncode == 1, done.stdout
    record = read_record(workshop.paths, workshop.krel)
    assert record is not None
    (placement,) = record.placements
    assert placement.failed
    assert "stopped: it had written more than 60 MiB (build.disk_limit_mb)" in placement.reasons[0].text
    workshop.is_clean()
