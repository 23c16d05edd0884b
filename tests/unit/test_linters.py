"""The linters are tests; a linter that is not there is a failure, not a test left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
HOOKS = ("kernel-install.d/kernel-event", "kernel-install.d/package-event", "kernel-install.d/debian/autokmod")
SHELL = (*HOOKS, "systemd/activate", ".ci/run", ".ci/setup")


def tool(name: str) -> str:
    """From the environment that runs the tests, or from the system."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert path, f"{name} is not here: `make test` installs it"
    return path


def check(*command: str) -> None:
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    check(tool("ruff"), "check", "--no-cache")


def test_mypy() -> None:
    check(tool("mypy"))


@pytest.mark.parametrize("script", [*SHELL, *sorted(str(p) for p in CHECKOUT.glob("kernel-install.d/*.install"))])
def test_shell(script: str) -> None:
    check(tool("shellcheck"), "--shell=sh", script)
    check(tool("dash"), "-n", script)


def test_no_two_test_files_share_a_name() -> None:
    """pytest would collect the first, and stop at the second."""
    names = [path.name for path in (CHECKOUT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted({n for n in names if names.count(n) > 1})
