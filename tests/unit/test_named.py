"""Which modules generators' configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokmod.observe.image.named import read_named
from autokmod.paths import Paths

FILES: list[tuple[str, str, set[str]]] = [
    ("etc/initramfs-tools/modules", "# evdi\nnvidia-drm modeset=1\n\n  zfs # root\n", {"nvidia_drm", "zfs"}),
    ("usr/share/initramfs-tools/modules.d/x", "one\n", {"one"}),
    ("etc/dracut.conf", "add_drivers=one\n", {"one"}),
    ("etc/dracut.conf.d/1.conf", 'add_drivers+=" one two "\n#drivers="three"\n', {"one", "two"}),
    ("etc/dracut.conf.d/1.conf", "force_drivers+=' one '\nhostonly=no\n", {"one"}),
    ("etc/dracut.conf.d/1.conf", 'add_drivers+=" one \\\n  two \\\n"\nfilesystems+=" ext4 "\n', {"one", "two"}),
    ("etc/dracut.conf.d/1.conf", 'omit_drivers+=" one "\n', set()),
    ("etc/dracut.conf.d/1.conf", 'add_drivers+=" one\n', {"one"}),
    ("etc/mkinitcpio.conf", "MODULES=(one two)\nHOOKS=(base)\n", {"one", "two"}),
    ("etc/mkinitcpio.conf", "MODULES=(\n  one\n  # three\n  two # too\n)\nHOOKS=(base)\n", {"one", "two"}),
    ("etc/mkinitcpio.conf.d/x.conf", 'MODULES+=("one"\n"two")\n', {"one", "two"}),
    ("etc/mkinitcpio.conf", "MODULES=(one\n", {"one"}),
    ("etc/booster.yaml", "modules: one,-two\nuniversal: true\n", {"one", "_two"}),
]


@pytest.mark.parametrize(("file", "text", "names"), FILES)
def test_named(tmp_path: Path, file: str, text: str, names: set[str]) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert read_named(Paths(tmp_path)) == names
