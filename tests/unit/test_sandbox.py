"""The sandbox: its command lines by table, and the real one from inside."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.config import BuildConfig, Config
from autokmod.errors import SandboxUnavailable
from autokmod.paths import Paths
from autokmod.run import Result, run
from autokmod.sandbox import (
    check_sandbox,
    closed_directory,
    explain_failure,
    find_user,
    kernel_mounts,
    open_sandbox,
    read_system,
    run_boxed,
)
from autokmod.sandboxcmd import Limits, Link, Mount, Sandbox, User, sandbox_cmd

HOST = Paths(Path("/"))
NOBODY = Config(build=BuildConfig(user="nobody"))
SHOW_RANK = "cat /proc/self/oom_score_adj; nice; ionice; id -u"
LIMITS = Limits(memory_mb=100, processes=10, file_mb=1)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, as /var/lib/autokmod is; pytest's own are closed."""
    directory = Path(tempfile.mkdtemp(prefix="autokmod-test-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def box(**changes: object) -> Sandbox:
    plain = Sandbox(User("b", 990, 991), (Mount("/r/usr", "/usr"),), (), "/w", LIMITS, frozenset())
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_the_user_is_dropped_before_bwrap_starts() -> None:
    argv = sandbox_cmd(box(), ["make"])
    assert argv[:5] == ["setpriv", "--reuid", "990", "--regid", "991"]
    assert argv.index("--bounding-set=-all") < argv.index("prlimit") < argv.index("bwrap")
    assert argv[-1] == "make"
    assert "--uid" not in argv


@pytest.mark.root
def test_builds_give_way_to_everything_else() -> None:
    argv = sandbox_cmd(box(user=User("nobody", 65534, 65534), contained=False), ["sh", "-c", SHOW_RANK])
    assert run(argv, timeout_s=10, cwd="/").output.split() == ["500", "10", "idle", "65534"]


def test_limits_reach_prlimit_in_bytes() -> None:
    argv = sandbox_cmd(box(), [])
    assert {"--as=104857600", "--fsize=1048576", "--core=0"} < set(argv)


def test_processes_are_limited_inside_so_that_they_are_counted_inside() -> None:
    assert sandbox_cmd(box(), ["make"])[-4:] == ["--", "prlimit", "--nproc=10", "make"]
    assert sandbox_cmd(box(contained=False), ["make"])[-3:] == ["prlimit", "--nproc=10", "make"]


def test_a_pid_namespace_that_the_build_cannot_see_is_around_the_sandbox() -> None:
    argv = sandbox_cmd(box(), ["make"])
    outer, inner = (i for i, word in enumerate(argv) if word == "bwrap")
    assert {"--unshare-pid", "--as-pid-1", "--die-with-parent"} < set(argv[outer:inner])
    assert "--new-session" not in argv[outer:inner]  # it is killed with the group
    assert "--unshare-all" in argv[inner:]


def test_refused_system_calls_are_for_bwrap_alone() -> None:
    argv = sandbox_cmd(box(), ["make"], 7)
    assert argv.index("bwrap") < argv.index("--seccomp") < len(argv) - 4
    assert argv[argv.index("--seccomp") + 1] == "7"
    assert "--seccomp" not in sandbox_cmd(box(contained=False), ["make"], None)


def test_nothing_is_shared_and_the_root_ends_up_read_only() -> None:
    argv = sandbox_cmd(box(links=(Link("usr/lib", "/lib"),)), ["true"])
    assert {"--unshare-all", "--die-with-parent", "--new-session"} < set(argv)
    tail = argv[argv.index("--symlink") :]
    assert tail == [
        "--symlink",
        "usr/lib",
        "/lib",
        "--remount-ro",
        "/",
        "--chdir",
        "/w",
        "--",
        "prlimit",
        "--nproc=10",
        "true",
    ]
    assert "--share-net" not in argv


def test_later_mounts_lie_over_earlier_ones() -> None:
    argv = sandbox_cmd(box(mounts=(Mount("/r/usr", "/usr"), Mount("/w/1", "/usr/src/a-1", writable=True))), [])
    assert argv.index("/r/usr") < argv.index("/w/1")
    assert argv[argv.index("/w/1") - 1] == "--bind"
    assert argv[argv.index("/r/usr") - 1] == "--ro-bind"


@pytest.mark.parametrize("inside", ["/proc", "/dev", "/tmp"])
def test_the_sandbox_s_own_places_cannot_be_bound(inside: str) -> None:
    with pytest.raises(ValueError):
        sandbox_cmd(box(mounts=(Mount("/x", inside),)), [])


def test_old_bubblewrap_gets_no_option_that_it_does_not_know() -> None:
    argv = sandbox_cmd(box(), [])
    assert "--size" not in argv
    assert "--disable-userns" not in argv
    new = sandbox_cmd(box(options=frozenset({"--size", "--disable-userns"})), [])
    assert new[new.index("--size") + 1 : new.index("--size") + 4] == ["104857600", "--tmpfs", "/tmp"]
    assert "--disable-userns" in new


def test_without_bubblewrap_the_user_and_the_limits_stay() -> None:
    argv = sandbox_cmd(box(contained=False), ["make"])
    assert argv[0] == "setpriv"
    assert "prlimit" in argv
    assert "bwrap" not in argv


def test_an_ordinary_caller_has_nothing_to_drop() -> None:
    assert "--reuid" not in sandbox_cmd(box(user=None), [])


# ---- what goes in --------------------------------------------------------------------------------


def test_merged_and_split_usr(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "lib/modules").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/shadow").write_text("secret")
    (tmp_path / "etc/ld.so.cache").write_text("")
    mounts, links = read_system(Paths(tmp_path))
    assert links == (Link("usr/bin", "/bin"),)
    assert [m.inside for m in mounts] == ["/usr", "/lib", "/etc/ld.so.cache"]
    assert not any(m.writable for m in mounts)


def test_headers_outside_usr_are_bound_where_the_links_say(tmp_path: Path) -> None:
    modulesd = tmp_path / "usr/lib/modules/6.1.0-me"
    modulesd.mkdir(parents=True)
    (tmp_path / "data/linux-6.1").mkdir(parents=True)
    (tmp_path / "home/me").mkdir(parents=True)
    (tmp_path / "home/me/linux").symlink_to("/data/linux-6.1")
    (modulesd / "build").symlink_to("/home/me/linux")
    (modulesd / "source").symlink_to("/nowhere")
    real = str(tmp_path / "data/linux-6.1")
    assert kernel_mounts(Paths(tmp_path), str(modulesd)) == (
        Mount(real, "/data/linux-6.1"),
        Mount(real, "/home/me/linux"),
    )


def test_headers_below_usr_need_no_bind(tmp_path: Path) -> None:
    modulesd = tmp_path / "usr/lib/modules/6.1.0-56"
    modulesd.mkdir(parents=True)
    (tmp_path / "usr/src/linux-headers-6.1.0-56").mkdir(parents=True)
    (modulesd / "build").symlink_to("/usr/src/linux-headers-6.1.0-56")
    assert kernel_mounts(Paths(tmp_path), str(modulesd)) == ()


# ---- why it cannot start -------------------------------------------------------------------------


def write_passwd(root: Path, text: str) -> Paths:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(text)
    return Paths(root)


@pytest.mark.root
def test_the_root_s_passwd_is_asked_before_the_host_s(tmp_path: Path) -> None:
    paths = write_passwd(tmp_path, "nobody:x:4321:4322::/:/bin/false\n")
    assert find_user(paths, NOBODY) == User("nobody", 4321, 4322)
    paths = write_passwd(tmp_path, "garbage\nnobody:x:many:0\n\n")
    user = find_user(paths, NOBODY)
    assert user is not None
    assert user.uid == 65534


@pytest.mark.root
@pytest.mark.parametrize(
    ("passwd", "name", "why", "hint"),
    [
        ("", "autokmod-none", "there is no user autokmod-none", "useradd --system"),
        ("toor:x:0:0::/:/bin/sh\n", "toor", "the build user toor is root", "build.user"),
    ],
)
def test_a_user_that_cannot_be_used(tmp_path: Path, passwd: str, name: str, why: str, hint: str) -> None:
    with pytest.raises(SandboxUnavailable) as caught:
        find_user(write_passwd(tmp_path, passwd), Config(build=BuildConfig(user=name)))
    assert caught.value.why == why
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("sysctl", "value", "expected"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
    ],
)
def test_the_hint_names_the_sysctl(tmp_path: Path, sysctl: str, value: str, expected: str) -> None:
    (tmp_path / sysctl).parent.mkdir()
    (tmp_path / sysctl).write_text(value + "\n")
    why, hint = explain_failure("bwrap: Creating new namespace failed\n", tmp_path)
    assert sysctl.replace("/", ".") in why
    assert expected in hint


def test_a_masked_proc_and_an_unknown_failure_are_told_apart(tmp_path: Path) -> None:
    why, _ = explain_failure("bwrap: Can't mount proc on /newroot/proc: Operation not permitted\n", tmp_path)
    assert why.startswith("/proc cannot be mounted")
    why, hint = explain_failure("\nbwrap: strange\n", tmp_path)
    assert why == "bwrap: strange"
    assert "bwrap" in hint


def test_a_closed_directory_on_the_way_is_found(place: Path) -> None:
    inner = place / "a/b"
    inner.mkdir(parents=True)
    user = User("x", os.getuid() + 1, os.getgid() + 1)
    assert closed_directory(inner, user) is None
    (place / "a").chmod(0o700)
    assert closed_directory(inner, user) == place / "a"
    assert closed_directory(place / "a/missing/deep", user) == place / "a"
    assert closed_directory(inner, None) is None


def test_unsandboxed_is_for_the_running_system_only(tmp_path: Path) -> None:
    config = Config(build=BuildConfig(user="nobody", allow_unsandboxed=True))
    with pytest.raises(SandboxUnavailable, match="running system only"):
        open_sandbox(Paths(tmp_path), config, cwd="/")
    assert not open_sandbox(HOST, config, cwd="/").contained


@pytest.mark.root
def test_the_real_refusal_names_the_sysctl() -> None:
    """In a user namespace that allows no further one, bwrap really fails, and the kernel really says why."""
    script = 'echo; read go && echo 0 > /proc/sys/user/max_user_namespaces && exec /usr/bin/python3 -c "$CODE"'
    code = (
        "from autokmod.sandbox import *\nfrom autokmod.config import BuildConfig\n"
        "try: check_sandbox(Paths(Path('/')), Config(build=BuildConfig(user='nobody')))\n"
        "except SandboxUnavailable as e: print(e)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "CODE": code}
    argv = ["unshare", "--user", "--keep-caps", "sh", "-c", script]
    with subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proc:
        assert proc.stdin is not None
        assert proc.stdout is not None
        proc.stdout.readline()
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{proc.pid}/{name}").write_text("0 0 65536\n")
        out, _ = proc.communicate("go\n", timeout=30)
    assert "sysctl -w user.max_user_namespaces=15000" in out


# ---- from inside ---------------------------------------------------------------------------------


def inside(script: str, *mounts: Mount, limits: Limits | None = None) -> Result:
    room = open_sandbox(HOST, NOBODY, cwd="/tmp", mounts=mounts, limits=limits)
    return run_boxed(room, ["bash", "-c", script], timeout_s=60)


@pytest.mark.root
def test_it_starts_here() -> None:
    check_sandbox(HOST, NOBODY)


@pytest.mark.root
def test_it_starts_where_others_processes_are_hidden() -> None:
    """ProtectProc=invisible, which the service has."""
    script = 'mount -t proc -o hidepid=invisible proc /proc && exec /usr/bin/python3 -c "$CODE"'
    code = (
        "from autokmod.sandbox import *\nfrom autokmod.config import BuildConfig\n"
        "check_sandbox(Paths(Path('/')), Config(build=BuildConfig(user='nobody')))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "CODE": code}
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.root
def test_it_is_another_user_without_any_capability() -> None:
    out = inside("id -u; grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status").output.split()
    assert out[0] == "65534"
    assert out[2:12:2] == ["0000000000000000"] * 5
    assert out[-1] == "1"


@pytest.mark.root
def test_root_s_files_are_out_of_sight_or_unreadable(place: Path) -> None:
    secret = place / "key"
    secret.write_text("secret")
    secret.chmod(0o600)
    result = inside("cat /w/key", Mount(str(place), "/w"))
    assert "Permission denied" in result.output
    assert "secret" not in result.output
    result = inside("ls -d /root /home /run /var/lib /boot /sys /srv /mnt /etc/shadow /etc/passwd /etc/ssh")
    assert result.output.count("No such file or directory") == 11


@pytest.mark.root
def test_only_the_bound_directory_and_tmp_can_be_written(place: Path) -> None:
    (place / "w").mkdir()
    (place / "w").chmod(0o777)
    (place / "r").mkdir()
    (place / "r").chmod(0o777)
    places = "/ /usr /usr/src /etc /dev /dev/shm /proc /proc/sys/kernel /r /w /tmp"
    script = f"for d in {places}; do touch $d/x && echo $d; done"
    result = inside(f"{script} 2>/dev/null", Mount(f"{place}/w", "/w", writable=True), Mount(f"{place}/r", "/r"))
    assert result.output.split() == ["/w", "/tmp"]
    assert (place / "w/x").exists()
    assert not Path("/tmp/x").exists()


@pytest.mark.root
def test_no_network_not_even_the_host_s_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert inside(f"exec 3<>/dev/tcp/127.0.0.1/{port}").returncode != 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract:
        abstract.bind("\0autokmod-test-abstract")
        abstract.listen()
        code = "import socket; socket.socket(socket.AF_UNIX).connect('\\0autokmod-test-abstract')"
        assert "ConnectionRefusedError" in inside(f'/usr/bin/python3 -c "{code}"').output


@pytest.mark.root
def test_other_processes_are_not_seen_and_none_outlives_the_command() -> None:
    marker = "4242.4242"
    result = inside(f"(setsid sleep {marker} &) ; ls -d /proc/[0-9]* | wc -l; echo; kill -9 1; kill {os.getpid()}")
    assert int(result.output.split()[0]) < 10
    assert marker not in running_commands()


def running_commands() -> str:
    return run(["ps", "-eo", "args"], timeout_s=10).output


@pytest.mark.root
def test_the_time_limit_ends_all_of_it() -> None:
    marker = "4343.4343"
    room = open_sandbox(HOST, NOBODY, cwd="/")
    command = ["bash", "-c", f"(setsid nohup sleep {marker} &); trap '' TERM HUP; sleep {marker}"]
    assert run_boxed(room, command, timeout_s=1).returncode is None
    assert marker not in running_commands()


@pytest.mark.root
def test_a_fork_bomb_meets_the_process_limit() -> None:
    bomb = "import os, time\nwhile True:\n  if not os.fork(): time.sleep(60)"
    result = inside(f'/usr/bin/python3 -c "{bomb}"', limits=Limits(memory_mb=1000, processes=30, file_mb=1))
    assert "BlockingIOError" in result.output  # fork(2): EAGAIN
    assert result.returncode == 1


@pytest.mark.root
def test_memory_and_file_size_are_bounded(place: Path) -> None:
    limits = Limits(memory_mb=200, processes=30, file_mb=1)
    result = inside("/usr/bin/python3 -c 'x = bytearray(400 << 20)'", limits=limits)
    assert "MemoryError" in result.output
    (place / "w").mkdir()
    (place / "w").chmod(0o777)
    inside("head -c 5000000 /dev/zero > /w/big", Mount(f"{place}/w", "/w", writable=True), limits=limits)
    assert (place / "w/big").stat().st_size == 1 << 20
    assert "No space left" in inside("head -c 300M /dev/zero | split -b 900K - /tmp/f", limits=limits).output


@pytest.mark.root
def test_processes_of_one_sandbox_do_not_count_in_another() -> None:
    many = "for i in $(seq 25); do sleep 1 & done; wait"
    limits = Limits(memory_mb=1000, processes=30, file_mb=1)
    both = [threading.Thread(target=lambda: said.append(inside(many, limits=limits).output)) for _ in range(2)]
    said: list[str] = []
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert said == ["", ""]


@pytest.mark.root
def test_a_setuid_program_gains_nothing() -> None:
    assert inside("for p in su sudo mount passwd; do $p -h; done >/dev/null 2>&1; id -u").output.strip() == "65534"
