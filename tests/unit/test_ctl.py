"""autokmodctl as it is typed: the real program on hand-made systems."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autokmod.act.records import write_record
from autokmod.ctl.terminal import pager_cmd, pager_env
from autokmod.jobs.spool import Spool
from autokmod.jsonvalue import from_json
from autokmod.model import BuildError, DecisionKind, KernelRecord, KernelStatus, Reason, Verb
from autokmod.paths import Paths
from tests.unit.handmade import add_headers, add_kernel, add_source, link, place, record

CHECKOUT = Path(__file__).parents[2]
CTL = (sys.executable, "-m", "autokmod.ctl.main")
ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
A, B, C = "6.1.0-53-amd64", "6.1.0-55-amd64", "6.1.0-56-amd64"
VERBS = ["status", "explain", "check", "ready", "list-kernels", "list-packages", "list-jobs", "reconcile", "retry"]
VERBS += ["cancel", "wait", "watch", "logs", "verify", "build", "gc", "key", "new", "lint", "adopt", "release"]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A is built, B links to it; all is well."""
    paths = Paths(tmp_path)
    for krel in (A, B):
        add_kernel(paths, krel)
    add_source(paths, "pkg", "1.0")
    record(paths, A, place(paths, A, "pkg"))
    record(paths, B, link(paths, B, "pkg", A))
    return paths


