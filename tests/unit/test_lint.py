"""new and lint: Makefiles that can be read and those that cannot, and what is wrong with recipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autokmod.config import Config
from autokmod.ctl.recipes import find_version, recipe_text
from autokmod.errors import FormatError, UsageError
from autokmod.observe.kbuild import find_modules
from autokmod.observe.lint import lint, misspelt
from autokmod.observe.sources import find_packages
from autokmod.observe.tomlfile import read_recipe_file
from autokmod.paths import Paths
from tests.unit.handmade import add_kernel

CHECKOUT = Path(__file__).parents[2]
ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


def ctl(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autokmod.ctl.main", *map(str, args)]
    return subprocess.run(command, env=ENV, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=CHECKOUT)


def tree(top: Path, **files: str) -> Path:
    for name, text in files.items():
        path = top / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return top


# ---- Makefiles -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "modules"),
    [
        ({"Makefile": "obj-m := foo.o\n"}, ("foo",)),
        ({"Makefile": "obj-m += foo.o bar.o # not-this.o\nobj-m += baz.o\n"}, ("foo", "bar", "baz")),
        ({"Makefile": "obj-m := foo.o\nfoo-objs := a.o b.o\nfoo-y += c.o\n"}, ("foo",)),
        ({"Makefile": "obj-m = foo.o \\\n  bar.o\n"}, ("foo", "bar")),
        ({"Makefile": "NAME := foo\nobj-m := $(NAME).o\n"}, ("foo",)),
        ({"Makefile": "A = a.o\nA += b.o\nB = ${A} c.o\nobj-m := $(B)\n"}, ("a", "b", "c")),
        ({"Makefile": "CONFIG_FOO ?= m\nobj-$(CONFIG_FOO) += foo.o\n"}, ("foo",)),
        ({"Makefile": "CONFIG_FOO := n\nobj-$(CONFIG_FOO) += foo.o\nobj-m += bar.o\n"}, ("bar",)),
        ({"Makefile": "obj-m := src/\n", "src__Kbuild": "obj-m := foo.o sub/\n", "src__sub__Makefile": "obj-m := x.o"},
         ("src/foo", "src/sub/x")),
        ({"Makefile": "obj-y := src/ builtin.o\n", "src__Makefile": "obj-m := foo.o\n"}, ("src/foo",)),
        ({"Makefile": "obj-m := wrong.o\n", "Kbuild": "obj-m := right.o\n"}, ("right",)),
        ({"Makefile": "ifneq ($(KERNELRELEASE),)\nobj-m := foo.o\nelse\ninclude x.mk\nobj-m := $(shell ls)\nendif\n"},
         ("foo",)),
        ({"Makefile": "ifeq ($(KERNELRELEASE),)\ninclude x.mk\nelse\nobj-m := foo.o\nendif\n"}, ("foo",)),
        ({"Makefile": "ifdef KERNELRELEASE\nobj-m := foo.o\nendif\n"}, ("foo",)),
        ({"Makefile": "ifeq ($(DEBUG),1)\nccflags-y += -DDEBUG\nendif\nobj-m := foo.o\n"}, ("foo",)),
        ({"Makefile": "all:\n\tmake obj-m=x.o\nobj-m := foo.o\r\n"}, ("foo",)),
        ({"Makefile": "all:\n\ttrue\n"}, ()),
    ],
)  # fmt: skip
def test_modules_that_are_named_plainly(tmp_path: Path, files: dict[str, str], modules: tuple[str, ...]) -> None:
    assert find_modules(tree(tmp_path, **files)) == modules


@pytest.mark.parametrize(
    ("makefile", "line", "why"),
    [
        ("obj-$(CONFIG_FOO) += foo.o\n", 1, "depends on CONFIG_FOO, which is not set in this file"),
        ("\nobj-m := $(NAMES)\n", 2, "$(NAMES) is not set in this file"),
        ("obj-m := $(shell ls)\n", 1, "cannot be told without make"),
        ("obj-m := $(patsubst %.c,%.o,x.c)\n", 1, "cannot be told without make"),
        ("ifeq ($(X),y)\nobj-m := foo.o\nendif\n", 2, "is set under a condition"),
        ("ifeq ($(X),y)\nN := a\nelse\nN := b\nendif\nobj-m := $(N).o\n", 6, "$(N) is not set in this file"),
        ("include other.mk\nobj-m := foo.o\n", 1, "may add modules"),
        ("obj-m := foo.c\n", 1, "foo.c is neither an object nor a directory"),
        ("obj-m := gone/\n", 0, "has neither Kbuild nor Makefile"),
        ("A = $(B)\nB = $(A)\nobj-m := $(A)\n", 3, "cannot be told without make"),
    ],
)
def test_what_cannot_be_seen_is_refused_with_its_place(tmp_path: Path, makefile: str, line: int, why: str) -> None:
    with pytest.raises(FormatError) as caught:
        find_modules(tree(tmp_path, Makefile=makefile))
    assert why in caught.value.what
    assert not line or caught.value.path == f"{tmp_path}/Makefile:{line}"


def test_the_vendor_s_tree_of_the_tests() -> None:
    assert find_modules(CHECKOUT / "tests/data/vendor-blinken") == ("src/core/blinken_core", "src/panel/blinken_panel")


# ---- new -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directory", "sources", "version"),
    [
        ("foo-1.2", {}, "1.2"),
        ("foo-v2.0-rc1", {}, "2.0-rc1"),
        ("foo", {"a.c": 'MODULE_VERSION("3.1");\n'}, "3.1"),
        ("foo-9", {"a.c": '  MODULE_VERSION( "3.1" );\n', "b.c": 'MODULE_VERSION("3.1");'}, "3.1"),
    ],
)
def test_the_version(tmp_path: Path, directory: str, sources: dict[str, str], version: str) -> None:
    (tmp_path / directory).mkdir()
    assert find_version(tree(tmp_path / directory, **sources)) == version


@pytest.mark.parametrize("sources", [{}, {"a.c": 'MODULE_VERSION("1");\n', "b.c": 'MODULE_VERSION("2");\n'}])
def test_a_version_that_nobody_can_tell(tmp_path: Path, sources: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--version"):
        find_version(tree(tmp_path / "foo", **sources or {"x": ""}))


def test_new_writes_a_recipe_that_lint_finds_sound(tmp_path: Path) -> None:
    source = tree(tmp_path / "foo-1.0", Makefile="obj-m := foo.o src/\n", src__Kbuild="obj-m := bar-baz.o\n")
    done = ctl("new", "foo", source)
    assert (done.returncode, done.stderr) == (0, "")
    assert (source / "autokmod.toml").read_text() == recipe_text("foo", "1.0", ("foo", "src/bar-baz"))
    file = read_recipe_file(Paths(), source).file
    assert [(m.name, m.path) for m in file.module] == [("foo", "foo.ko"), ("bar-baz", "src/bar-baz.ko")]
    done = ctl("--root", tmp_path, "lint", source)
    assert (done.returncode, done.stdout) == (0, "foo/1.0: no errors, no warnings\n")


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    source = tree(tmp_path / "foo-1.0", Makefile="obj-m := foo.o\n", **{"autokmod.toml": "mine"})
    done = ctl("new", "foo", source)
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert (source / "autokmod.toml").read_text() == "mine"
    other = tmp_path / "other.toml"
    done = ctl("--json=short", "new", "foo", source, "--version", "2", "--output", other)
    assert json.loads(done.stdout)["package_version"] == "2"
    assert 'version = "2"' in other.read_text()


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (("foo", "gone"), 2, "no such directory"),
        (("fo o", "."), 2, "names and versions are of"),
        (("foo", "."), 1, "names no modules"),
        (("foo", "sub"), 1, "neither Kbuild nor Makefile"),
    ],
)
def test_new_refuses(tmp_path: Path, args: tuple[str, str], code: int, why: str) -> None:
    (tree(tmp_path, Makefile="all:\n") / "sub").mkdir()
    done = ctl("new", args[0], tmp_path / args[1], "--version=1")
    assert done.returncode == code
    assert why in done.stderr
    assert not list(tmp_path.rglob("*.toml"))


# ---- lint ----------------------------------------------------------------------------------------

LEAST = '[package]\nname = "foo"\nversion = "1.0"\n[[module]]\nname = "foo"\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "usr/src/foo-1.0").mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir()
    return tmp_path


def found(root: Path, text: str) -> list[tuple[str, int, str]]:
    (root / "usr/src/foo-1.0/autokmod.toml").write_text(text)
    (package,) = find_packages(Paths(root), Config())
    return [(f.severity, f.line, f.text) for f in lint(Paths(root), Config(), package)]


@pytest.mark.parametrize(
    ("text", "severity", "line", "why"),
    [
        (LEAST + "nane = 1\n", "error", 6, "did you mean name?"),
        (LEAST + '[[patch]]\nfile = "gone"\n', "error", 7, "there is no gone"),
        (LEAST + '[[module]]\nname = "foo"\n', "error", 7, "same module"),
        (LEAST.replace("[[m", 'tools = ["no-such"]\n[[m'), "error", 0, "no-such is not installed"),
        (LEAST.replace("[[m", 'build_depends = ["bar"]\n[[m'), "warning", 0, "needs the package bar"),
        (LEAST.replace('"foo"', '"other"', 1), "warning", 0, "the directory's name counts"),
        (LEAST + '[build]\nmake = "make K=$(uname -r)"\n', "warning", 7, "$kernelver is"),
        (LEAST + 'when = { config = "CONFIG_PREMPT_RT" }\n', "warning", 6, "did you mean CONFIG_PREEMPT_RT?"),
    ],
)
def test_what_lint_finds(root: Path, text: str, severity: str, line: int, why: str) -> None:
    add_kernel(Paths(root), "6.1.0-1")
    config = root / "usr/src/linux-headers-6.1.0-1/.config"
    config.write_text("CONFIG_PCI=y\n# CONFIG_PREEMPT_RT is not set\n")
    matching = [f for f in found(root, text) if why in f[2]]
    assert [f[:2] for f in matching] == [(severity, line)]


def test_a_patch_needs_its_tool(root: Path) -> None:
    (root / "usr/src/foo-1.0/a.patch").write_text("")
    assert found(root, LEAST + '[[patch]]\nfile = "a.patch"\n') == [
        ("error", 0, "patch is not installed, and it cannot be built without it")
    ]


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("CONFIG_PCI", None),
        ("CONFIG_PCY", None),
        ("CONFIG_MODVERSION", "CONFIG_MODVERSIONS"),
        ("CONFIG_ZZZZ", None),
    ],
)
def test_options_that_look_misspelt(option: str, near: str | None) -> None:
    why = misspelt(option, frozenset({"CONFIG_PCI", "CONFIG_MODVERSIONS"}))
    assert (near in why) if near and why else why is None
    assert misspelt(option, frozenset()) is None


def test_lint_says_where(root: Path) -> None:
    (root / "usr/src/foo-1.0/autokmod.toml").write_text(LEAST + "nane = 1\n")
    done = ctl("--root", root, "lint", "foo")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "error: /usr/src/foo-1.0/autokmod.toml:6: module[0].nane: unknown key; did you mean name?",
        "foo/1.0: 1 error, no warnings",
    ]
    (package,) = json.loads(ctl("--root", root, "--json=short", "lint", "foo/1.0").stdout)["packages"]
    assert package["findings"][0]["line"] == 6
    assert package["findings"][0]["file"] == "/usr/src/foo-1.0/autokmod.toml"


@pytest.mark.parametrize(("wish", "code"), [("nothing", 4), (".", 2)])
def test_lint_of_nothing(root: Path, wish: str, code: int) -> None:
    assert ctl("--root", root, "lint", wish).returncode == code
