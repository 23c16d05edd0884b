"""Which room may import which: docs/architecture.md says why, this says no."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "autokmod"

# A room may import itself and what stands to its right.
BASE = "base"
MAY_IMPORT = {
    "hook": {"jobs", "act", "decide", "observe", BASE},
    "daemon": {"jobs", "act", "decide", "observe", BASE},
    "ctl": {"jobs", "act", "decide", "observe", BASE},
    "jobs": {"act", "decide", "observe", BASE},
    "act": {"decide", "observe", BASE},
    "decide": {"observe", BASE},
    "observe": {BASE},
    BASE: set[str](),
}
# Facts in, values out.
PURE = {"__future__", "bisect", "collections", "dataclasses", "enum", "fnmatch", "functools", "graphlib", "hashlib"}
PURE |= {"heapq", "itertools", "json", "math", "operator", "re", "string", "struct", "types", "typing"}
IMPURE_BASE = {"autokmod.files", "autokmod.journal", "autokmod.journald", "autokmod.paths", "autokmod.run"}
STARTS_PROCESSES = {"multiprocessing", "pty", "subprocess"}
OS_STARTS_PROCESSES = ("exec", "fork", "popen", "posix_spawn", "spawn", "system")


@dataclass(frozen=True)
class Module:
    name: str  # autokmod.decide.plan
    tree: ast.Module

    @property
    def room(self) -> str:
        part = self.name.split(".")[1] if "." in self.name else BASE
        return part if part in MAY_IMPORT else BASE

    def imports(self) -> Iterator[str]:
        """Every imported module, wherever the statement stands: an import in a function is an import."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}: relative import"
                yield node.module or ""
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def read_modules() -> dict[str, Module]:
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, ast.parse(file.read_text(encoding="utf-8"), str(file)))
    return found


MODULES = read_modules()


def own_imports(module: Module, known: Mapping[str, Module]) -> set[str]:
    """Those of the project, without the packages that every dotted name passes through."""
    return {name for name in module.imports() if name in known} - {"autokmod", module.name}


def outside_imports(module: Module) -> set[str]:
    """Top names of everything else."""
    return {name.split(".")[0] for name in module.imports()} - {"autokmod"}


def wrong_rooms(module: Module, known: Mapping[str, Module]) -> set[str]:
    allowed = MAY_IMPORT[module.room] | {module.room}
    return {name for name in own_imports(module, known) if known[name].room not in allowed}


def started_processes(module: Module) -> set[str]:
    calls = {
        f"os.{node.attr}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
        if node.attr.startswith(OS_STARTS_PROCESSES)
    }
    return calls | (outside_imports(module) & STARTS_PROCESSES)


def impurities(module: Module) -> set[str]:
    own = {n for n in own_imports(module, MODULES) if n in IMPURE_BASE}
    return own | (outside_imports(module) - PURE)


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda m: m.name)
def test_imports_point_one_way(module: Module) -> None:
    assert not wrong_rooms(module, MODULES)


def test_no_import_cycles() -> None:
    graph = {name: own_imports(module, MODULES) for name, module in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" → ".join(exc.args[1]))


@pytest.mark.parametrize("module", [m for m in MODULES.values() if m.room == "decide"], ids=lambda m: m.name)
def test_deciding_is_pure(module: Module) -> None:
    assert not impurities(module)


def test_one_door_to_subprocesses() -> None:
    assert {m.name for m in MODULES.values() if started_processes(m)} == {"autokmod.run"}


def test_only_the_watcher_knows_inotify() -> None:
    assert {m.name for m in MODULES.values() if "inotify_simple" in outside_imports(m)} <= {"autokmod.daemon.watcher"}


def test_the_bus_is_known_to_few() -> None:
    found = {m.name for m in MODULES.values() if outside_imports(m) & {"gi", "pydbus"}}
    assert {n for n in found if not n.startswith("autokmod.daemon.") and n != "autokmod.ctl.client"} == set()


def test_the_binding_is_known_to_fewer() -> None:
    """pydbus is to be replaceable: its side of the service, its side of the client, one shim."""
    assert len({m.name for m in MODULES.values() if "pydbus" in outside_imports(m)}) <= 3


def test_structlog_has_one_door() -> None:
    assert {m.name for m in MODULES.values() if "structlog" in outside_imports(m)} <= {"autokmod.journal"}


# ---- and these tests can fail ----


def made(name: str, source: str) -> Module:
    return Module(name, ast.parse(source))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("autokmod.observe.x", "from autokmod.act import place"),
        ("autokmod.observe.x", "def f():\n    import autokmod.act.place"),
        ("autokmod.ctl.x", "from autokmod.daemon.main import main"),
        ("autokmod.decide.x", "from autokmod.act.place import place_files"),
        ("autokmod.x", "from autokmod.observe.kernels import is_krel"),
        ("autokmod.daemon.x", "import autokmod.hook"),
    ],
)
def test_a_wrong_import_is_seen(name: str, source: str) -> None:
    known = {n: made(n, "") for n in ("autokmod.act.place", "autokmod.daemon.main", "autokmod.observe.kernels")}
    known |= {n: made(n, "") for n in ("autokmod.act", "autokmod.hook")}
    assert wrong_rooms(made(name, source), known)


def test_impure_and_starting_code_is_seen() -> None:
    assert impurities(made("autokmod.decide.x", "import time\nfrom autokmod.paths import Paths")) == {
        "time",
        "autokmod.paths",
    }
    assert started_processes(made("autokmod.act.x", "import os\nos.posix_spawnp('a', [], {})")) == {"os.posix_spawnp"}