def ctl(
    paths: Paths, *args: str, before: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [*before, *CTL, "--root", str(paths.root), *args]
    return subprocess.run(command, env={**ENV, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def data(done: subprocess.CompletedProcess[str]) -> Any:
    value = json.loads(done.stdout)
    assert value.pop("version") == 1
    return value


@contextmanager
def daemon_lock(paths: Paths) -> Iterator[None]:
    """What a running daemon holds."""
    paths.daemon_lock.parent.mkdir(parents=True, exist_ok=True)
    with open(paths.daemon_lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fail(paths: Paths, krel: str) -> None:
    """Kernel `krel` could not get the package."""
    add_kernel(paths, krel)
    symbols = tuple(Reason("crc-mismatch", f"s{i} changed", f"s{i}", 0xA0 + i, 0xB0 + i, "vmlinux") for i in range(30))
    sentence = Reason("build-failed", "the build failed: a.c:3: no member", hint=f"see 'autokmodctl logs pkg {krel}'")
    errors = tuple(BuildError("a.c", 3 + i, f"error {i}") for i in range(7))
    good = place(paths, krel, "pkg")
    broken = replace(good, failed=True, verified=False, files=(), reasons=(sentence, *symbols), errors=errors)
    record(paths, krel, broken)


# ---- status --------------------------------------------------------------------------------------


def test_all_ready(paths: Paths) -> None:
    done = ctl(paths, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"● {A}  ready\n"
        "    pkg  1.0  built\n"
        f"● {B}  ready\n"
        f"    pkg  1.0  linked to {A}  the build for {A} is compatible: all 61 symbol versions agree\n"
        "next boot: unknown: no boot loader that autokmod knows is installed (GRUB, systemd-boot)\n"
    )


def test_no_verb_is_status(paths: Paths) -> None:
    assert ctl(paths).stdout == ctl(paths, "status").stdout


def test_something_failed(paths: Paths) -> None:
    fail(paths, C)
    done = ctl(paths, "status", C)
    assert done.returncode == 3
    assert done.stdout == (
        f"● {C}  degraded\n"
        "    pkg  1.0  failed\n"
        "        a.c:3: error 0\n"
        "        a.c:4: error 1\n"
        "        a.c:5: error 2\n"
        "        and 4 more\n"
        "    pkg failed: the build failed: a.c:3: no member\n"
        f"      → see 'autokmodctl logs pkg {C}'\n"
    )


def test_one_kernel_that_is_ready_among_others(paths: Paths) -> None:
    fail(paths, C)
    assert ctl(paths, "status", A).returncode == 0
    assert ctl(paths, "status").returncode == 3


def test_plain_letters_where_the_locale_has_no_others(paths: Paths) -> None:
    done = ctl(paths, "status", A, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert done.stdout.startswith(f"* {A}  ready\n")


@pytest.mark.parametrize(
    ("env", "coloured"),
    [({}, False), ({"SYSTEMD_COLORS": "1"}, True), ({"SYSTEMD_COLORS": "1", "NO_COLOR": "1"}, True)],
)
def test_colour_without_a_terminal(paths: Paths, env: dict[str, str], coloured: bool) -> None:
    assert ("\033[" in ctl(paths, "status", env=env).stdout) is coloured


def test_status_of_a_package(paths: Paths) -> None:
    done = ctl(paths, "status", "pkg")
    assert done.returncode == 0
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["KERNEL", "VERSION", "STATE"],
        [A, "1.0", "built"],
        [B, "1.0", "linked"],
    ]
    assert ctl(paths, "status", "pkg", "--no-legend").stdout.startswith(f"{A}  1.0  built")
    assert ctl(paths, "status", "pkg/1.0").stdout == done.stdout


def test_status_of_a_package_that_failed_somewhere(paths: Paths) -> None:
    fail(paths, C)
    assert ctl(paths, "status", "pkg").returncode == 3


@pytest.mark.parametrize(
    ("what", "message"), [("6.9.9", "no kernel 6.9.9"), ("nix", "no package nix"), ("../x", "no pack")]
)
def test_status_of_what_is_not_there(paths: Paths, what: str, message: str) -> None:
    done = ctl(paths, "status", what)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"autokmodctl: {message}")


def test_quiet(paths: Paths) -> None:
    fail(paths, C)
    done = ctl(paths, "-q", "status")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


@pytest.mark.parametrize("kind", [DecisionKind.BUILD, DecisionKind.WAIT, DecisionKind.BLOCKED])
def test_what_stood_there_before_is_not_called_right(paths: Paths, kind: DecisionKind) -> None:
    """Its own files are verified; but they are not what was decided."""
    add_kernel(paths, C)
    record(paths, C, replace(place(paths, C, "pkg"), kind=kind, standing=True))
    assert ctl(paths, "ready", C).returncode == 3
    done = ctl(paths, "status", "pkg")
    assert (done.returncode, done.stdout.splitlines()[-1].split()[2] == "built") == (3, False)
    assert "no: these files stood there before" in ctl(paths, "explain", "pkg", C).stdout


def test_many_packages_are_counted(paths: Paths) -> None:
    record(paths, A, *(place(paths, A, f"p{i:02}") for i in range(30)))
    assert "30 more in order" in ctl(paths, "status").stdout
    assert ctl(paths, "status", A).stdout.count("built") == 30


def test_a_name_that_would_steer_the_terminal(paths: Paths) -> None:
    (paths.usr_src / "evil\033[2Jx-1").mkdir()
    (paths.usr_src / "evil\033[2Jx-1" / "dkms.conf").touch()
    os.mkdir(os.fsencode(paths.usr_src) + b"/l\xff-2")
    Path(os.fsdecode(os.fsencode(paths.usr_src) + b"/l\xff-2/dkms.conf")).touch()
    for args in (("list-packages",), ("status",), ("--json", "list-packages")):
        done = ctl(paths, *args)
        assert done.returncode in (0, 3)
        assert "\033" not in done.stdout
        assert "Traceback" not in done.stderr


# ---- empty states --------------------------------------------------------------------------------


def test_nothing_at_all(tmp_path: Path) -> None:
    done = ctl(Paths(tmp_path), "status")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "No kernels below /lib/modules: nothing to do.\n"


def test_no_packages(tmp_path: Path) -> None:
    add_kernel(Paths(tmp_path), A)
    done = ctl(Paths(tmp_path), "status")
    assert (done.returncode, done.stdout) == (0, f"● {A}  ready\n")
    assert done.stderr == "No packages below /usr/src: nothing to do.\n"
    assert ctl(Paths(tmp_path), "list-packages").stderr == done.stderr


def test_headers_alone_do_not_count(paths: Paths) -> None:
    add_kernel(paths, C, modules=False, image=False)
    done = ctl(paths, "status")
    assert done.returncode == 0
    assert f"  {C}  -  (only headers)\n" in done.stdout
    assert ctl(paths, "ready").returncode == 0
    assert ctl(paths, "ready", C).returncode == 3


@pytest.mark.parametrize("verb", ["status", "ready", "list-kernels", "list-packages", "list-jobs", "verify", "wait"])
def test_nothing_breaks_on_an_empty_machine(tmp_path: Path, verb: str) -> None:
    for more in ((), ("--json",)):
        done = ctl(Paths(tmp_path), verb, *more)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr


# ---- JSON ----------------------------------------------------------------------------------------


def test_json_is_the_value_itself(paths: Paths) -> None:
    fail(paths, C)
    found = data(ctl(paths, "status", "--json"))
    assert set(found) == {"kernels", "jobs", "daemon_running", "neighbours", "next_boot", "boot_guard"}
    kernels = [from_json(KernelStatus, k, "stdout") for k in found["kernels"]]
    assert [k.krel for k in kernels] == [A, B, C]
    assert kernels[2].placements[0].reasons[1].wanted_crc == 0xA0
    assert found["daemon_running"] is False


@pytest.mark.parametrize("words", [("--json", "status"), ("status", "--json"), ("--json=short", "status")])
def test_json_short(paths: Paths, words: tuple[str, ...]) -> None:
    done = ctl(paths, *words)
    assert done.stdout.count("\n") == 1
    assert data(done)["jobs"] == []


def test_json_pretty_and_off(paths: Paths) -> None:
    pretty = ctl(paths, "status", "--json=pretty").stdout
    assert pretty.count("\n") > 10
    assert json.loads(pretty) == json.loads(ctl(paths, "--json", "status").stdout)
    assert ctl(paths, "--json=off", "status").stdout == ctl(paths, "status").stdout


def test_json_of_each_verb(paths: Paths) -> None:
    assert data(ctl(paths, "ready", "--json"))["ready"] is True
    kernels = data(ctl(paths, "list-kernels", "--json"))["kernels"]
    assert kernels[0] == {"krel": A, "state": "complete", "readiness": "ready", "running": False, "next_boot": None}
    packages = data(ctl(paths, "list-packages", "--json"))["packages"]
    assert packages == [{"name": "pkg", "version": "1.0", "source": "/usr/src/pkg-1.0"}]
    assert data(ctl(paths, "list-jobs", "--json")) == {"jobs": [], "daemon_running": False}
    explained = data(ctl(paths, "explain", "pkg", B, "--json"))
    assert (explained["package"], explained["krel"], explained["readiness"]) == ("pkg", B, "ready")
    assert explained["decision"]["link_from"] == A
    assert data(ctl(paths, "verify", "--json"))["kernels"][0] == {"krel": A, "files": 1, "problems": []}


# ---- ready, explain, logs, lists -----------------------------------------------------------------


def test_ready(paths: Paths) -> None:
    assert ctl(paths, "ready").returncode == 0
    fail(paths, C)
    unknown = ctl(paths, "ready")
    assert unknown.returncode == 4
    assert "which of them the next boot takes is not known" in unknown.stderr
    assert ctl(paths, "ready", "--all").returncode == 3
    assert ctl(paths, "ready", A).stdout == f"{A}: ready\n"
    assert ctl(paths, "ready", "6.9.9").returncode == 4


@pytest.mark.parametrize(("index", "code", "ready"), [(0, 0, True), (1, 3, False), (7, 4, None)])
def test_ready_asks_for_the_next_boots_kernel(paths: Paths, index: int, code: int, ready: bool | None) -> None:
    fail(paths, C)
    (paths.boot / "grub").mkdir(parents=True)
    entries = [f"menuentry {k} {{ linux /boot/vmlinuz-{k} }}\n" for k in (A, C)]
    maybe = "if keystatus; then menuentry x { linux /boot/vmlinuz-x }; fi\n"
    (paths.boot / "grub/grub.cfg").write_text(f"set default={index}\n{''.join(entries)}{maybe}")
    done = ctl(paths, "ready", "--json")
    assert (done.returncode, data(done)["ready"]) == (code, ready)
    assert data(done)["next_boot"]["krel"] == {0: A, 1: C, 7: None}[index]
    kernels = {k["krel"]: k["next_boot"] for k in data(ctl(paths, "list-kernels", "--json"))["kernels"]}
    assert kernels[A] == (None if index == 7 else index == 0)


def grub(paths: Paths, default: str, *krels: str) -> None:
    """Its first entry is no kernel's."""
    (paths.boot / "grub").mkdir(parents=True)
    entries = [f"menuentry {k} {{ linux /boot/vmlinuz-{k} }}\n" for k in krels]
    text = f"set default={default}\nmenuentry Windows {{ chainloader +1 }}\n{''.join(entries)}"
    (paths.boot / "grub/grub.cfg").write_text(text)


def about_next_boot(paths: Paths, *args: str) -> list[str]:
    return [line for line in ctl(paths, "status", *args).stdout.splitlines() if "next boot" in line]


def test_status_says_when_the_next_boots_kernel_is_unknown(paths: Paths) -> None:
    why = "no boot loader that autokmod knows is installed (GRUB, systemd-boot)"
    assert about_next_boot(paths) == [f"next boot: unknown: {why}"]
    assert about_next_boot(paths, A) == [], "of one kernel nobody asked which"
    grub(paths, "1\nif keystatus; then set default=2; fi", A, B)
    (line,) = about_next_boot(paths)
    assert line == f"next boot: unknown: {data(ctl(paths, 'status', '--json'))['next_boot']['reason']['text']}"


@pytest.mark.parametrize(
    ("default", "line"),
    [("1", f"● {A}  ready  (next boot)"), ("0", "next boot: the next boot takes 'Windows', which is no kernel")],
)
def test_status_says_of_a_next_boot_that_is_known_which_it_is(paths: Paths, default: str, line: str) -> None:
    grub(paths, default, A, B)
    assert about_next_boot(paths) == [line]


def test_status_says_nothing_of_the_next_boot_where_there_is_no_choice(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert about_next_boot(paths) == []
    add_kernel(paths, A)
    paths.modulesd(B).mkdir(parents=True)
    add_headers(paths, B)
    assert about_next_boot(paths) == []
    (paths.modulesd(B) / "build").unlink()
    paths.modulesd(B).rmdir()
    add_kernel(paths, C)
    assert len(about_next_boot(paths)) == 1


def test_explain_a_link(paths: Paths) -> None:
    done = ctl(paths, "explain", "pkg", B)
    assert done.returncode == 0
    for words in (
        f"pkg/1.0 on {B}  linked to {A}",
        "is compatible",
        "61 symbols",
        "→ ../../../../",
        "yes: depmod picks",
    ):
        assert words in done.stdout


def test_explain_a_failure(paths: Paths) -> None:
    fail(paths, C)
    done = ctl(paths, "explain", "pkg", C)
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[2] == "because   the build failed: a.c:3: no member"
    assert "s0      0x000000a0  0x000000b0  vmlinux   crc-mismatch" in lines
    assert "and 20 more: --all shows those that were kept" in lines
    assert f"do        see 'autokmodctl logs pkg {C}'" in lines
    everything = ctl(paths, "explain", "pkg", C, "--all").stdout
    assert "s29" in everything
    assert "a.c:9: error 6" in everything


def test_explain_what_was_never_examined(paths: Paths) -> None:
    add_source(paths, "new", "2")
    add_kernel(paths, C)
    for package, krel in (("new", A), ("pkg", C)):
        done = ctl(paths, "explain", package, krel)
        assert done.returncode == 1
        assert f"{package} was never examined for {krel}." in done.stdout
        assert f"autokmodctl reconcile {krel}" in done.stdout
    assert data(ctl(paths, "explain", "new", A, "--json"))["decision"] is None


def test_explain_what_is_not_there(paths: Paths) -> None:
    assert ctl(paths, "explain", "nix", A).returncode == 4
    assert ctl(paths, "explain", "pkg", "6.9.9").returncode == 4


def test_logs(paths: Paths) -> None:
    log = paths.builds / "key-pkg" / "build.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"make: Entering\n\tcc \xff a.c\n")
    assert ctl(paths, "logs", "pkg", B).stdout == "make: Entering\n\tcc � a.c\n"
    assert data(ctl(paths, "logs", "pkg", A, "--json"))["lines"][0] == "make: Entering"
    log.unlink()
    assert ctl(paths, "logs", "pkg", A).returncode == 1
    assert ctl(paths, "logs", "nix", A).returncode == 4


def test_lists_are_for_the_shell(paths: Paths) -> None:
    assert ctl(paths, "list-kernels", "--no-legend").stdout.split()[0] == A
    assert ctl(paths, "list-packages", "--no-legend").stdout == "pkg  1.0  /usr/src/pkg-1.0\n"
    assert ctl(paths, "list-kernels").stdout.startswith("KERNEL")


def test_completion(paths: Paths) -> None:
    """bash itself completes, with the real lists behind it."""
    script = CHECKOUT / "autokmod" / "data" / "completions" / "autokmodctl"
    source = f"""
        autokmodctl() {{ {" ".join(CTL)} "$@"; }}
        . {script}
        complete() {{
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _autokmodctl
            echo "${{COMPREPLY[*]}}"
        }}
        complete autokmodctl rec
        complete autokmodctl --root {paths.root} explain ""
        complete autokmodctl --root {paths.root} explain pkg 6.1.0-5
        complete autokmodctl --root {paths.root} reconcile --w
        complete autokmodctl --root {paths.root} build p
        complete autokmodctl --root {paths.root} build pkg --kernel 6.1.0-5
        complete autokmodctl gc --d
        complete autokmodctl adopt ""
        complete autokmodctl release dkms --d
    """
    done = subprocess.run(["bash", "-c", source], env=ENV, capture_output=True, text=True)
    assert done.stderr == ""
    assert [line.split() for line in done.stdout.splitlines()] == [
        *(["reconcile"], ["pkg"], [A, B], ["--wait"]),
        *(["pkg"], [A, B], ["--dry-run"]),
        *(["dkms"], ["--dry-run"]),
    ]


# ---- verify --------------------------------------------------------------------------------------


def test_verify(paths: Paths) -> None:
    done = ctl(paths, "verify")
    assert (done.returncode, done.stdout) == (0, f"{A}: 1 file as recorded\n{B}: 1 file as recorded\n")


def test_verify_reads_what_stat_does_not_tell(paths: Paths) -> None:
    file = paths.own_dir(A, "pkg") / "pkg.ko"
    before = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ctl(paths, "status").returncode == 0
    done = ctl(paths, "verify", "--json")
    assert done.returncode == 1
    problems = [[p["kind"] for p in k["problems"]] for k in data(done)["kernels"]]
    assert problems == [["content-differs"], ["content-differs"]]  # the link leads to the same bytes


def test_verify_sees_strangers_and_lost_indexes(paths: Paths) -> None:
    (paths.own_dir(A, "pkg") / "stranger.ko").touch()
    (paths.modulesd(B) / "modules.dep").unlink()
    kernels = data(ctl(paths, "verify", "--json"))["kernels"]
    assert [[p["kind"] for p in k["problems"]] for k in kernels] == [["not-recorded"], ["no-index"]]
    assert ctl(paths, "verify", "6.9.9").returncode == 4


# ---- on a terminal -------------------------------------------------------------------------------


def on_terminal(paths: Paths, *args: str, lines: int = 50, env: Mapping[str, str] | None = None) -> str:
    """What a terminal of that height receives."""
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (lines, 100))
        command = [*CTL, "--root", str(paths.root), *args]
        terminal = {**ENV, "TERM": "xterm", **(env or {})}
        with subprocess.Popen(command, env=terminal, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL):
            os.close(slave)
            return b"".join(iter(lambda: _read(master), b"")).decode()
    finally:
        os.close(master)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:  # EIO: nobody writes any more
        return b""


def test_colour_on_a_terminal(paths: Paths) -> None:
    assert "\033[32m●\033[0m" in on_terminal(paths, "status")
    for off in ({"NO_COLOR": "1"}, {"SYSTEMD_COLORS": "0"}, {"TERM": "dumb"}):
        assert "\033" not in on_terminal(paths, "status", env=off)
    assert "\033" in on_terminal(paths, "status", env={"NO_COLOR": ""})


def test_json_is_pretty_on_a_terminal(paths: Paths) -> None:
    assert on_terminal(paths, "list-kernels", "--json").startswith('{\r\n  "version": 1,')


@pytest.mark.parametrize(
    ("args", "lines", "env", "paged"),
    [
        ((), 3, {}, True),
        ((), 50, {}, False),
        (("--no-pager",), 3, {}, False),
        ((), 3, {"SYSTEMD_PAGER": "cat"}, False),
        ((), 3, {"SYSTEMD_PAGER": ""}, False),
        ((), 3, {"SYSTEMD_PAGER": "/no/such/pager"}, False),
    ],
)
def test_pager(paths: Paths, args: tuple[str, ...], lines: int, env: dict[str, str], paged: bool) -> None:
    plain = {"NO_COLOR": "1", "PAGER": "sed s/^/paged:/", **env}
    shown = on_terminal(paths, "status", *args, lines=lines, env=plain)
    assert shown.startswith(f"paged:● {A}" if paged else f"● {A}")


@pytest.mark.parametrize(
    ("env", "command"),
    [
        ({}, ("less",)),
        ({"PAGER": "more -d"}, ("more", "-d")),
        ({"PAGER": "more", "SYSTEMD_PAGER": "most"}, ("most",)),
        ({"PAGER": "more", "SYSTEMD_PAGER": ""}, ()),
        ({"PAGER": "cat"}, ()),
    ],
)
def test_choice_of_pager(env: dict[str, str], command: tuple[str, ...]) -> None:
    assert pager_cmd(env) == command


def test_no_pager_of_the_callers_choice_under_sudo() -> None:
    env = {"PAGER": "/home/me/shell", "SYSTEMD_PAGER": "sh", "SUDO_UID": "1000"}
    if os.geteuid() == 0:
        assert pager_cmd(env) == ("less",)
        assert pager_env(env)["LESSSECURE"] == "1"
    assert "LESSSECURE" not in pager_env({})


# ---- the queue -----------------------------------------------------------------------------------


def test_reconcile_without_daemon(paths: Paths) -> None:
    done = ctl(paths, "reconcile", A)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"Queued: {A}" in done.stderr
    assert "autokmodd is not running" in done.stderr
    assert "autokmodd --oneshot" in done.stderr
    (job,) = Spool(paths).jobs()
    assert (job.verb, job.krel, job.why, job.force) == (Verb.RECONCILE, A, "admin", False)
    status = ctl(paths, "status")
    assert status.returncode == 3
    assert f"○ {A}  pending" in status.stdout
    assert "autokmodd is not running, and a job waits" in status.stderr


def test_reconcile_all_with_force(paths: Paths) -> None:
    add_kernel(paths, C, modules=False, image=False)
    assert ctl(paths, "reconcile", "--force").returncode == 0
    assert sorted((j.krel, j.force) for j in Spool(paths).jobs()) == [(A, True), (B, True)]


def test_reconcile_wait_without_daemon_fails_at_once(paths: Paths) -> None:
    assert ctl(paths, "reconcile", A, "--wait").returncode == 1


def test_reconcile_what_is_not_there(paths: Paths) -> None:
    done = ctl(paths, "reconcile", A, "6.9.9")
    assert done.returncode == 4
    assert Spool(paths).jobs() == ()


def test_reconcile_with_nothing_to_do(tmp_path: Path) -> None:
    done = ctl(Paths(tmp_path), "reconcile")
    assert (done.returncode, done.stderr) == (0, "No kernels below /lib/modules: nothing to do.\n")


def waiting(paths: Paths, *args: str) -> subprocess.Popen[str]:
    command = [*CTL, "--root", str(paths.root), *args]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def await_job(paths: Paths) -> None:
    deadline = time.monotonic() + 30
    while not Spool(paths).jobs():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def take_all(paths: Paths) -> None:
    spool = Spool(paths)
    for entry in spool.read()[0]:
        assert spool.remove(entry)


def test_reconcile_wait(paths: Paths) -> None:
    """It ends when the job's file goes, and tells how the kernel stands then."""
    with daemon_lock(paths), waiting(paths, "reconcile", B, "--wait") as process:
        await_job(paths)
        take_all(paths)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, f"Queued: {B}\n")
    assert out.startswith(f"● {B}  ready\n")


def test_reconcile_wait_for_what_fails(paths: Paths) -> None:
    fail(paths, C)
    with daemon_lock(paths), waiting(paths, "reconcile", C, "--wait") as process:
        await_job(paths)
        take_all(paths)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "pkg failed: the build failed" in out


def test_the_daemon_ends_meanwhile(paths: Paths) -> None:
    with daemon_lock(paths):
        process = waiting(paths, "reconcile", B, "--wait")
        await_job(paths)
        assert process.stderr is not None
        assert process.stderr.readline() == f"Queued: {B}\n"
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith("autokmodd ended before the work was done")


def test_control_c_detaches(paths: Paths) -> None:
    with daemon_lock(paths), waiting(paths, "reconcile", B, "--wait") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"Queued: {B}\n"
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "Not waiting any longer; the work goes on. 'autokmodctl wait' waits again.\n"
    assert [j.krel for j in Spool(paths).jobs()] == [B]


def test_wait_with_nothing_queued(paths: Paths) -> None:
    assert ctl(paths, "wait").returncode == 0
    assert ctl(paths, "wait", A).stdout == ctl(paths, "status", A).stdout


def test_retry_takes_what_failed(paths: Paths) -> None:
    done = ctl(paths, "retry")
    assert (done.returncode, done.stderr) == (0, "Nothing failed: nothing to try again.\n")
    fail(paths, C)
    assert ctl(paths, "retry").returncode == 0
    assert [(j.krel, j.force) for j in Spool(paths).jobs()] == [(C, True)]


def test_list_and_cancel_jobs(paths: Paths) -> None:
    ctl(paths, "reconcile", A, B)
    listed = ctl(paths, "list-jobs", "--no-legend").stdout.splitlines()
    assert [line.split()[1:3] for line in listed] == [[f"reconcile-{A}", "queued"], [f"reconcile-{B}", "queued"]]
    assert ctl(paths, "cancel", f"reconcile-{A}").returncode == 0
    assert [j.krel for j in Spool(paths).jobs()] == [B]
    assert ctl(paths, "cancel", f"reconcile-{A}").returncode == 4


# ---- a plain user --------------------------------------------------------------------------------


@pytest.fixture
def as_nobody(paths: Paths) -> Iterator[tuple[str, ...]]:
    """A plain user can reach the tree: pytest's own directories let nobody else in."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    closed = [d for d in (paths.root, *paths.root.parents) if not d.stat().st_mode & 0o001]
    for directory in closed:
        directory.chmod(directory.stat().st_mode | 0o011)
    yield NOBODY
    for directory in closed:
        directory.chmod(directory.stat().st_mode & ~0o011)


def test_plain_users_may_look(paths: Paths, as_nobody: tuple[str, ...]) -> None:
    for args in (("status",), ("ready",), ("explain", "pkg", B), ("list-jobs",), ("list-kernels",), ("verify",)):
        mine, theirs = ctl(paths, *args), ctl(paths, *args, before=as_nobody)
        assert (theirs.returncode, theirs.stdout, theirs.stderr) == (mine.returncode, mine.stdout, mine.stderr)


def test_plain_users_see_the_daemon(paths: Paths, as_nobody: tuple[str, ...]) -> None:
    with daemon_lock(paths):
        paths.daemon_lock.chmod(0o600)
        assert data(ctl(paths, "status", "--json", before=as_nobody))["daemon_running"] is True


def test_plain_users_may_not_change(paths: Paths, as_nobody: tuple[str, ...]) -> None:
    for args in (("reconcile", A), ("cancel", "reconcile-x")):
        done = ctl(paths, *args, before=as_nobody)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("autokmodctl: not permitted to")
    assert Spool(paths).jobs() == ()


# ---- a command line tool's manners ---------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help(verb: str) -> None:
    done = subprocess.run([*CTL, *verb.split(), "--help"], env=ENV, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: autokmodctl {verb}".rstrip())
    if not verb:
        assert [v for v in VERBS if f"    {v} " not in done.stdout] == []


@pytest.mark.parametrize(
    "args",
    [("bogus",), ("status", "a", "b"), ("explain",), ("--json=xml", "status"), ("--nix",), ("ready", "--root", "/nix")],
)
def test_wrong_usage(paths: Paths, args: tuple[str, ...]) -> None:
    done = ctl(paths, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_version(paths: Paths) -> None:
    assert ctl(paths, "--version").stdout.startswith("autokmod 0.")


def test_nobody_reads_on(paths: Paths) -> None:
    """More than a pipe holds, and a reader that leaves."""
    long = "x" * 200
    record(paths, A, *(place(paths, A, f"{long}{i:04}") for i in range(500)))
    for args in (("status", A), ("status", "--json"), ("status", "--json=pretty")):
        command = [*CTL, "--root", str(paths.root), *args]
        with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 3  # what it was to say: a package is not examined


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("list-jobs", "--help"), ("list-jobs",)])
def test_nobody_reads_at_all(paths: Paths, words: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([*CTL, "--root", str(paths.root), *words], env=ENV, stdout=write, stderr=write)
    finally:
        os.close(write)
    assert done.returncode == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(paths: Paths, closed: str) -> None:
    for words, code in (("ready --all", 0), ("reconcile", 0), ("nonsense", 2)):
        argv = ["sh", "-c", f"{' '.join(CTL)} --root {paths.root} {words} {closed}"]
        done = subprocess.run(argv, env=ENV, capture_output=True, text=True)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), words
    for file in paths.spool.iterdir():
        assert json.loads(file.read_text())["verb"] == "reconcile", "nothing was printed into it"


def test_broken_configuration_is_told_and_hides_nothing(paths: Paths) -> None:
    paths.etc.mkdir(parents=True)
    (paths.etc / "autokmod.toml").write_text("[daemon]\nsettel_s = 3\n")
    for verb in ("status", "ready", "list-kernels"):
        done = ctl(paths, verb)
        assert done.returncode == 78
        assert A in done.stdout
        assert "settel_s" in done.stderr
        assert "settle_s" in done.stderr


def test_required_package_that_is_absent(paths: Paths) -> None:
    (paths.packages_d).mkdir(parents=True)
    (paths.packages_d / "nvidia.toml").write_text("required = true\n")
    done = ctl(paths, "ready", A)
    assert done.returncode == 3
    assert "nvidia is required, and not on this machine" in done.stdout


def test_damaged_record_is_named(paths: Paths) -> None:
    paths.record(A).write_bytes(b"\0\0\0")
    done = ctl(paths, "status", A)
    assert done.returncode == 3
    assert str(paths.record(A)) in done.stdout
    assert ctl(paths, "verify", A).returncode == 1
    assert ctl(paths, "logs", "pkg", A).returncode == 1


def test_blocked_and_waiting_and_skipped_in_words(paths: Paths) -> None:
    add_kernel(paths, C)
    good = place(paths, C, "pkg")
    kinds = (DecisionKind.BLOCKED, DecisionKind.WAIT, DecisionKind.SKIP)
    why = (Reason("because", "of something", hint="do that"),)
    placements = [replace(good, package=str(k), kind=k, files=(), verified=False, reasons=why) for k in kinds]
    write_record(paths, KernelRecord(C, time.time() + 1, tuple(placements)))
    for name in map(str, kinds):
        add_source(paths, name, "1.0")
    out = ctl(paths, "status", C).stdout
    assert [line.split()[2] for line in out.splitlines()[1:4]] == ["blocked", "waits", "skipped"]
    assert out.count("→ do that") == 2
    placements = [replace(p, log=None) for p in placements]
    write_record(paths, KernelRecord(C, time.time() + 1, tuple(placements)))
    assert "key-pkg" not in ctl(paths, "explain", "skip", C).stdout
    assert ctl(paths, "logs", "skip", C).stderr == f"skip was never built for {C}: there is no log\n"


HEAVY = ("gi", "pydbus", "structlog", "zstandard", "subprocess", "threading", "asyncio", "logging", "ssl")


def test_start_up_brings_nothing_heavy(paths: Paths) -> None:
    """`status` starts in a few hundredths of a second because of what it leaves out."""
    command = [sys.executable, "-X", "importtime", "-m", "autokmod.ctl.main", "--root", str(paths.root), "status"]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "autokmod.ctl.render" in loaded  # what import_module itself loads is not listed, but what that imports
    assert loaded & set(HEAVY) == set()
