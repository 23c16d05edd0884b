"""The room in which foreign code runs: recipes are evaluated and packages are built in it.

    setpriv (unprivileged user, no capabilities) → prlimit, nice, ionice
    → bwrap (so that all ends with it) → bwrap (new root) → prlimit (processes) → command

The user is dropped before bwrap starts: `bwrap --uid` called by root only renames root, and the process would
still read root's files. Inside, / is a read-only tmpfs into which the root's /usr (with /lib, /bin … as the root
has them) and a few files of /etc are bound read-only. There is no network, no /home, /root, /run, no key and no
state of autokmod; the only writable places are /tmp and what the caller binds. All processes live in PID
namespaces of their own and end with the command. What no limit would count is refused by seccomp.py.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from autokmod.config import Config
from autokmod.errors import FormatError, SandboxUnavailable, ToolMissing
from autokmod.files import read_regular
from autokmod.paths import Paths
from autokmod.run import Cancel, Result, find_tool, run
from autokmod.sandboxcmd import Limits, Link, Mount, Sandbox, User, sandbox_cmd
from autokmod.seccomp import refusal_filter

TOP = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# What compilers, linkers and configure scripts read; nothing that names a user or holds a secret.
ETC = (
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "os-release",
    "debian_version",
    "lsb-release",
    "redhat-release",
    "system-release",
    "fedora-release",
    "SuSE-release",
    "arch-release",
    "dkms",
)
PROBE_LIMIT_S = 30
PROC_SYS = Path("/proc/sys")  # of the running kernel, whatever the root


# ---- what of this machine goes in ----------------------------------------------------------------


def open_sandbox(
    paths: Paths,
    config: Config,
    *,
    cwd: str,
    mounts: Sequence[Mount] = (),
    links: Sequence[Link] = (),
    limits: Limits | None = None,
) -> Sandbox:
    """Nothing is started. Raises SandboxUnavailable where a tool or the user is missing."""
    user = find_user(paths, config)
    limits = limits or build_limits(config)
    if not _needs_bwrap(paths, config):
        return Sandbox(user, (), (), cwd, limits, frozenset(), contained=False)
    options = _bwrap_options(_tools())
    system_mounts, system_links = read_system(paths)
    return Sandbox(user, (*system_mounts, *mounts), (*system_links, *links), cwd, limits, options)


def build_limits(config: Config) -> Limits:
    build = config.build
    return Limits(build.memory_limit_mb, build.process_limit, build.file_limit_mb)


def read_system(paths: Paths) -> tuple[tuple[Mount, ...], tuple[Link, ...]]:
    """The system directories as the root has them: a merged /usr has links where an older one has directories."""
    mounts: list[Mount] = []
    links: list[Link] = []
    for name in TOP:
        host = paths.at(name)
        if host.is_symlink():
            links.append(Link(os.readlink(host), f"/{name}"))
        elif host.is_dir():
            mounts.append(Mount(str(host), f"/{name}"))
    for name in ETC:
        host = paths.at(f"etc/{name}")
        if host.is_symlink():
            links.append(Link(os.readlink(host), f"/etc/{name}"))
        elif host.exists():
            mounts.append(Mount(str(host), f"/etc/{name}"))
    return tuple(mounts), tuple(links)


def kernel_mounts(paths: Paths, modulesd: str) -> tuple[Mount, ...]:
    """The headers of a kernel that lie outside /usr and /lib: of one built by hand, say in /home/me/linux.

    Each is bound at its own path and where the link in the modules directory says, so that absolute paths in
    its Makefile hold. `build/source` is what `make O=` leaves behind.
    """
    found: dict[str, str] = {}
    for link in ("build", "source", "build/source"):
        place = Path(modulesd, link)
        try:
            real = paths.resolve(place)
        except FormatError:
            continue
        if not real.is_dir():
            continue
        spoken = _first_target(paths, place)
        for inside in {paths.inside(real), spoken}:
            if inside and not inside.startswith(("/usr/", "/lib/")):
                found[inside] = str(real)
    return tuple(Mount(found[inside], inside) for inside in sorted(found))


def _first_target(paths: Paths, link: Path) -> str | None:
    if not link.is_symlink():
        return None
    text = os.readlink(link)
    return os.path.normpath(text) if text.startswith("/") else None


def find_user(paths: Paths, config: Config) -> User | None:
    """The build user from the root's /etc/passwd, else from the host's. Raises SandboxUnavailable."""
    if os.geteuid() != 0:
        return None
    name = config.build.user
    for passwd in dict.fromkeys((paths.at("etc/passwd"), Path("/etc/passwd"))):
        user = _passwd_user(passwd, name)
        if user is not None and user.uid == 0:
            raise SandboxUnavailable(f"the build user {name} is root", "set build.user to an unprivileged user")
        if user is not None:
            return user
    hint = f"run 'systemd-sysusers', or 'useradd --system --no-create-home --shell /usr/sbin/nologin {name}'"
    raise SandboxUnavailable(f"there is no user {name}", hint)


def _passwd_user(passwd: Path, name: str) -> User | None:
    try:
        lines = read_regular(passwd).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    for fields in (line.split(":") for line in lines):
        if fields[0] == name and len(fields) >= 4 and fields[2].isdecimal() and fields[3].isdecimal():
            return User(name, int(fields[2]), int(fields[3]))
    return None


def _needs_bwrap(paths: Paths, config: Config) -> bool:
    if not config.build.allow_unsandboxed:
        return True
    if paths.root != Path("/"):
        why = "build.allow_unsandboxed works on the running system only"
        raise SandboxUnavailable(why, "remove that setting and install bubblewrap")
    return False


def _tools() -> str:
    """The path of bwrap. Raises SandboxUnavailable for the first tool that is missing."""
    for tool, package in (("setpriv", "util-linux"), ("prlimit", "util-linux"), ("ionice", "util-linux")):
        _find(tool, package)
    return _find("bwrap", "bubblewrap")


def _find(tool: str, package: str) -> str:
    try:
        return find_tool(tool)
    except ToolMissing as exc:
        why = f"{package} ({tool}) is not installed" if package != tool else f"{tool} is not installed"
        raise SandboxUnavailable(why, f"install it: apt-get install {package}, or dnf install {package}") from exc


def _bwrap_options(bwrap: str) -> frozenset[str]:
    return _read_options(bwrap, os.stat(bwrap).st_mtime_ns)


@functools.cache
def _read_options(bwrap: str, _mtime_ns: int) -> frozenset[str]:
    """--size came with bubblewrap 0.7, --disable-userns with 0.8; RHEL 9 has 0.4."""
    text = run([bwrap, "--help"], timeout_s=PROBE_LIMIT_S).output
    return frozenset(option for option in ("--size", "--disable-userns") if f" {option} " in text)


# ---- a command in it -----------------------------------------------------------------------------


def run_boxed(
    box: Sandbox,
    command: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    log: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    cancelled: Cancel | None = None,
    watch: Callable[[int], bool] | None = None,
) -> Result:
    """As run(), without its check."""
    with _filter(box) as fd:
        return run(
            sandbox_cmd(box, command, fd),
            timeout_s=timeout_s,
            env=env,
            log=log,
            pass_fds=pass_fds if fd is None else (*pass_fds, fd),
            check=False,
            cancelled=cancelled,
            watch=watch,
        )


@contextmanager
def _filter(box: Sandbox) -> Iterator[int | None]:
    """A pipe that holds the program of seccomp.py; None where there is none."""
    program = refusal_filter(os.uname().machine) if box.contained else None
    if program is None:
        yield None
        return
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(write_fd, program)  # some hundred bytes: a pipe takes them at once
        os.close(write_fd)
        yield read_fd
    finally:
        os.close(read_fd)


# ---- does it start? ------------------------------------------------------------------------------


def check_sandbox(paths: Paths, config: Config) -> None:
    """Start the sandbox once. Raises SandboxUnavailable with the sentence that says what to install or set."""
    box = open_sandbox(paths, config, cwd="/")
    for place in (paths.at("usr"), paths.work):
        closed = closed_directory(place, box.user)
        if closed is not None:
            why = f"user {box.user.name if box.user else '?'} may not enter {closed}"
            raise SandboxUnavailable(why, f"chmod o+x {closed}")
    result = run_boxed(box, ["/bin/sh", "-c", ":"], timeout_s=PROBE_LIMIT_S)
    if result.returncode != 0:
        raise SandboxUnavailable(*explain_failure(result.output, PROC_SYS))


def closed_directory(path: Path, user: User | None) -> Path | None:
    """The first directory on the way to `path` that the user may not enter."""
    if user is None:
        return None
    for directory in (*reversed(path.parents), path):
        try:
            found = directory.stat()
        except FileNotFoundError:
            return None
        if not _may_enter(found, user):
            return directory
    return None


def _may_enter(found: os.stat_result, user: User) -> bool:
    if found.st_uid == user.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == user.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def explain_failure(output: str, proc_sys: Path) -> tuple[str, str]:
    """Why bwrap did not start, from what it printed and from the kernel's settings; and what to do."""
    said = next((line.strip() for line in output.splitlines() if line.strip()), "it printed nothing")
    if "proc" in said and "mount" in said.lower():
        return f"/proc cannot be mounted ({said})", "in a container, give it an unmasked /proc (or --privileged)"
    for name, bad, good in (
        ("kernel/unprivileged_userns_clone", "0", "1"),  # Debian
        ("user/max_user_namespaces", "0", "15000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu 24.04
    ):
        if _sysctl(proc_sys, name) == bad:
            key = name.replace("/", ".")
            how = f"sysctl -w {key}={good}, and keep it in /etc/sysctl.d/autokmod.conf"
            if "apparmor" in key:
                how += "; or give /usr/bin/bwrap an AppArmor profile with 'userns,'"
            return f"unprivileged user namespaces are forbidden by {key}={bad} ({said})", how
    return said, "run 'bwrap --unshare-all --ro-bind / / true' as that user to see it fail"


def _sysctl(proc_sys: Path, name: str) -> str | None:
    try:
        return (proc_sys / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
