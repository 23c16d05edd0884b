"""A program of this system with the libraries that it needs, to be run in another."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def program_files(program: str, name: str) -> dict[str, bytes]:
    """Absolute path there → content; the program itself is called `name`."""
    listing = subprocess.run(["ldd", program], check=True, capture_output=True, text=True, timeout=60).stdout
    libraries = re.findall(r"(/\S+) \(0x", listing)
    return {name: Path(program).read_bytes(), **{path: Path(path).read_bytes() for path in libraries}}
