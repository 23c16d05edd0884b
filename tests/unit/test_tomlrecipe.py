"""autokmod.toml: what it may say, by the reader and by the schema; and what it means for one kernel."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autokmod.config import Config, PackageConfig
from autokmod.errors import FactMissing, RecipeError
from autokmod.model import ElfIdent, Export, Kernel, KernelAbi, KernelState, Package, Reason, Recipe, RecipePatch
from autokmod.observe.kernelfacts import Distribution, parse_compiler, parse_os_release, read_distribution
from autokmod.observe.recipe import Recipes, read_recipe, recall_recipe
from autokmod.observe.sources import find_packages
from autokmod.observe.tomlfile import RecipeFile
from autokmod.paths import Paths
from autokmod.recipeparts import DefinePart, FlagsPart, PatchPart
from autokmod.tomltable import hints_of, read_table, table_type
from tests.fuzz.targets import recipe

SCHEMA = json.loads((Path(__file__).parents[2] / "autokmod/data/autokmod.schema.json").read_text())
VENDOR = Path(__file__).parents[1] / "data/vendor-blinken/autokmod.toml"
KREL = "6.12.117+deb12-amd64"
LEAST = '[package]\nname = "foo"\nversion = "1.0"\n[[module]]\nname = "foo"\n'
ALL = """
[package]
name = "foo"
version = "1.0"
autoinstall = false
link = "never"
build_depends = ["bar", "baz", "bar"]
tools = "flex"
when = { arch = "x86_64", not = [{ config = "CONFIG_X" }] }
[build]
dir = "./src//"
configure = "./configure"
make = " make all "
install = "make install"
[[source]]
archive = "*.tar.gz"
into = "src"
strip = 0
[[module]]
name = "foo"
path = "sub/*/foo-mod.ko"
strip = false
[[module]]
name = "old"
when = { kernel = "<6" }
[[patch]]
file = "p/*.patch"
strip = 2
dir = "src"
when = { kernel = ">=6" }
[[patch]]
file = "p/2.patch"
when = { kernel = "<6" }
[[define]]
name = "A"
[[define]]
name = "B"
value = "1"
when = { exports = "!strlcpy" }
[[flags]]
cflags = ["-Wno-error -O1", "-g"]
make = "V=1 2"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    source = tmp_path / "usr/src/foo-1.0"
    (source / "p").mkdir(parents=True)
    for name in ("b.tar.gz", "a.tar.gz", "p/2.patch", "p/1.patch", "p/no.diff"):
        (source / name).write_text("x")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    return tmp_path


def kernel(root: Path, *, headers: bool = True) -> Kernel:
    kdir = str(root / "kdir") if headers else None
    return Kernel(KREL, KernelState.COMPLETE, str(root / "lib/modules" / KREL), kdir, None, (), 0.0)


def abi(*symbols: str, problems: tuple[Reason, ...] = ()) -> KernelAbi:
    exports = {name: Export(name, 1, "vmlinux", gpl_only=False, namespace=None) for name in ("printk", *symbols)}
    ident = ElfIdent(64, "little", 62)
    return KernelAbi(KREL, ident, None, None, True, exports, "x", "s", "c", {"CONFIG_PCI": "y"}, problems)


def read(
    root: Path, text: str, mine: PackageConfig | None = None, *, headers: bool = True, seen: KernelAbi | None = None
) -> Recipe:
    (root / "usr/src/foo-1.0/autokmod.toml").write_text(text)
    config = Config(packages=(("foo", mine),)) if mine else Config()
    (package,) = find_packages(Paths(root), config)
    return read_recipe(Paths(root), config, package, kernel(root, headers=headers), seen or abi())


