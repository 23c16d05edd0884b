"""The system that the virtual machine boots: Debian's newest stable packages with one kernel, made once and kept.

Made by debootstrap and apt in a chroot of its own mounts; the image is written by mke2fs, so nothing is mounted on this
machine. It is made anew when the archive offers another version of anything in it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.corpus import CHECKOUT, Corpus, CorpusError, run
from tests.vmsys.archive import Archive, digest, forget, make_disk

HERE = Path(__file__).resolve().parent
DISK_MIB = 6144
MAKE_S = 1800
PLAIN = "plain"  # a user without any right
SYSTEM = ("dbus", "init", "initramfs-tools", "libpam-systemd", "linux-base", "make", "polkitd", "systemd-sysv", "udev")
# Of an initrd. This machine finds its root file system without, and making an initrd would take three times as long.
UNNEEDED = tuple(f"hooks/{name}" for name in ("dmsetup", "fsck", "keymap", "resume", "thermal", "udev"))
UNNEEDED += ("scripts/init-top/udev", "scripts/init-bottom/udev")
AGENT = {
    HERE / "agent.sh": "usr/local/sbin/test-agent",
    HERE / "agent.service": "etc/systemd/system/test-agent.service",
}

FILES = {
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost guest\n",
    "etc/fstab": "/dev/vda / ext4 noatime 0 1\n/dev/vdb /srv/archive ext4 ro 0 0\n",
    "etc/machine-id": "5f0dc1d2c0de4cafe0b0e0d0a0b0c0d1\n",
    "etc/apt/sources.list": "deb [trusted=yes] file:/srv/archive ./\n",
    "etc/apt/apt.conf.d/90test": 'APT::Install-Recommends "no";\nAcquire::Languages "none";\nDpkg::Use-Pty "no";\n',
    # Nothing but a power cut loses what was written, and that is what one of the tests does after dpkg's end.
    "etc/dpkg/dpkg.cfg.d/test": "force-unsafe-io\n",
    # What this machine has, and no more: making an initrd is most of what installing a kernel costs here.
    "etc/initramfs-tools/conf.d/test": "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    "etc/kernel-img.conf": "do_symlinks = no\n",
    "etc/udev/rules.d/60-test.rules": 'SUBSYSTEM=="virtio-ports", ATTR{name}=="autokmod.test", '
    'SYMLINK+="virtio-ports/autokmod.test", TAG+="systemd", ENV{SYSTEMD_WANTS}="test-agent.service"\n',
    "etc/modules-load.d/test.conf": "virtio_console\n",
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
}


def make_system(corpus: Corpus, debs: Archive, installed: Sequence[str]) -> Path:
    """A raw disk with a system on it. `installed` of `debs` are there from the beginning. Raises CorpusError."""
    wanted = (*SYSTEM, *program_needs())
    files = [f for f in debs.files() if f.name.split("_", 1)[0] in installed]
    versions = [corpus.archive.field(package, "Version") for package in wanted]
    content = ([(f.name, f.stat().st_size) for f in files], FILES, UNNEEDED, [path.read_bytes() for path in AGENT])
    disk = debs.directory.parent / f"system-{digest(wanted, versions, content)}.img"
    if not disk.exists():
        forget(disk.parent.glob("system-*.img"))
        with tempfile.TemporaryDirectory(dir=disk.parent) as scratch:
            tree = Path(scratch) / "root"
            _install(tree, debs, wanted, installed)
            make_disk(tree, disk, DISK_MIB)
    return disk


def program_needs() -> tuple[str, ...]:
    """As .ci/setup has it: what `make install` would install itself, had the machine a network."""
    found = re.search(r'^run="([^"]*)"', (CHECKOUT / ".ci/setup").read_text(), re.M)
    if found is None:
        raise CorpusError(".ci/setup does not say any more what the program needs")
    return tuple(found[1].split())


# ---- the system ----------------------------------------------------------------------------------


def _install(tree: Path, debs: Archive, wanted: Sequence[str], installed: Sequence[str]) -> None:
    """In a mount and PID namespace of its own: what debootstrap mounts goes with it."""
    release = _debian_sources()[0][1]
    sources = "\n".join(f"deb {uri} {suite} {component}" for uri, suite, component in _debian_sources())
    script = f"""
set -e
debootstrap --variant=minbase {release} {tree}
mount -t proc proc {tree}/proc
mkdir -p {tree}/srv/archive
mount --bind {debs.directory} {tree}/srv/archive
cat >{tree}/etc/apt/sources.list <<EOF
{sources}
deb [trusted=yes] file:/srv/archive ./
EOF
rm -rf {tree}/etc/apt/sources.list.d
in_tree() {{ chroot {tree} env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }}
in_tree apt-get update -q
in_tree apt-get install -q -y {" ".join(wanted)}
in_tree apt-get install -q -y {" ".join(installed)}
in_tree useradd --create-home {PLAIN}
cd {tree}/usr/share/initramfs-tools
chmod -x {" ".join(UNNEEDED)}
in_tree apt-get clean
rm -rf {tree}/var/lib/apt/lists/* {tree}/usr/sbin/policy-rc.d {tree}/etc/apt/sources.list
in_tree systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
mkdir -p {tree}/var/log/journal
"""
    tree.mkdir(mode=0o755)
    _write(tree, FILES)
    with open(tree.parent / "log", "wb") as log:
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "/bin/sh",
            "-c",
            script,
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=MAKE_S)
    if done.returncode != 0:
        raise CorpusError(f"the machine's system cannot be made:\n{(tree.parent / 'log').read_text()[-4000:]}")
    _write(tree, {p: t for p, t in FILES.items() if not p.endswith("policy-rc.d")})
    _put_agent(tree)


def _debian_sources() -> list[tuple[str, str, str]]:
    """This machine's own: where to get it, suite, component; the release itself comes first. Raises CorpusError."""
    shape = "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)"
    rows = {tuple(row.split()) for row in run(["apt-get", "indextargets", "--format", shape]).splitlines()}
    found = {(row[0], row[1], row[2]) for row in rows if row[-1] == "Debian" and len(row) == 4}
    if not found:
        raise CorpusError("the packages of this machine are not from Debian's archive")
    return sorted(found, key=lambda row: (len(row[1]), row))


def _write(tree: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755 if text.startswith("#!") else 0o644)


def _put_agent(tree: Path) -> None:
    for file, target in AGENT.items():
        shutil.copy(file, tree / target)
        (tree / target).chmod(0o755 if file.suffix == ".sh" else 0o644)


# ---- this checkout, to be installed inside -------------------------------------------------------


def pack_checkout(target: Path) -> None:
    """What a clone holds, with what `.ci/setup` fetched for it. Raises CorpusError."""
    files = run(["git", "-C", str(CHECKOUT), "ls-files", "-z"]).split("\0")
    fetched = [".venv/made-from", *_inotify(CHECKOUT)]
    names = "\0".join(f for f in (*files, *fetched) if f and os.path.lexists(CHECKOUT / f))
    options = ("--null", "--files-from=-", "--owner=0", "--group=0")
    command = ("tar", "-c", "-f", str(target), "-C", str(CHECKOUT), *options)
    done = subprocess.run(command, input=names.encode(), capture_output=True)
    if done.returncode != 0:
        raise CorpusError(f"the checkout cannot be packed: {done.stderr.decode()}")


def _inotify(checkout: Path) -> list[str]:
    found = checkout.glob(".venv/lib/python3*/site-packages/inotify_simple*")
    return [str(p.relative_to(checkout)) for p in found]
