"""make demo: the main job on real kernels and real packages, shown and checked.

Three kernels of the distribution's archive are installed one after another with dpkg: the second exports the same
symbols as the first, the third does not. All that happens, happens in mounts and processes of the demo's own: /usr,
/etc, /boot, /var, /tmp and /run of this machine lie below overlays that vanish with the demo, the rest is read-only.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.corpus import CHECKOUT, Corpus, CorpusError
from tests.demostage import (
    DPKG,
    DemoFailed,
    bus,
    cover,
    daemon,
    headline,
    quietly,
    read,
    run,
    show,
    show_log,
    tell_time,
    until,
)
from tests.realroot import is_possible

# Quick to build, and none of them excludes itself on the small cloud kernels. As many as the archive offers.
PACKAGES = ("nat-rtsp-dkms", "dm-writeboost-dkms", "xtables-addons-dkms")
WATCHED = ("/lib/modules", "/usr/src", "/boot", "/etc")
LINK_WISH_S = 2.0
STATUS_WISH_S = 0.2


# ---- outside: this machine, before and after ------------------------------------------------------


def main() -> int:
    if sys.argv[1:] == ["--inside"]:
        return inside()
    why = is_possible()
    if why:
        print(f"make demo {why}", file=sys.stderr)
        return 1
    try:
        return outside()
    except CorpusError as exc:
        print(exc, file=sys.stderr)
        return 1


def outside() -> int:
    started, before = time.monotonic(), digest()
    headline("Kernels and packages from the archive")
    fetch()
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    code = subprocess.run([*command, sys.executable, "-m", "tests.demo", "--inside"], cwd=CHECKOUT).returncode
    headline("This machine")
    same = digest() == before
    print(f"{', '.join(WATCHED)}: {'as they were' if same else 'CHANGED'} ({before[:16]})")
    print(f"\n{'The demo came out as claimed' if same and code == 0 else 'THE DEMO FAILED'}", end="")
    print(f", after {time.monotonic() - started:.0f} s.")
    return code if same else 1


def digest() -> str:
    """Every name below the watched directories with kind, mode, owner, size, change time and target."""
    total = hashlib.sha256(repr(sorted(os.listdir("/"))).encode())
    for top in WATCHED:
        for directory, names, files in os.walk(top):
            names.sort()
            for name in sorted([*names, *files]):
                path = os.path.join(directory, name)
                st = os.lstat(path)
                target = os.readlink(path) if os.path.islink(path) else ""
                total.update(repr((path, st.st_mode, st.st_uid, st.st_size, st.st_ctime_ns, target)).encode())
    return total.hexdigest()


def fetch() -> None:
    corpus = Corpus()
    first, equal, other = corpus.trio
    print(f"{first} and {equal}: all {len(corpus.symvers(first))} exported symbols have equal CRCs")
    print(f"{other}: {changed_symbols(corpus, first, other)} of them differ, or are gone")
    for krel in corpus.trio:
        corpus.image(krel), corpus.headers(krel)
    print(f"packages: {', '.join(layer.tree.name for layer in corpus.layers(('linux-base', *offered(corpus)))[1:])}")


def changed_symbols(corpus: Corpus, a: str, b: str) -> int:
    offered = corpus.symvers(b)
    return sum(offered.get(name) != crc for name, crc in corpus.symvers(a).items())


def offered(corpus: Corpus) -> tuple[str, ...]:
    found = [p for p in PACKAGES if corpus.archive.names(f"^{p}$")]
    if len(found) < 2:
        raise CorpusError(f"the archive offers fewer than two of {', '.join(PACKAGES)}")
    return tuple(found)


# ---- inside: a machine of our own -----------------------------------------------------------------


def inside() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    scratch = cover()
    try:
        run_demo(scratch)
    except DemoFailed as exc:
        print(f"\nFAILED: {exc}")
        show_log(scratch / "daemon.log")
        return 1
    return 0


def run_demo(scratch: Path) -> None:
    corpus = Corpus()
    headline("Install autokmod, the packages' sources and what their kernels want")
    install(corpus, scratch)
    headline("Start the service")
    with bus(scratch), daemon(scratch):
        show("autokmodctl", "status", expect=None)
        names = package_names()
        first, equal, other = corpus.trio
        arrival(corpus, scratch, first, "A first kernel")
        check_built(first, names, because=None)
        arrival(corpus, scratch, equal, "An update that exports the same symbols")
        check_linked(equal, first, names)
        arrival(corpus, scratch, other, "An update that exports other symbols")
        check_built(other, names, because=corpus)
        headline("Where the modules of one package are now")
        show("ls", "-lR", *sorted(str(p) for p in Path("/lib/modules").glob(f"*/*/autokmod/{names[0]}")))
        started = time.monotonic()
        read("status")
        tell_time("autokmodctl status took", time.monotonic() - started, STATUS_WISH_S, "for all of this")


def install(corpus: Corpus, scratch: Path) -> None:
    quietly(scratch, "make", "install", shown="make install")
    for package in offered(corpus):
        quietly(scratch, *DPKG, "--unpack", str(corpus.layer(package).deb), shown=f"dpkg --unpack {package}.deb")
    # linux-image's maintainer scripts use its tools.
    quietly(scratch, *DPKG, "--install", str(corpus.layer("linux-base").deb), shown="dpkg --install linux-base.deb")


# ---- a kernel appears -----------------------------------------------------------------------------


def arrival(corpus: Corpus, scratch: Path, krel: str, title: str) -> None:
    headline(f"{title}: {krel}")
    layers = (*corpus.headers(krel), corpus.image(krel))
    shown = f"dpkg --install linux-{{image,headers}}-{krel}.deb"
    quietly(scratch, *DPKG, "--install", *(str(layer.deb) for layer in layers), shown=shown)
    started = time.monotonic()
    show("autokmodctl", "wait", "--quiet")
    until(lambda: readiness(krel) == "ready", f"{krel} is ready")
    print(f"    ({time.monotonic() - started:.1f} s after dpkg was done)")
    show("autokmodctl", "status")
    show("autokmodctl", "explain", package_names()[0], krel)


def readiness(krel: str) -> str:
    return str(read("status", krel)["kernels"][0]["readiness"])


def check_built(krel: str, names: list[str], because: Corpus | None) -> None:
    for name, placement in placements(krel, names).items():
        claim(placement["kind"] == "build", f"{name} was built for {krel}", placement)
        claim(all(f["target"] is None for f in placement["files"]), f"{name} has its own files in {krel}", placement)
        if because is not None:
            check_symbols(because, name, placement, krel)


def check_symbols(corpus: Corpus, name: str, placement: Any, krel: str) -> None:
    """What it gives as its reason is what the two kernels' Module.symvers say."""
    named = [r for r in placement["reasons"] if r["symbol"] and r["wanted_crc"] != r["offered_crc"]]
    claim(bool(named), f"{name} was rebuilt because of symbols", placement)
    before, now = corpus.symvers(corpus.trio.first), corpus.symvers(krel)
    for reason in named:
        symbol = reason["symbol"]
        if symbol in before and reason["wanted_crc"] is not None:
            claim(int(before[symbol], 16) == reason["wanted_crc"], f"the CRC of {symbol} was so", reason)
            offered = int(now[symbol], 16) if symbol in now else None
            claim(offered == reason["offered_crc"], f"the CRC of {symbol} is so in {krel}", reason)


