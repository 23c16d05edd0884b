"""A module compiled without debugging information is the module that `strip -g` would have left."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autokmod.act.store import list_builds
from autokmod.observe.elf import Elf
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.mainjob import QUICK, oneshot

pytestmark = pytest.mark.root
# In the order of modpost's hash table, that of the symbols it read; and a digest of all that was linked.
ELSEWHERE = ("__versions", ".note.gnu.build-id")


def test_the_same_code_with_and_without(real_root: MakeRoot, corpus: Corpus) -> None:
    krel = corpus.trio.other
    root = real_root(kernels=(krel,), packages=(QUICK,))
    oneshot(root, "--kernel", krel)
    (build,) = list_builds(root.paths)
    log = Path(build.directory, "build.log").read_text()
    copy = f"/var/lib/dkms/{build.package}/{build.version}/build"  # where autokmod's sandbox has it: __FILE__ tells
    shutil.copytree(root.paths.usr_src / f"{build.package}-{build.version}", root.path / copy[1:])
    done = root.chroot("make", "-C", f"/lib/modules/{krel}/build", f"M={copy}")
    assert done.returncode == 0, done.stdout
    for module in build.modules:
        debug = root.path / copy[1:] / module.file
        assert b".debug_info" in debug.read_bytes()
        subprocess.run(["strip", "-g", str(debug)], check=True)
        assert dict(sections(Path(build.directory, module.file))) == dict(sections(debug)), log


def sections(file: Path) -> Iterator[tuple[str, bytes]]:
    elf = Elf(str(file), file.read_bytes())
    for section in elf.sections:
        if section.name not in ELSEWHERE:
            yield section.name, elf.content(section)
