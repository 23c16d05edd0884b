"""autokmod.toml and what the administrator adds, really built: vendors' trees, archives, patches and flags by facts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from autokmod.act.build import build_package
from autokmod.act.store import read_built
from autokmod.config import BuildConfig, Config
from autokmod.config_load import load_config
from autokmod.decide.buildkey import build_key, source_key
from autokmod.errors import FactMissing
from autokmod.jobs.tokens import TokenPool
from autokmod.model import Build, Package, Recipe
from autokmod.observe.abi import read_abi
from autokmod.observe.kernels import read_kernel
from autokmod.observe.ko import parse_module
from autokmod.observe.recipe import read_recipe
from autokmod.observe.sources import find_packages
from autokmod.observe.toolchain import read_toolchain
from autokmod.run import Cancel
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.mainjob import becomes_ready, check_built, check_linked, ctl, daemon, oneshot, placement, wait_until
from tests.realroot import RealRoot
from tests.vm.matrix import newest_series

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

DATA = Path(__file__).parents[1] / "data"
NAME, VERSION = "blinken", "2.4"
# What the vendor's modules import that changes between kernels: where these agree, a build fits.
IMPORTED = (
    "module_layout",
    "class_create",
    "class_destroy",
    "__platform_driver_register",
    "platform_driver_unregister",
)
V4L2 = "v4l2loopback-dkms"
STRLCPY = """
[[define]]
name = "strlcpy"
value = "strscpy"
when = { exports = "!strlcpy" }
"""


class Workshop:
    """Packages of one root, built one by one for any of its kernels."""

    def __init__(self, root: RealRoot, pool: TokenPool) -> None:
        self.root, self.paths, self.pool = root, root.paths, pool

    @property
    def config(self) -> Config:
        return replace(load_config(self.paths), build=BuildConfig(time_limit_s=300))

    def package(self, name: str) -> Package:
        (found,) = [p for p in find_packages(self.paths, self.config) if p.name == name]
        assert found.problem is None
        return found

    def recipe(self, name: str, krel: str) -> Recipe:
        kernel = read_kernel(self.paths, krel)
        return read_recipe(self.paths, self.config, self.package(name), kernel, read_abi(self.paths, kernel))

    def build(self, name: str, krel: str) -> Build:
        kernel = read_kernel(self.paths, krel)
        abi = read_abi(self.paths, kernel)
        package, recipe = self.package(name), self.recipe(name, krel)
        toolchain, problem = read_toolchain(self.paths, kernel, abi, self.config)
        assert problem is None
        keys = build_key(package, recipe, abi, toolchain), source_key(package, recipe)
        return build_package(self.paths, self.config, package, recipe, kernel, abi, *keys, self.pool, Cancel())

    def log(self, build: Build) -> str:
        return Path(build.directory, "build.log").read_text()

    def administer(self, package: str, text: str) -> None:
        self.paths.packages_d.mkdir(parents=True, exist_ok=True)
        (self.paths.packages_d / f"{package}.toml").write_text(text)

    def add_patch(self, package: str, name: str, text: str) -> None:
        place = self.paths.packages_d / package / "patches"
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
        for directory in (place, place.parent, place.parent.parent):
            directory.chmod(0o700)  # the build user need not read /etc/autokmod


@pytest.fixture
def pool() -> Iterator[TokenPool]:
    pool = TokenPool(2)
    yield pool
    pool.close()


def newest(corpus: Corpus, flavour: str) -> str:
    return newest_series(corpus, flavour)


def add_vendor_tree(root: RealRoot) -> Path:
    source = root.paths.usr_src / f"{NAME}-{VERSION}"
    shutil.copytree(DATA / "vendor-blinken", source)
    return source


# ---- a vendor's tree -----------------------------------------------------------------------------

SERIES = {
    "6.1": ("0001-class_create-takes-the-owner",),
    "6.12": ("0002-remove-returns-nothing", "0003-unaligned.h-moved"),
}


def check_vendor_build(workshop: Workshop, build: Build, krel: str) -> None:
    """By the facts of the kernel, not by what the recipe says: which code it has to be made of."""
    assert build.ok, workshop.log(build)
    is_new = krel.startswith("6.12")
    patches = SERIES["6.12" if is_new else "6.1"]
    assert [a.split(":")[0] for a in build.applied if a.startswith("patch ")] == [
        f"patch backports/{name}.patch" for name in patches
    ]
    compat = [a for a in build.applied if "CONFIG_COMPAT_STRLCPY" in a]
    assert compat == (["-DCONFIG_COMPAT_STRLCPY: the kernel does not export strlcpy"] if is_new else [])
    assert {m.dest_name for m in build.modules} == {"blinken_core", "blinken-panel"}
    facts = {m.dest_name: parse_module(m.file, read_built(build, m)) for m in build.modules}
    core, panel = facts["blinken_core"], facts["blinken-panel"]
    assert all(f.release == krel for f in facts.values())
    assert ("strlcpy" in {i.name for i in core.imports}) is not is_new
    provided = {e.name: e.crc for e in core.exports}
    assert panel.versions is not None
    assert {n: panel.versions[n] for n in provided if n in panel.versions} == provided
    assert provided.keys() == {"blinken_class", "blinken_lamps", "blinken_copy_name"}


def test_a_vendor_s_tree_builds_on_old_and_new_kernels(real_root: MakeRoot, corpus: Corpus, pool: TokenPool) -> None:
    old, new = corpus.trio.first, newest(corpus, "cloud-amd64")
    workshop = Workshop(real_root(kernels=(old, new)), pool)
    source = add_vendor_tree(workshop.root)
    before = sorted(source.rglob("*"))
    for krel in (old, new):
        check_vendor_build(workshop, workshop.build(NAME, krel), krel)
    assert sorted(source.rglob("*")) == before
    log = workshop.log(workshop.build(NAME, old))
    assert f"checking for the kernel's headers... /lib/modules/{old}/build" in log
    assert f"not applied: patch backports/0002-remove-returns-nothing.patch: {old} is not >=6.11" in log
    assert "jobserver unavailable" not in log


def linkable(corpus: Corpus, krels: tuple[str, ...]) -> tuple[str, str]:
    """The newest two neighbours in which what the tree imports is equal."""
    for newer, older in pairwise(krels):
        both = [corpus.symvers(k) for k in (newer, older)]
        if all(both[0].get(name) == both[1].get(name) for name in IMPORTED):
            return older, newer
    pytest.skip(f"no two of {', '.join(krels)} agree in what the tree imports")


@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_a_vendor_s_tree_is_linked_where_the_symbols_are_equal(
    real_root: MakeRoot, corpus: Corpus, series: str
) -> None:
    names = corpus.archive.names(f"^linux-headers-{series}[.].*-cloud-amd64$")
    krels = sorted((n.removeprefix("linux-headers-") for n in names), key=_numbers, reverse=True)
    older, newer = linkable(corpus, tuple(krels))
    root = real_root(kernels=(older,))
    add_vendor_tree(root)
    oneshot(root)
    check_built(root, older, NAME)
    root.add_kernel(newer)
    oneshot(root)
    check_linked(root, newer, older, NAME, symbols=8)
    applied = [a.partition(":")[0] for a in ctl(root, "explain", NAME, newer)["applied"]]
    assert [a for a in applied if "backports" in a] == [f"patch backports/{name}.patch" for name in SERIES[series]]


def _numbers(krel: str) -> tuple[int, ...]:
    return tuple(int(n) for n in krel.replace("+deb12", "").replace("-", ".").split(".") if n.isdecimal())


def test_archives_are_unpacked_where_the_recipe_says(real_root: MakeRoot, corpus: Corpus, pool: TokenPool) -> None:
    """As vendors ship them: the recipe and a directory of archives, each with a directory of its own inside."""
    krel = corpus.trio.first
    workshop = Workshop(real_root(kernels=(krel,)), pool)
    source = workshop.paths.usr_src / f"{NAME}-{VERSION}"
    (source / "SOURCES").mkdir(parents=True)
    shutil.copytree(DATA / "vendor-blinken/backports", source / "backports")
    for part, members in {"a-build": ("configure", "Makefile"), "b-src": ("src",)}.items():
        archive = source / "SOURCES" / f"{part}_2.4.orig.tar.gz"
        subprocess.run(
            ["tar", "-czf", archive, f"--transform=s|^|{part}-2.4/|", "-C", DATA / "vendor-blinken", *members],
            check=True,
        )
    text = (DATA / "vendor-blinken/autokmod.toml").read_text()
    text += '\n[[source]]\narchive = "SOURCES/*.orig.tar.gz"\ninto = "tree"\n'
    text = text.replace("[build]", '[build]\ndir = "tree"').replace("[[patch]]", '[[patch]]\ndir = "tree"')
    (source / "autokmod.toml").write_text(text)
    build = workshop.build(NAME, krel)
    check_vendor_build(workshop, build, krel)
    assert [a for a in build.applied if "archive" in a] == [
        "archive SOURCES/a-build_2.4.orig.tar.gz",
        "archive SOURCES/b-src_2.4.orig.tar.gz",
    ]


# ---- a plain tree --------------------------------------------------------------------------------

PLAIN = '[package]\nname = "plain"\nversion = "1.0"\n[[module]]\nname = "plain"\n'
PLAIN_C = """#include <linux/module.h>
#ifdef WANTED
#error WANTED is here
#endif
MODULE_LICENSE("GPL");
"""


def plain(root: RealRoot, recipe: str = PLAIN, **files: str) -> Path:
    made = {"autokmod.toml": recipe, "Makefile": "obj-m := plain.o\n", "plain.c": PLAIN_C}
    return root.add_source("plain", "1.0", {**made, **files})


@pytest.fixture
def workshop(real_root: MakeRoot, corpus: Corpus, pool: TokenPool) -> Workshop:
    return Workshop(real_root(kernels=(corpus.trio.first,)), pool)


@pytest.fixture
def krel(corpus: Corpus) -> str:
    return corpus.trio.first


# Makefiles that set what kbuild adds flags from, or that call make anew.
MAKEFILES = {
    "plain": "obj-m := plain.o\n",
    "ccflags": "obj-m := plain.o\nccflags-y := -DOTHER\n",
    "kcflags": "obj-m := plain.o\nKCFLAGS := -DOTHER\nexport KCFLAGS\n",
    "extra cflags": "obj-m := plain.o\nEXTRA_CFLAGS += -DOTHER\n",
}
COMMANDS = {
    "": "",
    "clears MAKEFLAGS": "make = 'env MAKEFLAGS= make -C $kernel_source_dir M=$PWD modules'",
    "clears the environment": "make = 'env -u KCFLAGS make -C $kernel_source_dir M=$PWD modules'",
}


@pytest.mark.parametrize("makefile", MAKEFILES)
def test_a_define_reaches_the_compiler_whatever_the_makefile_does(workshop: Workshop, krel: str, makefile: str) -> None:
    plain(workshop.root, Makefile=MAKEFILES[makefile])
    assert workshop.build("plain", krel).ok
    workshop.administer("plain", '[[define]]\nname = "WANTED"\n')
    build = workshop.build("plain", krel)
    assert "WANTED is here" in build.errors[0].text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_define_reaches_the_compiler_whatever_the_command_does(workshop: Workshop, krel: str, command: str) -> None:
    plain(workshop.root, PLAIN + f"[build]\n{COMMANDS[command]}\n")
    workshop.administer("plain", '[[define]]\nname = "WANTED"\n')
    assert "WANTED is here" in workshop.build("plain", krel).errors[0].text


def test_make_s_variables_win_over_the_makefile_s(workshop: Workshop, krel: str) -> None:
    makefile = "CONFIG_X := n\nNAMES := none\nobj-m := plain.o\n$(info x=$(CONFIG_X) names=$(NAMES))\n"
    plain(workshop.root, Makefile=makefile)
    workshop.administer("plain", "[[flags]]\nmake = ['CONFIG_X=m', 'NAMES=a b $$ \\ c']\n")
    build = workshop.build("plain", krel)
    assert build.ok, workshop.log(build)
    assert "x=m names=a b $ \\ c" in workshop.log(build).splitlines()


def test_tools_that_are_missing_are_named_and_waited_for(workshop: Workshop, krel: str) -> None:
    plain(workshop.root, PLAIN.replace("[[module]]", 'tools = ["bash", "no-such-program"]\n[[module]]'))
    build = workshop.build("plain", krel)
    assert build.transient
    assert build.errors[0].text == "the recipe wants no-such-program, which is not installed"


def test_two_files_of_one_name_have_to_be_told_apart(workshop: Workshop, krel: str) -> None:
    make = "[build]\nmake = 'make -C $kernel_source_dir M=$PWD modules && mkdir old && cp plain.ko old/'\n"
    plain(workshop.root, PLAIN + make)
    build = workshop.build("plain", krel)
    assert "the build made 2 files plain.ko, say which with the module's path: old/plain.ko plain.ko" in (
        build.errors[0].text
    )
    plain(workshop.root, f'{PLAIN}path = "o?d/plain.ko"\n{make}')
    assert workshop.build("plain", krel).ok


def test_a_module_that_is_not_made_is_told(workshop: Workshop, krel: str) -> None:
    plain(workshop.root, PLAIN + '[[module]]\nname = "other"\n')
    assert workshop.build("plain", krel).errors[0].text == (
        "the recipe promises other.ko, which the build did not make"
    )


@pytest.mark.parametrize("kind", ["configure", "install"])
def test_a_command_that_fails_is_told(workshop: Workshop, krel: str, kind: str) -> None:
    plain(workshop.root, PLAIN + f"[build]\n{kind} = 'exit 7'\n")
    assert workshop.build("plain", krel).errors[0].text.endswith(f"the {kind} script ended with exit status 7")


@pytest.mark.parametrize("suffix", ["gz", "xz", "zst"])
def test_compressed_modules_are_taken(workshop: Workshop, krel: str, suffix: str) -> None:
    tool = {"gz": "gzip", "xz": "xz", "zst": "zstd -q --rm"}[suffix]
    install = f"mkdir $destdir/x && cp plain.ko $destdir/x && {tool} $destdir/x/plain.ko"
    plain(workshop.root, f"{PLAIN}[build]\ninstall = '{install}'\n")
    build = workshop.build("plain", krel)
    assert build.ok, workshop.log(build)
    assert parse_module("plain.ko", read_built(build, build.modules[0])).release == krel


def test_both_recipes_are_there(workshop: Workshop, krel: str) -> None:
    plain(workshop.root, **{"dkms.conf": "exit 1\n"})
    recipe = workshop.recipe("plain", krel)
    assert workshop.package("plain").kind == recipe.kind == "toml"
    assert [w.kind for w in recipe.warnings] == ["two-recipes"]


# ---- patches -------------------------------------------------------------------------------------


def patch(file: str, old: str, new: str) -> str:
    return f"--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-{old}\n+{new}\n"


def test_the_administrator_s_patches_apply_on_top_in_order_of_name(workshop: Workshop, krel: str) -> None:
    show = "[build]\nmake = 'cat value; make -C $kernel_source_dir M=$PWD modules'\n"
    recipe = PLAIN + show + '[[patch]]\nfile = "vendor/*.diff"\nstrip = 0\n'
    vendor = {"vendor/1.diff": "--- value\n+++ value\n@@ -1 +1 @@\n-zero\n+vendor\n"}
    plain(workshop.root, recipe, value="zero\n", **vendor)
    workshop.add_patch("plain", "20-second.patch", patch("value", "first", "second"))
    workshop.add_patch("plain", "10-first.patch", patch("value", "vendor", "first"))
    workshop.add_patch("plain", "30-never.patch", patch("value", "nothing", "else"))
    workshop.administer("plain", '[[patch]]\nfile = "30-*"\nwhen = { kernel = "<2" }\n')
    build = workshop.build("plain", krel)
    assert build.ok, workshop.log(build)
    assert "\nsecond\n" in workshop.log(build)
    assert build.applied == (
        "patch vendor/1.diff",
        "the administrator's patch 10-first.patch",
        "the administrator's patch 20-second.patch",
    )


def test_the_administrator_s_patches_are_part_of_the_key(workshop: Workshop, krel: str) -> None:
    plain(workshop.root, value="zero\n")
    digests = [workshop.package("plain").digest]
    for text in ("one", "two"):
        workshop.add_patch("plain", "1.patch", patch("value", "zero", text))
        digests.append(workshop.package("plain").digest)
    workshop.administer("plain", '[[define]]\nname = "X"\n')
    digests.append(workshop.package("plain").digest)
    workshop.administer("plain", '[[define]]\nname = "X"\n[[define]]\nname = "Y"\n')
    digests.append(workshop.package("plain").digest)
    assert len(set(digests)) == 5
    workshop.administer("plain", '[[define]]\nname = "X"\n[[define]]\nname = "Y"\n')
    workshop.paths.packages_d.joinpath("plain.toml").write_text(
        'required = true\n[[define]]\nname = "X"\n[[define]]\nname = "Y"\n'
    )
    assert workshop.package("plain").digest == digests[-1], "who it is required by changes no byte of it"


def applies(root: RealRoot, krel: str, wanted: list[str]) -> bool:
    return bool(ctl(root, "explain", "plain", krel)["applied"] == wanted)


def test_the_daemon_sees_what_the_administrator_changes(workshop: Workshop, krel: str, tmp_path: Path) -> None:
    """Nobody asks for it: a patch that appears, a define, a patch that goes."""
    root, mine, log = workshop.root, workshop, tmp_path / "log"
    plain(root, value="zero\n")
    with daemon(root, log):
        becomes_ready(root, krel, log)
        steps: list[tuple[Callable[[], object], list[str]]] = [
            (lambda: mine.add_patch("plain", "1.patch", patch("value", "zero", "one")), ["patch 1.patch"]),
            (lambda: mine.administer("plain", '[[define]]\nname = "X"\n'), ["patch 1.patch", "-DX"]),
            ((root.paths.packages_d / "plain/patches/1.patch").unlink, ["-DX"]),
        ]
        for step, applied in steps:
            step()
            wanted = [f"the administrator's {what}" for what in applied]
            wait_until(partial(applies, root, krel, wanted), log)
            becomes_ready(root, krel, log)


FAILING = {
    "hunk": (patch("value", "other", "new"), "value: Hunk #1 FAILED at 1"),
    "file": (patch("gone", "a", "b"), "there is no file b/gone"),
    "garbage": ("this is no patch\n", "Only garbage was found in the patch input."),
    "malformed": ("--- a/value\n+++ b/value\n@@ -1 +1,3 @@\n-zero\n+x\n", "malformed patch at line"),
}


@pytest.mark.parametrize("how", FAILING)
def test_a_patch_that_does_not_apply_names_patch_file_and_hunk(workshop: Workshop, krel: str, how: str) -> None:
    text, why = FAILING[how]
    plain(workshop.root, value="zero\n")
    workshop.add_patch("plain", "bad.patch", text)
    build = workshop.build("plain", krel)
    assert not build.ok
    assert not build.transient
    assert build.errors[0].text.startswith("the patch bad.patch does not apply: ")
    assert why in build.errors[0].text


# ---- facts that cannot be read -------------------------------------------------------------------

BY_SYMBOL = PLAIN + '[[define]]\nname = "X"\nwhen = { exports = "strlcpy" }\n'


def test_without_symvers_a_condition_on_symbols_is_an_error(workshop: Workshop, krel: str) -> None:
    plain(workshop.root, BY_SYMBOL)
    assert workshop.recipe("plain", krel).flags == ("-DX",)
    (workshop.paths.resolve(workshop.paths.modulesd(krel) / "build") / "Module.symvers").write_bytes(b"\0garbage")
    with pytest.raises(FactMissing, match=r"autokmod.toml:8: define\[0\].when: nobody can tell .* cannot be read"):
        workshop.recipe("plain", krel)


def test_a_condition_that_nobody_can_judge_blocks_the_package(workshop: Workshop, krel: str) -> None:
    plain(workshop.root, BY_SYMBOL)
    (workshop.paths.resolve(workshop.paths.modulesd(krel) / "build") / "Module.symvers").write_bytes(b"\0garbage")
    oneshot(workshop.root, expect=1)
    found = placement(workshop.root, krel, "plain")
    assert found["kind"] == "blocked"
    assert found["reasons"][0]["kind"] == "condition-unknown"
    assert "autokmod.toml:8: define[0].when" in found["reasons"][0]["text"]


def test_without_headers_nothing_is_guessed_nor_wrong(workshop: Workshop, krel: str) -> None:
    plain(workshop.root, BY_SYMBOL)
    with_headers = source_key(workshop.package("plain"), workshop.recipe("plain", krel))
    os.unlink(workshop.paths.modulesd(krel) / "build")
    recipe = workshop.recipe("plain", krel)
    assert recipe.flags == ()
    assert recipe.undecided
    assert source_key(workshop.package("plain"), recipe) != with_headers


# ---- v4l2loopback --------------------------------------------------------------------------------


def test_one_file_of_the_administrator_s_cures_v4l2loopback(
    real_root: MakeRoot, corpus: Corpus, pool: TokenPool
) -> None:
    """strlcpy went with 6.8. The same file changes nothing for 6.1, where the kernel still has it."""
    old, new = corpus.archive.kernels("amd64")[0], newest(corpus, "amd64")
    root = real_root(packages=(V4L2,))
    for krel in (old, new):
        root.add_kernel(krel, image=False)
    workshop = Workshop(root, pool)
    untouched, broken = workshop.build("v4l2loopback", old), workshop.build("v4l2loopback", new)
    assert untouched.ok, workshop.log(untouched)
    assert not broken.ok
    assert "strlcpy" in broken.errors[0].text
    workshop.administer("v4l2loopback", STRLCPY)
    cured, same = workshop.build("v4l2loopback", new), workshop.build("v4l2loopback", old)
    assert cured.ok, workshop.log(cured)
    assert cured.applied == ("the administrator's -Dstrlcpy=strscpy: the kernel does not export strlcpy",)
    (module,) = cured.modules
    assert "strlcpy" not in {i.name for i in parse_module(module.file, read_built(cured, module)).imports}
    assert same.ok
    assert same.applied == ()
    assert [m.sha256 for m in same.modules] == [m.sha256 for m in untouched.modules]
