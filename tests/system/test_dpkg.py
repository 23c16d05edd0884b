"""Kernels installed, upgraded and removed by dpkg itself, whose maintainer scripts run our hooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autokmod.jobs.spool import Spool
from autokmod.model import Verb
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.realroot import RealRoot, mount
from tests.system.test_hooks import break_python, make_spool_a_file, take_libexec_away, take_python_away

pytestmark = pytest.mark.root


def system_of(root: RealRoot) -> RealRoot:
    """A dpkg database of its own, and the packages where dpkg can see them."""
    for name in ("info", "updates", "triggers"):
        (root.path / "var/lib/dpkg" / name).mkdir(parents=True)
    (root.path / "var/lib/dpkg/status").touch()
    (root.path / "etc/kernel-img.conf").write_text("do_symlinks = no\n")
    (root.path / "debs").mkdir()
    mount("--bind", str(root.corpus.directory / "debs"), str(root.path / "debs"))
    root.install_autokmod()
    dpkg(root, "--install", root.corpus.layer("linux-base").deb)
    return root


def dpkg(root: RealRoot, action: str, *what: str | Path) -> str:
    """Without what these packages depend on: neither an initrd is made here nor anything booted."""
    args = [f"/debs/{w.name}" if isinstance(w, Path) else w for w in what]
    options = ("--force-depends", "--force-unsafe-io", "--force-confold")
    done = root.chroot("dpkg", *options, action, *args, DEBIAN_FRONTEND="noninteractive")
    assert done.returncode == 0, done.stdout
    return done.stdout


def queued(root: RealRoot) -> list[tuple[Verb, str, str]]:
    return [(j.verb, j.krel, j.why) for j in Spool(root.paths).jobs()]


def empty_queue(root: RealRoot) -> None:
    for file in root.paths.spool.glob("*"):
        file.unlink()


def test_a_kernel_comes_and_goes(real_root: MakeRoot, corpus: Corpus) -> None:
    root, krel = system_of(real_root()), corpus.trio.first
    dpkg(root, "--install", corpus.image(krel).deb)
    assert queued(root) == [(Verb.RECONCILE, krel, "debian-postinst")]
    empty_queue(root)
    dpkg(root, "--install", *(layer.deb for layer in corpus.headers(krel)))
    assert queued(root) == [(Verb.RECONCILE, krel, "debian-headers")]
    empty_queue(root)
    dpkg(root, "--install", corpus.image(krel).deb)  # the same release again: an upgrade to dpkg
    assert queued(root) == [(Verb.RECONCILE, krel, "debian-postinst")]
    own = root.paths.own_dir(krel, "pkg")
    own.mkdir(parents=True)
    (own / "pkg.ko").write_bytes(b"ours")
    dpkg(root, "--remove", f"linux-image-{krel}")
    assert not own.parent.exists(), "the fast path takes ours out before dpkg looks"
    assert queued(root) == [(Verb.RECONCILE, krel, "debian-postrm")]
    dpkg(root, "--purge", f"linux-image-{krel}", f"linux-headers-{krel}")
    assert not root.paths.modulesd(krel).exists()


@pytest.mark.parametrize("damage", [take_libexec_away, take_python_away, break_python, make_spool_a_file])
def test_nothing_of_ours_stops_dpkg(real_root: MakeRoot, corpus: Corpus, damage: Callable[[RealRoot], None]) -> None:
    root, krel = system_of(real_root()), corpus.trio.first
    damage(root)
    said = dpkg(root, "--install", *(layer.deb for layer in (corpus.image(krel), *corpus.headers(krel))))
    said += dpkg(root, "--purge", f"linux-image-{krel}", f"linux-headers-{krel}")
    assert "autokmod" not in said
