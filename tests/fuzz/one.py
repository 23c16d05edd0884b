"""One target in this process, under libFuzzer: python -m tests.fuzz.one TARGET [libFuzzer's options] CORPUS."""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    atheris = importlib.import_module("atheris")  # from PyPI, and nowhere else needed
    with atheris.instrument_imports(include=["autokmod"]):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    target = targets[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
