"""The corpus, with the real archive: what is there is not fetched again, what is broken is said or mended."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus import CHECKOUT, Corpus, CorpusError, unpack

pytestmark = pytest.mark.root
SMALL = "nat-rtsp-dkms"  # 13 kB


@pytest.fixture
def fresh(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path / "cache")


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "apt.conf"
    nowhere = "http://127.0.0.1:9"
    config.write_text(f'Acquire {{ http::Proxy "{nowhere}"; https::Proxy "{nowhere}"; Retries "0"; }};\n')
    monkeypatch.setenv("APT_CONFIG", str(config))


def test_a_package_is_a_layer_with_merged_usr(fresh: Corpus) -> None:
    layer = fresh.layer(SMALL)
    assert [p.name for p in layer.tree.iterdir()] == ["usr"]
    assert list((layer.tree / "usr/src").glob("nat-rtsp-*/dkms.conf"))


@pytest.mark.usefixtures("unreachable")
def test_nothing_is_fetched_that_is_there(fresh: Corpus, corpus: Corpus) -> None:
    shutil.copy(corpus.layer(SMALL).deb, fresh.directory / "debs")
    assert (fresh.layer(SMALL).tree / "usr/src").is_dir()


@pytest.mark.usefixtures("unreachable")
def test_an_unreachable_archive_is_said(fresh: Corpus) -> None:
    with pytest.raises(CorpusError, match=r"(?s)apt-get download.*failed"):
        fresh.layer(SMALL)
    assert not list((fresh.directory / "debs").iterdir())


def test_what_the_archive_does_not_have_is_said(fresh: Corpus) -> None:
    with pytest.raises(CorpusError, match="no-such-package"):
        fresh.layer("no-such-package")


def test_an_interrupted_download_is_taken_up(fresh: Corpus, corpus: Corpus) -> None:
    whole = corpus.layer(SMALL).deb
    (fresh.directory / "partial" / whole.name).write_bytes(whole.read_bytes()[:5000])
    assert fresh.layer(SMALL).deb.read_bytes() == whole.read_bytes()


def test_an_interrupted_unpacking_is_done_again(fresh: Corpus, corpus: Corpus) -> None:
    deb = fresh.directory / "debs" / corpus.layer(SMALL).deb.name
    deb.write_bytes(corpus.layer(SMALL).deb.read_bytes()[:5000])
    tree = fresh.directory / "layers" / "x"
    with pytest.raises(CorpusError, match="cannot be unpacked"):
        unpack(deb, tree)
    assert not list(tree.parent.iterdir())
    deb.unlink()
    assert fresh.layer(SMALL).tree.is_dir()


def test_two_at_once(fresh: Corpus) -> None:
    code = f"from tests.corpus import Corpus, Path; Corpus(Path({str(fresh.directory)!r})).layer({SMALL!r})"
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT) for _ in range(2)]
    assert [p.wait(timeout=120) for p in both] == [0, 0]
    assert [p.name.split("_")[0] for p in (fresh.directory / "layers").iterdir()] == [SMALL]
