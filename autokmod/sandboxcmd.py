"""The command line of the sandbox, from a value that says what is in it. Pure; sandbox.py says why it is so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NICE = 10
OOM_SCORE_ADJ = 500  # where memory runs out, a compiler goes before what the machine is there for
# Not choom(1), which refuses to go on where /proc is read-only.
EXPENDABLE = f'2>/dev/null echo {OOM_SCORE_ADJ} >/proc/self/oom_score_adj; exec "$@"'
# A PID namespace around the sandbox's own, whose first process is the sandbox's bwrap: when that ends or is killed, the
# kernel ends all within. The first process inside the sandbox cannot be relied on for it. It has the build's user, so a
# build may trace it and make it forget that it was to end with its parent.
HULL: tuple[str, ...] = (
    "bwrap",
    "--unshare-user",
    "--unshare-pid",
    "--as-pid-1",
    "--die-with-parent",
    "--dev-bind",
    "/",
    "/",
)
# The /proc of these processes: where the one outside hides what is others', the bwrap within would find itself nowhere.
HULL += ("--proc", "/proc", "--")


@dataclass(frozen=True, slots=True)
class User:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Mount:
    host: str
    inside: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    text: str
    inside: str


@dataclass(frozen=True, slots=True)
class Limits:
    memory_mb: int  # one process
    processes: int  # of this sandbox; before Linux 5.14: of the user, over all that runs as it
    file_mb: int


@dataclass(frozen=True, slots=True)
class Sandbox:
    user: User | None  # None: autokmod itself runs as an ordinary user, there is nothing to drop
    mounts: tuple[Mount, ...]  # in order: a later one lies over an earlier one
    links: tuple[Link, ...]
    cwd: str
    limits: Limits
    options: frozenset[str]  # what this bwrap knows beyond 0.4; empty and unused without bwrap
    contained: bool = True  # False: build.allow_unsandboxed, the user is dropped and that is all


def sandbox_cmd(box: Sandbox, command: Sequence[str], filter_fd: int | None = None) -> list[str]:
    """`filter_fd`: from where bwrap reads the system calls that are refused."""
    outside = [*drop_cmd(box.user), *limit_cmd(box.limits)]
    count = count_cmd(box.limits)
    if not box.contained:
        return [*outside, *count, *command]
    refused = ["--seccomp", str(filter_fd)] if filter_fd is not None else []
    return [*outside, *HULL, *bwrap_cmd(box, refused), *count, *command]


def drop_cmd(user: User | None) -> list[str]:
    ids = ["--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups", "--bounding-set=-all"] if user else []
    return ["setpriv", *ids, "--inh-caps=-all", "--no-new-privs"]


def count_cmd(limits: Limits) -> list[str]:
    """Set within the sandbox: what is inherited by a user namespace is counted over all of the user's."""
    return ["prlimit", f"--nproc={limits.processes}"]


def limit_cmd(limits: Limits) -> list[str]:
    mib = 1 << 20
    return [
        *("sh", "-c", EXPENDABLE, "sh"),
        "prlimit",
        f"--as={limits.memory_mb * mib}",
        f"--fsize={limits.file_mb * mib}",
        "--core=0",
        *("nice", "-n", str(NICE)),
        *("ionice", "-c", "3"),
    ]


def bwrap_cmd(box: Sandbox, refused: Sequence[str] = ()) -> list[str]:
    argv = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
    if "--disable-userns" in box.options:
        argv += ["--unshare-user", "--disable-userns"]
    for mount in box.mounts:
        if mount.inside in ("/proc", "/dev", "/tmp"):
            raise ValueError(f"{mount.inside} is the sandbox's own")
    argv += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    if "--size" in box.options:
        argv += ["--size", str(box.limits.memory_mb << 20)]
    argv += ["--tmpfs", "/tmp"]
    for mount in box.mounts:
        argv += ["--bind" if mount.writable else "--ro-bind", mount.host, mount.inside]
    for link in box.links:
        argv += ["--symlink", link.text, link.inside]
    return [*argv, "--remount-ro", "/", *refused, "--chdir", box.cwd, "--"]
