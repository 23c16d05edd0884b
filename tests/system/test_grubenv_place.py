"""Where grubenv lies, on real file systems: whether GRUB could write to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from autokmod.act.bootguard import find_grubenv_obstacle
from autokmod.paths import Paths
from tests import grubdisk
from tests.conftest import COMPLETE
from tests.realroot import mount, private_mounts

NO_LOOP = pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="needs loop devices")
pytestmark = [pytest.mark.root, NO_LOOP]


@pytest.mark.parametrize(("kind", "refused"), [("ext4", None), ("btrfs", "guard-unwritable")])
@pytest.mark.parametrize("linked", [False, True], ids=["file", "link"])
def test_file_systems(tmp_path: Path, kind: str, refused: str | None, linked: bool) -> None:
    """Through a link, as Fedora has one into the EFI system partition, it is the link's end that counts."""
    if shutil.which(f"mkfs.{kind}") is None:
        (pytest.fail if os.environ.get(COMPLETE) else pytest.skip)(f"mkfs.{kind} is not installed")
    image, root = tmp_path / "image", tmp_path / "root"
    place = root / ("boot/elsewhere" if linked else "boot/grub")
    place.mkdir(parents=True)
    with open(image, "wb") as f:
        f.truncate(160 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True)
    private_mounts()
    with grubdisk.loop() as device:
        mount("-o", f"loop={device}", str(image), str(place))
        try:
            (place / "grubenv").write_bytes(b"# GRUB Environment Block\n".ljust(1024, b"#"))
            if linked:
                (root / "boot/grub").mkdir()
                (root / "boot/grub/grubenv").symlink_to("../elsewhere/grubenv")
            found = find_grubenv_obstacle(Paths(root), "/boot/grub")
            assert (found.kind if found else None) == refused
        finally:
            subprocess.run(["umount", str(place)], check=True)
