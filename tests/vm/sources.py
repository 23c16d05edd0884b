"""The sources of modules/, built for one kernel and kept in the corpus' cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import realroot
from tests.corpus import Corpus

MODULES = Path(__file__).resolve().parent / "modules"


def built_sources(corpus: Corpus, krels: Sequence[str]) -> dict[str, Mapping[str, bytes]]:
    """krel → module name → content, without debugging information."""
    places = {krel: _place(corpus, krel) for krel in krels}
    missing = [krel for krel in krels if not places[krel].is_dir()]
    if missing:
        with tempfile.TemporaryDirectory() as scratch, realroot.made(Path(scratch), corpus, kernels=missing) as root:
            for krel in missing:
                _build(root, krel, places[krel])
    return {krel: {f.stem: f.read_bytes() for f in sorted(places[krel].glob("*.ko"))} for krel in krels}


def _place(corpus: Corpus, krel: str) -> Path:
    headers = corpus.layer(f"linux-headers-{krel}").deb.name.encode()
    inputs = [headers, *(f.read_bytes() for f in sorted(MODULES.iterdir()))]
    digest = hashlib.sha256(b"\0".join(hashlib.sha256(i).digest() for i in inputs)).hexdigest()
    return corpus.directory / "vm" / f"sources-{digest[:24]}"


def _build(root: realroot.RealRoot, krel: str, place: Path) -> None:
    source = root.path / "tmp" / krel
    shutil.copytree(MODULES, source)
    done = root.chroot("make", "-C", f"/usr/src/linux-headers-{krel}", f"M=/tmp/{krel}", "-j2", "modules")
    if done.returncode != 0:
        raise AssertionError(f"modules/ does not build for {krel}:\n{done.stdout}")
    publish(sorted(source.glob("*.ko")), place, {})


def publish(modules: Sequence[Path], place: Path, texts: Mapping[str, str]) -> None:
    """Stripped as DKMS strips them, by rename: half a directory is never taken for a whole one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
    for module in modules:
        subprocess.run(["strip", "-g", "-o", str(scratch / module.name), str(module)], check=True, timeout=60)
    for name, text in texts.items():
        (scratch / name).write_text(text)
    scratch.chmod(0o755)
    shutil.rmtree(place, ignore_errors=True)
    os.rename(scratch, place)
