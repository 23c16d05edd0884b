"""What the benchmarks count: all processes, also those that bwrap does not wait for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cost import measured

pytestmark = pytest.mark.root
BUSY = ("sh", "-c", "i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done; exit 3")
BWRAP = ("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")


@pytest.mark.parametrize("around", [(), BWRAP], ids=["plain", "bwrap"])
def test_time_is_counted_wherever_it_is_spent(around: tuple[str, ...], tmp_path: Path) -> None:
    idle = measured([*around, "true"], tmp_path / "log")
    busy = measured([*around, *BUSY], tmp_path / "log")
    assert (idle.returncode, busy.returncode) == (0, 3), (tmp_path / "log").read_text()
    assert busy.cpu_s > idle.cpu_s + 0.1
    assert busy.idle_s >= 0
