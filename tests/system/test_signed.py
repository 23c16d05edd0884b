"""Signed packages on real kernels: their tools' bytes, their configuration's demands, mokutil's requests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.act.newkey import create_key
from autokmod.config import Config, DaemonConfig, SignConfig
from autokmod.decide.readiness import decide_readiness
from autokmod.jobs.engine import Engine
from autokmod.jobs.keyring import enrolment
from autokmod.model import DecisionKind, KernelStatus, Placement, Readiness, Signature
from autokmod.observe.blob import read_blob
from autokmod.observe.keys import find_keys
from autokmod.observe.machine import look_at_kernels
from autokmod.observe.secureboot import GLOBAL, SHIM, read_firmware
from autokmod.observe.signature import read_signature
from autokmod.paths import Paths
from tests.conftest import COMPLETE, MakeRoot
from tests.corpus import Corpus
from tests.realroot import RealRoot
from tests.unit.test_sign import MODULE, check_by_openssl, new_pair, password, sign
from tests.vm.matrix import newest_series

pytestmark = pytest.mark.root

HELLO = """
#include <linux/module.h>
static int __init start(void) { return 0; }
module_init(start);
MODULE_LICENSE("GPL");
"""
CONF = """\
PACKAGE_NAME=hello
PACKAGE_VERSION=1.0
BUILT_MODULE_NAME=hello
DEST_MODULE_LOCATION=/extra
AUTOINSTALL=yes
"""
QUICK = DaemonConfig(settle_s=0.0)
PASSWORD = "mokmokmok\n"


def newest(corpus: Corpus) -> str:
    return newest_series(corpus, corpus.archive.flavours()[0])


@pytest.mark.parametrize("which", ["default", "newest"])
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_byte_by_byte_what_sign_file_makes(tmp_path: Path, corpus: Corpus, which: str, digest: str) -> None:
    """The program that the kernels' own modules are signed with, from the headers of an old and a new series."""
    paths = Paths(tmp_path)
    key, cert = new_pair(paths)
    krel = corpus.trio.first if which == "default" else newest(corpus)
    tools = [p for layer in corpus.headers(krel) for p in layer.tree.glob("usr/lib/linux-kbuild-*/scripts/sign-file")]
    module = tmp_path / "drv.ko"
    module.write_bytes(MODULE)
    subprocess.run((tools[0], digest, key, cert, module), check=True, timeout=60)
    assert sign(paths, digest=digest) == module.read_bytes()


# ---- packages on kernels ----


class Site:
    """Kernels with one small package, made right as often as a test asks."""

    def __init__(self, root: RealRoot) -> None:
        self.root, self.paths = root, root.paths
        root.add_source("hello", "1.0", {"dkms.conf": CONF, "hello.c": HELLO, "Makefile": "obj-m := hello.o\n"})
        self.config = Config(daemon=QUICK)

    def reconcile(self, krel: str) -> Placement:
        with closing(Engine(self.paths, self.config, time.time)) as engine:
            (placement,) = engine.reconcile(krel).placements
        return placement

    def status(self, krel: str) -> KernelStatus:
        sights = look_at_kernels(self.paths, time.time())
        return next(decide_readiness(s, self.config, ()) for s in sights if s.kernel.krel == krel)

    def module(self, krel: str, placement: Placement) -> bytes:
        """Uncompressed, signature and all."""
        (file,) = placement.files
        return read_blob(self.paths.modulesd(krel) / file.path)

    def is_signed(self, krel: str, placement: Placement) -> bool:
        """By the key that autokmod has, as openssl says; and not a byte of the module is another."""
        data = self.module(krel, placement)
        state, size = read_signature(data)
        built = [p.read_bytes() for p in self.paths.builds.glob("*/hello.ko")]
        cert = find_keys(self.paths, self.config.sign)[0].cert
        return (
            state is Signature.PRESENT
            and data[:size] in built
            and check_by_openssl(data, data[:size], Path(cert), self.paths.at("tmp"))
        )

    def set_option(self, krel: str, line: str) -> None:
        config = self.paths.resolve(self.paths.modulesd(krel) / "build/.config")
        config.write_text(config.read_text() + f"{line}\n")

    def variable(self, name: str, vendor: str, data: bytes) -> Path:
        path = self.paths.at(f"sys/firmware/efi/efivars/{name}-{vendor}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\6\0\0\0" + data)
        return path


def kinds(placement: Placement) -> set[str]:
    return {r.kind for r in placement.reasons}


