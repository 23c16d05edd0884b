"""Evaluating a dkms.conf: it is bash, and many are programs. It runs in the sandbox; what comes back is data.

`dkmseval.sh` sources the confs with DKMS's variables set and writes the variables to a file of their own, so that
nothing a conf prints can be taken for a value.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from autokmod.config import Config
from autokmod.errors import RecipeError
from autokmod.model import Kernel, Package
from autokmod.observe.sources import CONF, find_overrides
from autokmod.paths import Paths
from autokmod.sandbox import check_sandbox, closed_directory, kernel_mounts, open_sandbox, run_boxed
from autokmod.sandboxcmd import Limits, Link, Mount, Sandbox

SCRIPT = Path(__file__).with_suffix(".sh")
DKMS_TREE = "/var/lib/dkms"
SOURCE_TREE = "/usr/src"
LIMITS = Limits(memory_mb=512, processes=512, file_mb=8)  # a conf of 10,000 modules fills half a MiB


@dataclass(frozen=True, slots=True)
class RawConf:
    """Variables as bash had them: name → index → value. `matches`: regular expressions, 0 yes, 1 no, 2 not one."""

    values: Mapping[str, Mapping[int, str]]
    matches: Mapping[str, Mapping[int, int]]


def dkms_variables(package: Package, kernel: Kernel, arch: str, config: Config) -> dict[str, str]:
    """What confs, scripts and make command lines of DKMS packages may use."""
    kernel_source_dir = f"/lib/modules/{kernel.krel}/build"
    return {
        "kernelver": kernel.krel,
        "arch": arch,
        "module": package.name,
        "module_version": package.version,
        "kernel_source_dir": kernel_source_dir,
        "kernel_config": f"{kernel_source_dir}/.config",
        "dkms_tree": DKMS_TREE,
        "source_tree": SOURCE_TREE,
        "install_tree": "/lib/modules",
        "parallel_jobs": str(config.build.jobs or os.cpu_count() or 1),
    }


def evaluate(paths: Paths, config: Config, package: Package, kernel: Kernel, arch: str) -> RawConf:
    """Raises RecipeError for whatever the conf does, SandboxUnavailable where nothing can be evaluated."""
    box = _sandbox(paths, config, package, kernel)
    confs = _confs(paths, package, kernel, arch, contained=box.contained)
    script = ["bash", "-O", "extglob", "-c", SCRIPT.read_text(encoding="utf-8"), "autokmod-eval"]
    with tempfile.TemporaryFile() as values, tempfile.TemporaryFile() as said:
        result = run_boxed(
            box,
            [*script, str(values.fileno()), kernel.krel, *confs],
            timeout_s=config.build.eval_limit_s,
            env=dkms_variables(package, kernel, arch, config),
            log=said,
            pass_fds=(values.fileno(),),
        )
        triples = _triples(_content(values))
        text = _content(said).decode("utf-8", "replace").replace(f"{DKMS_TREE}/{package.id}/source", package.source)
    if not triples and text.startswith(("bwrap:", "setpriv:", "prlimit:", "ionice:")):
        check_sandbox(paths, config)  # a conf may print the same: where the sandbox starts, it is the conf's failure
    if not triples or triples[-1][0] != "END":
        raise _broken(config, package, triples, result.returncode, text)
    return _raw(package, triples)


def _sandbox(paths: Paths, config: Config, package: Package, kernel: Kernel) -> Sandbox:
    """The source is seen at /usr/src, and where DKMS would have its link to it."""
    spoken = paths.inside(package.source)
    source = paths.resolve(package.source)
    inside = paths.inside(source)
    mounts = list(kernel_mounts(paths, kernel.modulesd))
    if not inside.startswith("/usr/"):
        mounts.append(Mount(str(source), inside))
    boot_config = paths.boot / f"config-{kernel.krel}"
    if boot_config.is_file() and boot_config.stat().st_mode & 0o004:
        mounts.append(Mount(str(boot_config), paths.inside(boot_config)))
    links = (Link(spoken, f"{DKMS_TREE}/{package.id}/source"),)
    box = open_sandbox(paths, config, cwd="/", mounts=mounts, links=links, limits=LIMITS)
    closed = closed_directory(source, box.user)
    if closed is not None:
        why = f"user {config.build.user} may not enter {closed}: chmod o+x {closed}"
        raise RecipeError(f"{package.source}/{CONF}", "", why)
    visible = [m for m in box.mounts if closed_directory(Path(m.host).parent, box.user) is None]
    return Sandbox(box.user, tuple(visible), box.links, box.cwd, box.limits, box.options, box.contained)


def _confs(paths: Paths, package: Package, kernel: Kernel, arch: str, *, contained: bool) -> list[str]:
    """The conf and its overrides, in the order in which DKMS sources them; those that are there."""
    name, version, krel = package.name, package.version, kernel.krel
    order = (
        f"{name}.conf",
        f"{name}-{version}.conf",
        f"{name}-{version}-{krel}.conf",
        f"{name}-{version}-{krel}-{arch}.conf",
        f"{name}--{krel}.conf",
        f"{name}--{krel}-{arch}.conf",
    )
    there = {path.name for path in find_overrides(paths, name, version)}
    top = f"{DKMS_TREE}/{package.id}/source" if contained else package.source
    return [f"{top}/{CONF}", *(f"/etc/dkms/{file}" for file in order if file in there)]


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(LIMITS.file_mb << 20)


def _triples(data: bytes) -> list[tuple[str, str, str]]:
    """A last record that is cut off is left out."""
    parts = data.decode("utf-8", "surrogateescape").split("\0")[:-1]
    return list(zip(parts[::3], parts[1::3], parts[2::3], strict=False))


def _broken(
    config: Config, package: Package, triples: Sequence[tuple[str, str, str]], returncode: int | None, said: str
) -> RecipeError:
    """Which file, and how it ended: with bash's own line where it printed one."""
    conf = next((value for name, _, value in reversed(triples) if name in ("CONF", "SYNTAX")), None)
    source = f"{DKMS_TREE}/{package.id}/source"
    path = (conf or f"{source}/{CONF}").replace(source, package.source)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if returncode is None:
        return RecipeError(path, "", f"evaluating it took longer than {config.build.eval_limit_s} s")
    if any(name == "SYNTAX" for name, _, _ in triples):
        why = _bash_line(lines, path) or "bash cannot read it"
        hint = f": user {config.build.user} has to read it, chmod -R o+rX {os.path.dirname(path)}"
        return RecipeError(path, "", why + (hint if why == "Permission denied" else ""))
    if len(said) >= LIMITS.file_mb << 20 or returncode == 128 + 25:  # SIGXFSZ
        return RecipeError(path, "", f"it printed more than {LIMITS.file_mb} MiB")
    last = f" after '{lines[-1][:200]}'" if lines else ""
    return RecipeError(path, "", f"it ended the shell that reads it, with exit status {returncode}{last}")


def _bash_line(lines: Sequence[str], path: str) -> str | None:
    """`PATH: line 3: syntax error near unexpected token 'fi'`, without the path."""
    found = next((line for line in lines if f"{path}: " in line), lines[0] if lines else None)
    return found.rpartition(f"{path}: ")[2] if found else None


def _raw(package: Package, triples: Sequence[tuple[str, str, str]]) -> RawConf:
    values: dict[str, dict[int, str]] = defaultdict(dict)
    matches: dict[str, dict[int, int]] = defaultdict(dict)
    for name, index, value in triples:
        if name in ("CONF", "END"):
            continue
        if not index.isdecimal():
            raise RecipeError(f"{package.source}/{CONF}", f"{name}[{index}]", "an index has to be a number")
        if name.endswith("=~"):
            matches[name.removesuffix("=~")][int(index)] = int(value)
        else:
            values[name][int(index)] = value.rstrip("\r")
    return RawConf(dict(values), dict(matches))
