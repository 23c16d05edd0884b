"""The checker against depmod -E and modprobe, on real kernels, with real modules.

What depmod says about symbols, the checker must say of the same symbols of the same modules. Where they must differ
by depmod's own rules (it passes over weak symbols, and takes a missing version for 0), no module here gives cause.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from autokmod.decide.compat import check_set
from autokmod.model import CompatResult, ModuleFacts, Verdict
from autokmod.observe.abi import read_abi
from autokmod.observe.kernels import read_kernel
from autokmod.observe.ko import read_module
from autokmod.observe.modtree import module_name
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.realroot import RealRoot

pytestmark = [pytest.mark.root, pytest.mark.kbuild]

HEAD = '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'
SOURCES = {
    "base.c": HEAD + "void base_fn(void){}\nEXPORT_SYMBOL_NS_GPL(base_fn, SAMPLE);\n"
    "int base_data; EXPORT_SYMBOL(base_data);\n",
    "user.c": HEAD + "void base_fn(void); extern int base_data;\nMODULE_IMPORT_NS(SAMPLE);\n"
    "static int __init start(void){ base_fn(); return base_data; }\nmodule_init(start);\n",
    "weak.c": HEAD + "void nowhere_fn(void) __attribute__((weak));\n"
    "static int __init start(void){ if (nowhere_fn) nowhere_fn(); return 0; }\nmodule_init(start);\n",
    "device.c": HEAD + "#include <linux/device.h>\n#include <linux/slab.h>\n"
    "static int __init start(void){ struct class *c = class_create(THIS_MODULE, \"x\"); kfree(kmalloc(9, GFP_KERNEL));"
    "\n device_create(c, NULL, 0, NULL, \"x\"); return 0; }\nmodule_init(start);\n",
    "empty.c": HEAD,
    "Kbuild": "obj-m := base.o user.o weak.o device.o empty.o\n",
}  # fmt: skip
ABSENT = "x_tables.ko"


def make(root: RealRoot, krel: str, directory: str, *arguments: str) -> list[Path]:
    """Build below `directory` of the root, and give the modules."""
    done = root.chroot("make", "-j2", "-C", f"/lib/modules/{krel}/build", *arguments, "modules")
    assert done.returncode == 0, done.stdout
    found = sorted((root.path / directory.lstrip("/")).rglob("*.ko"))
    assert found, done.stdout
    return found


def build_sample(root: RealRoot, krel: str) -> list[Path]:
    directory = root.path / f"tmp/sample-{krel}"
    directory.mkdir()
    for name, text in SOURCES.items():
        (directory / name).write_text(text)
    return make(root, krel, f"/tmp/{directory.name}", f"M=/tmp/{directory.name}")


def build_xtables(root: RealRoot, krel: str) -> list[Path]:
    (source,) = root.paths.usr_src.glob("xtables-addons-*")
    shutil.copytree(source, root.path / "tmp/xta")
    tops = ("XA_ABSTOPSRCDIR=/tmp/xta", "XA_TOPSRCDIR=/tmp/xta")
    return make(root, krel, "/tmp/xta", "M=/tmp/xta/extensions", *tops)


def place(root: RealRoot, krel: str, modules: Iterable[Path]) -> list[Path]:
    updates = root.paths.modulesd(krel) / "updates"
    shutil.rmtree(updates, ignore_errors=True)
    updates.mkdir()
    return [Path(shutil.copy(module, updates)) for module in modules]


def depmod_says(root: RealRoot, krel: str) -> set[tuple[str, str, str]]:
    """Module, what is wrong, symbol."""
    symvers = root.paths.resolve(root.paths.modulesd(krel) / "build") / "Module.symvers"
    command = ["depmod", "-n", "-a", "-e", "-E", str(symvers), "-C", "/dev/null", "-b", str(root.path), krel]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    words = {"needs unknown symbol": "missing", "disagrees about version of symbol": "changed"}
    pattern = re.compile(rf"WARNING: (\S+) ({'|'.join(words)}) (\S+)")
    return {(module_name(m[1]), words[m[2]], m[3]) for m in pattern.finditer(done.stderr)}


def check(root: RealRoot, krel: str, files: Sequence[Path]) -> tuple[CompatResult, ...]:
    return check_set([read_module(f) for f in files], read_abi(root.paths, read_kernel(root.paths, krel)), {})


def we_say(results: Iterable[CompatResult]) -> set[tuple[str, str, str]]:
    words = {"symbol-missing": "missing", "provider-absent": "missing", "crc-mismatch": "changed"}
    return {(r.module, words[x.kind], x.symbol or "") for r in results for x in r.reasons if x.kind in words}


def test_the_same_symbols_as_depmod(real_root: MakeRoot, corpus: Corpus) -> None:
    first, equal, other = corpus.trio
    root = real_root(kernels=(first, equal, other), packages=("xtables-addons-dkms",))
    built = {first: build_xtables(root, first) + build_sample(root, first), other: build_sample(root, other)}
    verdicts: dict[tuple[str, str], set[Verdict]] = {}
    for origin, modules in built.items():
        for krel in (first, equal, other):
            files = place(root, krel, modules)
            results = check(root, krel, files)
            assert we_say(results) == depmod_says(root, krel), (origin, krel)
            verdicts[origin, krel] = {r.verdict for r in results}
    assert verdicts[first, first] == verdicts[first, equal] == verdicts[other, other] == {Verdict.COMPATIBLE}
    assert verdicts[first, other] == verdicts[other, first] == {Verdict.INCOMPATIBLE}

    # A module of the kernel that is not installed.
    files = place(root, equal, built[first])
    (provider,) = root.paths.modulesd(equal).rglob(ABSENT)
    provider.unlink()
    results = check(root, equal, files)
    needy = {r.module for r in results if any(x.kind == "provider-absent" for x in r.reasons)}
    assert {"xt_ECHO", "xt_psd"} <= needy
    said = depmod_says(root, equal)
    assert we_say(results) == {s for s in said if s[0] in {r.module for r in results}} < said

    # Every fact that modprobe and modinfo tell of the same files.
    for file in files:
        assert_same_facts(read_module(file))


def assert_same_facts(module: ModuleFacts) -> None:
    assert_same_tables(module)
    for field, value in (
        ("vermagic", [module.vermagic]),
        ("license", list(module.licenses)),
        ("name", [module.name]),
        ("depends", [",".join(module.depends)]),
    ):
        done = subprocess.run(["modinfo", "-F", field, module.path], capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[:-1] == value, (module.path, field)


def assert_same_tables(module: ModuleFacts) -> None:
    assert module.versions == table("--show-modversions", module.path)
    assert {e.name: e.crc for e in module.exports} == (table("--show-exports", module.path) if module.exports else {})


def table(option: str, path: str) -> dict[str, int]:
    """modprobe fails where there is nothing to show."""
    done = subprocess.run(["modprobe", option, path], capture_output=True, text=True, check=True)
    return {name: int(crc, 16) for crc, name in (line.split("\t") for line in done.stdout.splitlines())}


def test_a_kernel_loads_its_own_modules(real_root: MakeRoot, corpus: Corpus) -> None:
    """Each of more than a thousand, with every symbol compared; and each table as modprobe reads it."""
    krel = corpus.trio.first
    root = real_root(kernels=(krel,))
    files = sorted((root.paths.modulesd(krel) / "kernel").rglob("*.ko*"))
    assert len(files) > 500
    results = check(root, krel, files)
    assert {r.verdict for r in results} == {Verdict.COMPATIBLE}
    assert all(r.symbols_compared > 0 for r in results)
    for file in files[::20]:
        assert_same_tables(read_module(file))