def test_signed_by_itself_as_soon_as_there_is_a_key(real_root: MakeRoot, corpus: Corpus) -> None:
    """Kernels that take unsigned modules: without a key they get those, with one what stands is signed anew."""
    first, equal = corpus.trio.first, corpus.trio.equal
    site = Site(real_root(kernels=(first, equal)))
    before, link = site.reconcile(first), site.reconcile(equal)
    assert (before.kind, link.kind) == (DecisionKind.BUILD, DecisionKind.LINK)
    assert (before.verified, before.signed_by) == (True, None)
    assert read_signature(site.module(first, before))[0] is Signature.NONE
    create_key(site.paths, "here")
    after = site.reconcile(first)
    assert (after.verified, after.key, kinds(after)) == (True, before.key, {"stored-build"})
    assert after.signed_by is not None
    assert (after.signed_by.digest, after.signed_by.origin) == ("sha256", "autokmod")
    assert site.is_signed(first, after)
    linked = site.reconcile(equal)
    assert (linked.kind, linked.verified, linked.signed_by) == (DecisionKind.LINK, True, after.signed_by)
    assert [site.status(krel).readiness for krel in (first, equal)] == [Readiness.READY] * 2
    assert site.reconcile(first) == after, "and then it stays"
    assert site.reconcile(equal) == linked
    assert len(list(site.paths.builds.iterdir())) == 1, "nothing was compiled twice"


def test_the_record_is_lost_and_nothing_changes(real_root: MakeRoot, corpus: Corpus) -> None:
    krel = corpus.trio.first
    site = Site(real_root(kernels=(krel,)))
    create_key(site.paths, "here")
    before = site.reconcile(krel)
    file = site.paths.modulesd(krel) / before.files[0].path
    seen = file.stat()
    site.paths.record(krel).unlink()
    again = site.reconcile(krel)
    assert (again.files, again.signed_by) == (before.files, before.signed_by)
    assert file.stat().st_ino == seen.st_ino, "the same module signed again is the same file"


def test_a_kernel_that_loads_only_signed_modules(real_root: MakeRoot, corpus: Corpus) -> None:
    krel = corpus.trio.first
    site = Site(real_root(kernels=(krel,)))
    site.set_option(krel, "CONFIG_MODULE_SIG_FORCE=y")
    blocked = site.reconcile(krel)
    assert (blocked.kind, blocked.files, blocked.reasons[0].kind) == (DecisionKind.BLOCKED, (), "no-signing-key")
    assert site.status(krel).readiness is Readiness.DEGRADED
    assert not site.paths.own_dir(krel, "hello").exists()
    key, cert = new_pair(site.paths)
    named = SignConfig(key=site.paths.inside(key), cert=site.paths.inside(cert))
    site.config = replace(site.config, sign=named)
    placed = site.reconcile(krel)
    assert (placed.kind, placed.verified) == (DecisionKind.BUILD, True)
    assert site.is_signed(krel, placed)
    assert site.status(krel).readiness is Readiness.READY, "who names a key answers for it"
    key.write_text("garbage")
    (site.paths.modulesd(krel) / placed.files[0].path).unlink()
    failed = site.reconcile(krel)
    assert (failed.kind, failed.reasons[0].kind, failed.files) == (DecisionKind.BLOCKED, "key-unusable", ())
    assert not site.paths.own_dir(krel, "hello").exists(), "better none than one without a signature"
    site.config = replace(site.config, sign=SignConfig(mode="never"))
    assert site.reconcile(krel).reasons[0].kind == "signing-off"


def test_what_stood_unsigned_when_enforcement_came(real_root: MakeRoot, corpus: Corpus) -> None:
    krel = corpus.trio.first
    site = Site(real_root(kernels=(krel,)))
    assert site.reconcile(krel).verified
    site.paths.at("etc/kernel").mkdir(parents=True, exist_ok=True)
    site.paths.at("etc/kernel/cmdline").write_text("quiet module.sig_enforce=1\n")
    blocked = site.reconcile(krel)
    assert (blocked.kind, blocked.standing, len(blocked.files)) == (DecisionKind.BLOCKED, True, 1)
    assert site.status(krel).readiness is Readiness.DEGRADED
    create_key(site.paths, "here")
    assert site.is_signed(krel, site.reconcile(krel))


def test_a_key_behind_a_password_is_left_alone(real_root: MakeRoot, corpus: Corpus) -> None:
    """As Debian's wiki makes one: who never asked for signatures gets modules as before."""
    krel = corpus.trio.first
    site = Site(real_root(kernels=(krel,)))
    key, cert = new_pair(site.paths)
    password(key, cert)
    shim = site.paths.at("var/lib/shim-signed/mok")
    shim.mkdir(parents=True)
    key.rename(shim / "MOK.priv")
    cert.rename(shim / "MOK.der")
    site.paths.keys.rmdir()
    placed = site.reconcile(krel)
    assert (placed.verified, placed.signed_by) == (True, None)
    create_key(site.paths, "here")
    after = site.reconcile(krel)
    assert after.signed_by is not None
    assert after.signed_by.origin == "autokmod"
    site.config = replace(
        site.config, sign=SignConfig(key="/var/lib/shim-signed/mok/MOK.priv", cert="/var/lib/shim-signed/mok/MOK.der")
    )
    asked = site.reconcile(krel)
    assert (asked.kind, asked.reasons[0].kind) == (DecisionKind.BLOCKED, "key-unusable")
    assert "password" in asked.reasons[0].text


