"""Programs that autokmod can do without until they are needed, and the package that brings each."""

from __future__ import annotations

from autokmod.errors import ToolMissing
from autokmod.model import Reason
from autokmod.run import find_tool

MANAGERS = ("apt install", "dnf install", "zypper install", "pacman -S")
PACKAGES = {  # in the order of MANAGERS, where the names differ
    "openssl": ("openssl",) * 4,
    "mokutil": ("mokutil",) * 4,
    "setpriv": ("util-linux",) * 4,
    "prlimit": ("util-linux",) * 4,
}


def tool_problem(*tools: str) -> Reason | None:
    """The first that is missing."""
    for tool in tools:
        try:
            find_tool(tool)
        except ToolMissing:
            return Reason("tool-missing", f"{tool} is not installed", hint=install_hint(tool))
    return None


def install_hint(tool: str) -> str:
    names = PACKAGES[tool]
    return " or ".join(f"'{manager} {name}'" for manager, name in zip(MANAGERS, names, strict=True))