def fails(root: Path, text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        read(root, text)
    assert caught.value.path == f"{root}/usr/src/foo-1.0/autokmod.toml"
    return caught.value


# ---- what it means -------------------------------------------------------------------------------


def test_the_least_that_a_recipe_can_say(root: Path) -> None:
    made = read(root, LEAST)
    assert (made.name, made.version, made.kind) == ("foo", "1.0", "toml")
    assert [(m.built_location, m.built_name, m.dest_name, m.strip) for m in made.modules] == [
        ("**", "foo", "foo", True)
    ]
    assert (made.make, made.configure, made.install, made.directory) == ("", "", "", "")
    assert made.autoinstall
    assert made.link_allowed
    assert made.excluded is None
    assert made.warnings == ()
    assert made.applied == made.passed_over == made.undecided == ()


def test_all_that_a_recipe_can_say(root: Path) -> None:
    made = read(root, ALL)
    assert [(m.built_location, m.built_name, m.dest_name, m.strip) for m in made.modules] == [
        ("sub/*", "foo-mod", "foo", False)
    ]
    assert (made.make, made.configure, made.install, made.directory) == (
        "make all",
        "./configure",
        "make install",
        "src",
    )
    assert not made.autoinstall
    assert not made.link_allowed
    assert made.build_depends == ("bar", "baz")
    assert made.tools == ("flex",)
    assert [(a.file, a.directory, a.strip) for a in made.archives] == [("a.tar.gz", "src", 0), ("b.tar.gz", "src", 0)]
    assert made.series == (RecipePatch("p/1.patch", 2, "src"), RecipePatch("p/2.patch", 2, "src"))
    assert made.flags == ("-DA", "-DB=1", "-Wno-error", "-O1", "-g")
    assert made.variables == ("V=1 2",)
    assert f"patch p/1.patch: {KREL} is >=6" in made.applied
    assert "-DB=1: the kernel does not export strlcpy" in made.applied
    assert set(made.passed_over) == {f"module old: {KREL} is not <6", f"patch p/2.patch: {KREL} is not <6"}


def test_a_kernel_that_it_is_not_meant_for(root: Path) -> None:
    made = read(root, LEAST.replace("[[module]]", 'when = { kernel = "<6" }\n[[module]]'))
    assert made.excluded is not None
    assert made.excluded.text == f"the recipe is not meant for kernel {KREL}: {KREL} is not <6"


def test_no_module_for_this_kernel(root: Path) -> None:
    made = read(root, LEAST + 'when = { kernel = "<6" }\n')
    assert made.excluded is not None
    assert made.excluded.kind == "excluded-modules"


def test_one_name_for_two_kernels(root: Path) -> None:
    twice = (
        LEAST + 'when = { kernel = "<6" }\n[[module]]\nname = "foo"\npath = "new/foo.ko"\nwhen = { kernel = ">=6" }\n'
    )
    assert [m.built_location for m in read(root, twice).modules] == ["new"]


@pytest.mark.parametrize(
    ("text", "line", "key", "why"),
    [
        ("", 0, "package", "is missing; a table expected"),
        ('[package]\nname = "foo"\n', 1, "package.version", "is missing; a text expected"),
        ('[package]\nname = "foo"\nversion = "1"\n', 0, "module", "is missing"),
        ('module = []\n[package]\nname = "foo"\nversion = "1"\n', 1, "module", "names no module"),
        (LEAST + "nane = 1\n", 6, "module[0].nane", "unknown key; did you mean name?"),
        (LEAST + 'path = "foo.o"\n', 6, "module[0].path", "has to end in NAME.ko"),
        (LEAST + 'path = "../foo.ko"\n', 6, "module[0].path", "leaves its directory"),
        (LEAST + '[[module]]\nname = "foo"\n', 7, "module[1].name", "the same module as module[0]"),
        (LEAST + '[[module]]\nname = "x.ko"\n', 7, "module[1].name", "without '.ko'"),
        (LEAST + '[[patch]]\nfile = "gone/*"\n', 7, "patch[0].file", "there is no gone/* in the source"),
        (LEAST + '[[patch]]\nfile = "/x"\n', 7, "patch[0].file", "begins with a slash"),
        (LEAST + '[[source]]\narchive = "p/1.patch"\n', 7, "source[0].archive", "no tar archive"),
        (LEAST + '[[define]]\nname = "-DX"\n', 7, "define[0].name", "not the name of a macro"),
        (LEAST + '[[define]]\nname = "X"\nvalue = "a b"\n', 8, "define[0].value", "letters, digits and"),
        (LEAST + '[[define]]\nname = "X"\nwhen = { exports = 1 }\n', 8, "define[0].when.exports", "a text expected"),
        (LEAST + '[[define]]\nname = "X"\nwhen = { kernel = ">=x" }\n', 8, "define[0].when.kernel", "is not a bound"),
        (LEAST + "[[flags]]\n", 6, "flags[0].cflags", "one of them is expected"),
        (LEAST + '[[flags]]\ncflags = "$(rm)"\n', 7, "flags[0].cflags", "is not an option"),
        (LEAST + '[[flags]]\nmake = "KCFLAGS=-O"\n', 7, "flags[0].make", "use cflags"),
        (LEAST + '[[flags]]\nmake = "X"\n', 7, "flags[0].make", "is not NAME=VALUE"),
        ("[package\n", 0, "", "not TOML: "),
    ],
)
def test_an_error_names_file_line_key_and_what_was_expected(
    root: Path, text: str, line: int, key: str, why: str
) -> None:
    error = fails(root, text)
    assert (error.line, error.key) == (line, key)
    assert why in error.why
    assert "\n" not in str(error)


def test_what_is_not_known_is_an_error_only_where_it_could_be_built(root: Path) -> None:
    text = LEAST + '[[define]]\nname = "X"\nwhen = { exports = "printk" }\n'
    broken = abi(problems=(Reason("symvers-mismatch", "of another kernel"),))
    assert read(root, text).flags == ("-DX",)
    with pytest.raises(FactMissing, match=r":8: define\[0\]\.when: nobody can tell"):
        read(root, text, seen=broken)
    without = read(root, text, seen=broken, headers=False)
    assert (without.flags, len(without.undecided)) == ((), 1)


def test_the_administrator_s_additions_come_last(root: Path) -> None:
    place = root / "etc/autokmod/packages.d/foo/patches"
    place.mkdir(parents=True)
    for name in ("b.patch", "a.patch", "a.patch~", ".c.patch", "README"):
        (place / name).write_text("x")
    mine = PackageConfig(
        patch=(PatchPart("b*", strip=0),), define=(DefinePart("MINE"),), flags=(FlagsPart(("-Wall",), ("X=1",)),)
    )
    made = read(root, ALL, mine)
    assert made.series[2:] == (RecipePatch("a.patch", own=True), RecipePatch("b.patch", 0, own=True))
    assert made.flags[-2:] == ("-DMINE", "-Wall")
    assert made.variables == ("V=1 2", "X=1")
    assert "the administrator's -DMINE" in made.applied
    with pytest.raises(RecipeError, match=r"packages.d/foo.toml: patch\[0\].file: there is no x\* in"):
        read(root, ALL, replace(mine, patch=(PatchPart("x*"),)))


def test_what_was_read_once_is_remembered_until_anything_changes(root: Path) -> None:
    made = read(root, LEAST)
    paths, config = Paths(root), Config()
    (package,) = find_packages(paths, config)
    recipes = Recipes(["foo-1.0"], read_distribution(paths))
    assert recall_recipe(config, package, kernel(root), abi(), recipes) is None
    assert read_recipe(paths, config, package, kernel(root), abi(), recipes) == made
    assert recall_recipe(config, package, kernel(root), abi(), recipes) is not None
    others: list[tuple[Package, KernelAbi, Distribution]] = [
        (replace(package, digest="other"), abi(), recipes.distribution),
        (package, replace(abi(), symvers_digest="other"), recipes.distribution),
        (package, abi(), Distribution(("fedora",), "40")),
    ]
    for changed, seen, distribution in others:
        known = Recipes(recipes.neighbours, distribution, recipes.known)
        assert recall_recipe(config, changed, kernel(root), seen, known) is None


# ---- os-release, compilers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ids", "release"),
    [
        ('ID=ubuntu\nID_LIKE="debian other"\nVERSION_ID="22.04"\n', ("ubuntu", "debian", "other"), "22.04"),
        ("NAME='x y'\nID='arch'\n", ("arch",), None),
        ("garbage\n# ID=no\n", ("linux",), None),
    ],
)
def test_os_release(root: Path, text: str, ids: tuple[str, ...], release: str | None) -> None:
    (root / "etc/os-release").write_text(text)
    assert read_distribution(Paths(root)) == Distribution(ids, release)