def test_signed_first_and_compressed_then(real_root: MakeRoot, corpus: Corpus) -> None:
    """As the kernel itself unpacks it: xz with CRC32 and a dictionary of 1 MiB (lib/decompress_unxz.c)."""
    krel = newest(corpus)
    site = Site(real_root(kernels=(krel,)))
    create_key(site.paths, "here")
    placed = site.reconcile(krel)
    assert placed.verified, placed.reasons
    (file,) = placed.files
    assert file.path.endswith(".ko.xz")
    assert site.is_signed(krel, placed)
    listed = subprocess.run(
        ("xz", "--list", "--verbose", "--verbose", str(site.paths.modulesd(krel) / file.path)),
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert "CRC32" in listed
    assert "--lzma2=dict=1MiB" in listed


# ---- Secure Boot ----


@pytest.fixture
def mokutil() -> None:
    if shutil.which("mokutil") is None:
        if os.environ.get(COMPLETE):
            pytest.fail("mokutil is not installed")
        pytest.skip("mokutil is not installed")


def ctl(site: Site, *args: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """In the root; mokutil (by libefivar) goes to a directory, where the kernel would have efivarfs."""
    command = f'printf %s "$SAID" | exec autokmodctl {" ".join(args)}'
    return site.root.chroot("sh", "-c", command, SAID=said, EFIVARFS_PATH="/sys/firmware/efi/efivars/")


@pytest.mark.usefixtures("mokutil")
def test_from_no_key_to_an_enrolled_one(real_root: MakeRoot, corpus: Corpus) -> None:
    """Debian's kernels lock themselves down under Secure Boot."""
    krel = corpus.trio.first
    site = Site(real_root(kernels=(krel,)))
    site.root.install_autokmod()
    site.variable("SecureBoot", GLOBAL, b"\1")
    site.variable("SetupMode", GLOBAL, b"\0")
    blocked = site.reconcile(krel)
    assert (blocked.kind, blocked.reasons[0].kind, blocked.files) == (DecisionKind.BLOCKED, "no-signing-key", ())
    assert "autokmodctl key create" in str(blocked.reasons[0].hint)
    shown = ctl(site, "key")
    assert shown.returncode == 3
    assert "blocked" in shown.stdout
    assert ctl(site, "key", "enroll").returncode == 1, "there is none yet"

    made = ctl(site, "key", "create")
    assert made.returncode == 0, made.stdout
    placed = site.reconcile(krel)
    assert placed.verified
    assert site.is_signed(krel, placed)
    assert [r.kind for r in site.status(krel).reasons] == ["key-not-enrolled"]
    assert site.status(krel).reasons[0].hint == "autokmodctl key enroll"
    assert site.status(krel).readiness is Readiness.DEGRADED

    asked = ctl(site, "key", "enroll", said=PASSWORD * 2)
    assert asked.returncode == 0, asked.stdout
    assert "Enroll MOK" in asked.stdout
    (key,) = find_keys(site.paths, SignConfig())
    assert enrolment(key, read_firmware(site.paths)) == "requested"
    assert [r.kind for r in site.status(krel).reasons] == ["key-requested"]
    assert ctl(site, "key", "enroll").returncode == 0, "and does not ask again"

    new = site.paths.at(f"sys/firmware/efi/efivars/MokNew-{SHIM}")
    new.rename(site.paths.at(f"sys/firmware/efi/efivars/MokListRT-{SHIM}"))  # as MokManager does, in two variables
    assert site.status(krel).readiness is Readiness.READY
    assert "is enrolled" in ctl(site, "key", "enroll").stdout
    assert ctl(site, "key", "status").returncode == 0


@pytest.mark.usefixtures("mokutil")
def test_no_password_requests_nothing(real_root: MakeRoot, corpus: Corpus) -> None:
    site = Site(real_root(kernels=(corpus.trio.first,)))
    site.root.install_autokmod()
    site.variable("SecureBoot", GLOBAL, b"\1")
    create_key(site.paths, "here")
    asked = ctl(site, "key", "enroll", said=PASSWORD)  # and not again
    assert asked.returncode == 1, asked.stdout
    assert read_firmware(site.paths).requested == frozenset()
