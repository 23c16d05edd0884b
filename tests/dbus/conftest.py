from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dbus.busmachine import Machine, running_bus


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A root with nothing in it, and a bus. Plain users can get through to both, as on a real system."""
    closed = {d: d.stat().st_mode for d in tmp_path.parents if not d.stat().st_mode & 0o001}
    for directory, mode in closed.items():
        directory.chmod(mode | 0o011)
    tmp_path.chmod(0o755)
    try:
        with running_bus(tmp_path) as bus:
            yield Machine(tmp_path, bus.address)
    finally:
        for directory, mode in closed.items():
            directory.chmod(mode)