def check_linked(krel: str, owner: str, names: list[str]) -> None:
    newest = 0.0
    for name, placement in placements(krel, names).items():
        claim(placement["kind"] == "link" and placement["link_from"] == owner, f"{name} is linked", placement)
        for file in placement["files"]:
            path = Path("/lib/modules", krel, file["path"])
            there = path.is_symlink() and path.resolve(strict=True).is_relative_to(f"/usr/lib/modules/{owner}")
            claim(there, f"{path} leads to {owner}", file)
            newest = max(newest, path.lstat().st_ctime)
    took = newest - Path("/lib/modules", krel, "modules.order").stat().st_ctime
    tell_time("The last link stood", took, LINK_WISH_S, "after the kernel's last file")


def placements(krel: str, names: list[str]) -> dict[str, Any]:
    kernels = read("status", krel)["kernels"]
    claim([k["readiness"] for k in kernels] == ["ready"], f"{krel} is ready", kernels)
    found = {p["package"]: p for p in kernels[0]["placements"]}
    claim(set(found) == set(names), f"{krel} has every package", found)
    for name, placement in found.items():
        claim(placement["verified"] and placement["files"], f"{name} is verified on {krel}", placement)
        for file in placement["files"]:
            modinfo = run("modinfo", "-k", krel, "-n", file["module"]).strip()
            claim(modinfo.endswith(file["path"]), f"modprobe takes {file['path']} on {krel}", modinfo)
    return found


def claim(is_so: bool, what: str, seen: Any) -> None:
    if not is_so:
        raise DemoFailed(f"not so: {what}; seen: {json.dumps(seen, indent=1)}")


def package_names() -> list[str]:
    return [p["name"] for p in read("list-packages")["packages"]]


if __name__ == "__main__":
    sys.exit(main())
