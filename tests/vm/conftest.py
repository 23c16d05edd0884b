"""What tests in a virtual machine need, and where their tables are printed."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import COMPLETE

TOOLS = ("qemu-system-x86_64", "setpriv", "gcc", "strip", "depmod", "openssl", "pahole")


@dataclass
class Report:
    """Lines for the end of the run, whatever became of the tests."""

    lines: list[str] = field(default_factory=list)


REPORT = pytest.StashKey[Report]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    why = _why_not() if item.get_closest_marker("vm") else None
    if why and os.environ.get(COMPLETE):
        pytest.fail(why, pytrace=False)
    if why:
        pytest.skip(why)


def _why_not() -> str | None:
    if platform.machine() != "x86_64":
        return "the virtual machine is an x86_64 one"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"a virtual machine needs {', '.join(missing)}" if missing else None


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash.setdefault(REPORT, Report())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    report = config.stash.get(REPORT, Report())
    if report.lines:
        terminalreporter.section("loader and checker")
        terminalreporter.write_line("\n".join(report.lines))
