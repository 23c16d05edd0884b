"""The parts of a build that need no sandbox: the script, the copy, and taking files out of a hostile directory."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from autokmod.act.buildscript import build_script, make_command
from autokmod.act.copytree import copy_tree
from autokmod.act.results import check_promise
from autokmod.act.take import take_file
from autokmod.errors import FormatError
from autokmod.model import ElfIdent, KernelAbi, ModuleFacts, Reason, Recipe, RecipeModule, Signature
from autokmod.observe.tree import read_tree, tree_digest

KREL = "6.1.0-56"
MODULE = RecipeModule("foo", "src", "foo", strip=True)
RECIPE = Recipe("foo", "1.0", (MODULE,), "", (), True, (), "", "", None)


# ---- the script ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "command"),
    [
        ("make all", f"make KERNELRELEASE={KREL} all"),
        ("make", f"make KERNELRELEASE={KREL}"),
        ("'make' all", "'make' all"),
        ("(make all; make more)", "(make all; make more)"),
        ("KVER=1 make", "KVER=1 make"),
        ("./configure && make", "./configure && make"),
        ("", f'make KERNELRELEASE={KREL} -C "$kernel_source_dir" M="$build"'),
    ],
)
def test_a_leading_make_sees_the_release(make: str, command: str) -> None:
    assert make_command(replace(RECIPE, make=make), KREL) == command


@pytest.mark.parametrize(
    ("make", "command"),
    [
        ("'make' -j8 KVER=1 modules", "'make' KVER=1 modules"),
        ("'make' -j 8 modules", "'make' modules"),
        ("'make' modules -j8", "'make' modules"),
        ("'make' --jobs=8 modules", "'make' modules"),
        ("(cd src && 'make' -j modules)", "(cd src && 'make' modules)"),
        ("X=1 make -j4 a; make -j4 b", "X=1 make a; make b"),
        ("(make -j4)", "(make)"),
        ("tar -j x; 'make' all", "tar -j x; 'make' all"),
        ("'make' all; tar -j x", "'make' all; tar -j x"),
        ("'make' -jail", "'make' -jail"),
        ("cmake -j4 x", "cmake -j4 x"),
        ("./make-all -j4", "./make-all -j4"),
    ],
)
def test_a_number_of_jobs_of_its_own_is_taken_out(make: str, command: str) -> None:
    assert make_command(replace(RECIPE, make=make), KREL) == command


def test_the_steps_come_in_dkms_s_order() -> None:
    recipe = replace(RECIPE, patches=("a b.patch", "c.patch"), pre_build="pre x", post_build="post", make="make x")
    script = build_script(recipe, KREL, "strip")
    steps = [
        "apply_listed 'a b.patch'",
        "apply_listed c.patch",
        "script PRE_BUILD",
        "(eval ",
        "take src/foo foo yes",
        "finish",
    ]
    places = [script.index(step, script.index("strip=strip")) for step in [*steps, "script POST_BUILD", "exit 0"]]
    assert places == sorted(places)


@pytest.mark.parametrize("text", ["make 'a b' \"c\"", "make $(echo x)", "make \\\n more", "a'b", "make; }", "make #x"])
def test_the_command_reaches_bash_as_it_was_written(text: str, tmp_path: Path) -> None:
    script = build_script(replace(RECIPE, make=text), KREL, "strip")
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0


# ---- the copy ------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    (top / "sub/deep").mkdir(parents=True)
    (top / "sub/a.c").write_text("int x;\n" * 1000)
    (top / "configure").write_text("#!/bin/sh\n")
    (top / "configure").chmod(0o4555)
    (top / "empty").write_text("")
    (top / "link").symlink_to("sub/a.c")
    (top / "dangling").symlink_to("/nowhere")
    (top / ".git").mkdir()
    (top / ".git/config").write_text("")
    (top / "sub").chmod(0o555)
    for path in (top / "sub/a.c", top / "configure", top / "sub/deep", top / "sub"):
        os.utime(path, ns=(1_000_000_007, 2_000_000_009))
    return top


def test_a_copy_is_the_same_tree(source: Path, tmp_path: Path) -> None:
    tree = read_tree(source)
    copy_tree(tree, tmp_path / "copy", None)
    assert tree_digest(read_tree(tmp_path / "copy")) == tree_digest(tree)
    assert not (tmp_path / "copy/.git").exists()
    for name in ("sub/a.c", "configure", "sub/deep", "sub"):
        assert (tmp_path / "copy" / name).stat().st_mtime_ns == 2_000_000_009


def test_a_copy_can_be_written_by_its_owner_and_is_nobody_s_tool(source: Path, tmp_path: Path) -> None:
    copy_tree(read_tree(source), tmp_path / "copy", None)
    assert (tmp_path / "copy/configure").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "copy/sub").stat().st_mode & 0o7777 == 0o755
    assert os.readlink(tmp_path / "copy/dangling") == "/nowhere"


def test_other_file_systems_are_copied_from_the_long_way(source: Path, tmp_path: Path) -> None:
    """/dev/shm is a tmpfs: copy_file_range(2) says EXDEV for it on some kernels, and copies on others."""
    target = Path("/dev/shm") / f"autokmod-test-{os.getpid()}"
    try:
        copy_tree(read_tree(source), target, None)
        assert tree_digest(read_tree(target)) == tree_digest(read_tree(source))
    finally:
        subprocess.run(["rm", "-rf", target], check=True)


def test_a_file_that_became_a_link_is_not_followed(source: Path, tmp_path: Path) -> None:
    tree = read_tree(source)
    (source / "empty").unlink()
    (source / "empty").symlink_to("/etc/passwd")
    with pytest.raises(OSError):
        copy_tree(tree, tmp_path / "copy", None)


# ---- taking out ----------------------------------------------------------------------------------


def test_a_plain_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/f").write_bytes(b"data")
    assert take_file(tmp_path, ("a", "b", "f"), limit=4) == b"data"
    assert take_file(tmp_path, ("a", "b", "f"), limit=1 << 50) == b"data"  # a limit is not the memory that it costs


def hard_link(top: Path) -> None:
    (top / "a/b/other").write_text("")
    os.link(top / "a/b/other", top / "a/b/f")


def link_above(top: Path) -> None:
    (top / "a/b").rmdir()
    (top / "real").mkdir()
    (top / "real/f").write_text("x")
    (top / "a/b").symlink_to("../real")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda t: (t / "a/b/f").symlink_to("/etc/passwd"), "is not what it should be"),
        (lambda t: (t / "a/b/f").symlink_to("g"), "is not what it should be"),
        (lambda t: (t / "a/b/f").mkdir(), "is not a regular file"),
        (lambda t: os.mkfifo(t / "a/b/f"), "is not a regular file"),
        (lambda t: (t / "a/b/f").write_text("12345"), "is larger than"),
        (hard_link, "is one of 2 names"),
        (link_above, "a/b: is not what it should be"),
    ],
)
def test_nothing_else_is(tmp_path: Path, make: object, why: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    assert callable(make)
    make(tmp_path)
    with pytest.raises(FormatError, match=why):
        take_file(tmp_path, ("a", "b", "f"), limit=4)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take_file(tmp_path, ("a", "f"), limit=4)


# ---- the promise ---------------------------------------------------------------------------------

X86 = ElfIdent(64, "little", 62)
ABI = KernelAbi(KREL, X86, f"{KREL} SMP", 896, True, {}, None, "s", "c", {}, ())
FACTS = ModuleFacts(
    path="foo.ko",
    name="foo",
    ident=X86,
    vermagic=f"{KREL} SMP preempt",
    struct_size=896,
    licenses=("GPL",),
    depends=(),
    import_ns=(),
    imports=(),
    versions={},
    ext_versions=None,
    exports=(),
    srcversion=None,
    version=None,
    signature=Signature.NONE,
    has_btf=False,
    has_btf_base=False,
    livepatch=False,
)


@pytest.mark.parametrize(
    ("module", "facts", "problem"),
    [
        (MODULE, FACTS, None),
        (replace(MODULE, dest_name="renamed"), FACTS, None),
        (replace(MODULE, built_name="a-b"), replace(FACTS, name="a_b"), None),
        (MODULE, replace(FACTS, name="bar"), "is the module bar, but the recipe promises foo"),
        (MODULE, replace(FACTS, vermagic="6.1.0-5 SMP"), f"was built for kernel 6.1.0-5, not for {KREL}"),
        (MODULE, replace(FACTS, vermagic=None), f"was built for kernel (none), not for {KREL}"),
        (MODULE, replace(FACTS, ident=ElfIdent(32, "little", 3)), "was built for another kind of machine"),
        (MODULE, replace(FACTS, problems=(Reason("x", "no loader takes it"),)), "no loader takes it"),
    ],
)
def test_a_module_is_what_the_recipe_promised(module: RecipeModule, facts: ModuleFacts, problem: str | None) -> None:
    assert check_promise(module, ABI, facts) == problem


def test_an_unknown_machine_is_not_held_against_it() -> None:
    assert check_promise(MODULE, replace(ABI, ident=None), FACTS) is None
