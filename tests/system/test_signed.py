"""Signatures on real kernels: as their own tools make them, and as their configuration asks for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from autokmod.paths import Paths
from tests.corpus import Corpus
from tests.unit.test_sign import MODULE, new_pair, sign
from tests.vm.matrix import newest_series

pytestmark = pytest.mark.root


@pytest.mark.parametrize("which", ["default", "newest"])
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_byte_by_byte_what_sign_file_makes(tmp_path: Path, corpus: Corpus, which: str, digest: str) -> None:
    """The program that the kernels' own modules are signed with, from the headers of an old and a new series."""
    paths = Paths(tmp_path)
    key, cert = new_pair(paths)
    krel = corpus.trio.first if which == "default" else newest_series(corpus, corpus.archive.flavours()[0])
    tools = [p for layer in corpus.headers(krel) for p in layer.tree.glob("usr/lib/linux-kbuild-*/scripts/sign-file")]
    module = tmp_path / "drv.ko"
    module.write_bytes(MODULE)
    subprocess.run((tools[0], digest, key, cert, module), check=True, timeout=60)
    assert sign(paths, digest=digest) == module.read_bytes()
