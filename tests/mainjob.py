"""The main job, driven and looked at from outside: the programs as they are run, the modules as kmod finds them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.corpus import Corpus
from tests.realroot import RealRoot

QUICK = "nat-rtsp-dkms"  # two modules that import from each other and from the kernel's
NAME = "nat-rtsp"
LIMIT_S = 600  # for a busy machine: builds give way to everything else


GOOD_SOURCE = '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'
CONF = """\
PACKAGE_NAME=@
PACKAGE_VERSION=1
BUILT_MODULE_NAME[0]=@
DEST_MODULE_LOCATION[0]=/extra
AUTOINSTALL=yes
"""


def program(module: str, root: RealRoot, *args: str) -> list[str]:
    return [sys.executable, "-m", module, "--root", str(root.path), *args]


def ctl(root: RealRoot, *args: str) -> Any:
    done = subprocess.run(program("autokmod.ctl.main", root, *args, "--json=short"), capture_output=True, text=True)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def oneshot(root: RealRoot, *args: str, expect: int = 0) -> None:
    command = program("autokmod.daemon.main", root, "--oneshot", *args)
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    said = done.stdout + done.stderr
    assert done.returncode == expect, said
    assert "Traceback" not in said, said


def status(root: RealRoot, krel: str) -> Any:
    return next(k for k in ctl(root, "status")["kernels"] if k["krel"] == krel)


def placement(root: RealRoot, krel: str, package: str = NAME) -> Any:
    return next(p for p in status(root, krel)["placements"] if p["package"] == package)


def modules_of(root: RealRoot, krel: str, package: str = NAME) -> dict[str, Path]:
    """Module → the file that modprobe would load, by kmod's own word; in the root's terms."""
    found = {}
    for file in placement(root, krel, package)["files"]:
        said = root.chroot("modinfo", "-k", krel, "-n", file["module"]).stdout.strip()
        found[file["module"]] = Path(said)
    return found


def check_built(root: RealRoot, krel: str, package: str = NAME) -> Any:
    found = placement(root, krel, package)
    assert (found["kind"], found["verified"], found["failed"]) == ("build", True, False)
    assert status(root, krel)["readiness"] == "ready"
    for module, path in modules_of(root, krel, package).items():
        host = root.path / str(path).lstrip("/")
        assert host.is_file(), module
        assert not host.is_symlink(), module
        assert vermagic(root, path) == krel
    return found


def check_linked(root: RealRoot, krel: str, owner: str, package: str = NAME, *, symbols: int = 20) -> None:
    found = placement(root, krel, package)
    assert (found["kind"], found["verified"], found["link_from"]) == ("link", True, owner)
    assert found["symbols_compared"] > symbols
    assert status(root, krel)["readiness"] == "ready"
    for module, path in modules_of(root, krel, package).items():
        host = root.path / str(path).lstrip("/")
        assert host.is_symlink(), module
        assert not os.readlink(host).startswith("/"), "a relative link holds in every root"
        assert owner in str(root.paths.resolve(host)), module
        assert root.paths.resolve(host).is_file(), module
        assert vermagic(root, path) == owner


def vermagic(root: RealRoot, path: Path) -> str:
    return root.chroot("modinfo", "-F", "vermagic", str(path)).stdout.split()[0]


def depmod_is_content(root: RealRoot, krel: str) -> None:
    """kmod's own comparison of every module with the kernel's symvers."""
    symvers = f"/usr/src/linux-headers-{krel}/Module.symvers"
    said = root.chroot("depmod", "--dry-run", "--errsyms", "--symvers", symvers, krel).stdout
    ours = [line for line in said.splitlines() if "autokmod" in line and "WARNING" in line]
    assert not ours


def changed_symbols_are_true(corpus: Corpus, found: Any, before: str, now: str) -> None:
    named = [r for r in found["reasons"] if r["symbol"] and r["wanted_crc"] is not None]
    assert named
    for reason in named:
        symbol = reason["symbol"]
        if symbol in corpus.symvers(before):
            assert reason["wanted_crc"] == int(corpus.symvers(before)[symbol], 16)
        if reason["offered_crc"] is not None:
            assert reason["offered_crc"] == int(corpus.symvers(now)[symbol], 16)
            assert reason["offered_crc"] != reason["wanted_crc"]


def host_modules(root: RealRoot, krel: str) -> list[Path]:
    return [root.path / str(path).lstrip("/") for path in modules_of(root, krel).values()]


def check_dangling(root: RealRoot) -> None:
    for link in root.paths.modules.glob("*/*/autokmod/*/*"):
        assert root.paths.resolve(link).is_file(), f"{link} dangles"


def make_source(root: RealRoot, name: str, *, conf: str = CONF, source: str = GOOD_SOURCE) -> Path:
    """A package of one module; `@` is its name."""
    files = {"dkms.conf": conf, "Makefile": "obj-m := @.o\n", f"{name}.c": source}
    return root.add_source(name, "1", {file: text.replace("@", name) for file, text in files.items()})


# ---- the daemon ----


@contextlib.contextmanager
def daemon(root: RealRoot, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "ab") as out:
        process = subprocess.Popen(program("autokmod.daemon.main", root, "--no-bus"), stdout=out, stderr=out)
    try:
        wait_until(lambda: ctl(root, "status")["daemon_running"], log)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    assert code == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def wait_until(is_so: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def becomes_ready(root: RealRoot, krel: str, log: Path) -> None:
    def is_ready() -> bool:
        kernels = {k["krel"]: k for k in ctl(root, "status")["kernels"]}
        return krel in kernels and kernels[krel]["readiness"] == "ready" and bool(kernels[krel]["placements"])

    wait_until(is_ready, log)