def test_without_os_release(root: Path) -> None:
    (root / "etc/os-release").unlink()
    assert read_distribution(Paths(root)) == Distribution(None, None)
    assert dict(parse_os_release('A="q\'"\nB=\n')) == {"A": "q'", "B": ""}


@pytest.mark.parametrize(
    ("identity", "found"),
    [
        ("gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", ("gcc", "12.2.0")),
        ("gcc (GCC) 14.2.1 20240801 (Red Hat 14.2.1-1)", ("gcc", "14.2.1")),
        ("Debian clang version 14.0.6", ("clang", "14.0.6")),
        ("something else", None),
        ("tcc version 0.9.27", None),
    ],
)
def test_the_compiler_by_what_it_says_of_itself(identity: str, found: tuple[str, str] | None) -> None:
    assert parse_compiler(identity) == found


# ---- any text ------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 30), st.text("[]{}=,.\"'#\n\\ abnot\x00", max_size=4)),
        max_size=4,
    )
)
def test_whatever_stands_in_a_recipe_is_a_value_or_a_sentence(edits: list[tuple[int, int, str]]) -> None:
    text = ALL
    for at, length, new in edits:
        start = at % len(text)
        text = text[:start] + new + text[start + length :]
    recipe(text.encode())


# ---- the schema ----------------------------------------------------------------------------------

SAMPLES = {"least": LEAST, "all": ALL, "vendor": VENDOR.read_text()}


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples_fit_the_schema_and_the_reader(sample: str) -> None:
    table = tomllib.loads(SAMPLES[sample])
    jsonschema.Draft202012Validator(SCHEMA).validate(table)
    read_table(RecipeFile, table)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        LEAST + "nane = 1\n",
        LEAST + '[[patch]]\nfile = "/x"\n',
        LEAST + '[[patch]]\nfile = "a/../x"\n',
        LEAST + "[[flags]]\n",
        LEAST + '[[define]]\nname = "X Y"\n',
        LEAST + '[[define]]\nname = "X"\nwhen = { symbol = "y" }\n',
        LEAST.replace('"foo"', '"f oo"'),
        "[package]\nname = 'foo'\nversion = '1'\n",
        LEAST + "strip = 1\n",
    ],
)
def test_neither_takes_what_is_wrong(wrong: str) -> None:
    table = tomllib.loads(wrong)
    assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(table))
    with pytest.raises(Exception, match=r".") as caught:
        read_table(RecipeFile, table)
    assert type(caught.value).__name__ == "TomlError"


def schema_keys(schema: Mapping[str, Any], at: str = "", depth: int = 0) -> set[str]:
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "items" in schema and "properties" not in schema:
        schema = schema["items"]
    found: set[str] = set()
    for name, inner in schema.get("properties", {}).items():
        found.add(f"{at}.{name}")
        if depth < 4 and name != "not":
            found |= schema_keys(inner, f"{at}.{name}", depth + 1)
    return found


def reader_keys(cls: type, at: str = "") -> set[str]:
    found: set[str] = set()
    for name, hint in hints_of(cls).items():
        found.add(f"{at}.{name}")
        inner = table_type(hint)
        if inner is not None and name != "not":
            found |= reader_keys(inner, f"{at}.{name}")
    return found


def test_schema_and_reader_know_the_same_keys() -> None:
    assert schema_keys(SCHEMA) == reader_keys(RecipeFile)
