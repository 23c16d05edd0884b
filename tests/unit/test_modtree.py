"""Which file depmod picks: what this code says, and what the real depmod writes into modules.dep."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autokmod.errors import FormatError
from autokmod.observe.depmodconf import parse_depmod_conf, read_depmod_config
from autokmod.observe.modtree import DepmodConfig, find_modules, module_name, picked, read_modules_dep
from autokmod.paths import Paths
from tests.elfwriter import make_ko

KREL = "6.1.0-9-test"
SHIPPED = Path(__file__).parents[2] / "autokmod/data/depmod.d/autokmod.conf"
KO = make_ko(name="twin")
UBUNTU = {"ubuntu.conf": "search updates ubuntu built-in\n"}
EL9 = {"dist.conf": "search updates extra built-in weak-updates\n"}
OURS = {"autokmod.conf": SHIPPED.read_text(encoding="utf-8")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def make_tree(root: Path, conf: Mapping[str, str], modules: Sequence[str]) -> Paths:
    """`conf`: file names, below etc/depmod.d unless they name a directory."""
    for directory in ("etc/depmod.d", f"usr/lib/modules/{KREL}"):
        (root / directory).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    for name, text in conf.items():
        file = root / (name if "/" in name else f"etc/depmod.d/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for module in modules:
        file = root / "usr/lib/modules" / KREL / module
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(KO)
    return Paths(root)


def depmod(paths: Paths) -> dict[str, str]:
    options = [part for d in paths.depmod_d if d.is_dir() for part in ("-C", str(d))]
    subprocess.run(["depmod", *options, "-b", str(paths.root), KREL], check=True, capture_output=True)
    return read_modules_dep(paths.modulesd(KREL))


def ours(paths: Paths) -> dict[str, str]:
    config = read_depmod_config(paths, KREL)
    return {name: picked(config, files) for name, files in find_modules(paths, KREL, config).items()}


TABLE = [
    # configuration, files, which of them wins
    ({}, ["kernel/a/twin.ko", "updates/twin.ko"], "updates/twin.ko"),
    ({}, ["kernel/a/twin.ko", "updates/dkms/twin.ko"], "updates/dkms/twin.ko"),
    (UBUNTU, ["kernel/twin.ko", "ubuntu/twin.ko"], "ubuntu/twin.ko"),
    (UBUNTU, ["kernel/twin.ko", "weak-updates/autokmod/p/twin.ko"], None),
    (EL9, ["kernel/twin.ko", "weak-updates/twin.ko"], "kernel/twin.ko"),
    (OURS, ["kernel/twin.ko", "weak-updates/autokmod/p/twin.ko"], "weak-updates/autokmod/p/twin.ko"),
    (OURS, ["updates/dkms/twin.ko", "updates/autokmod/p/twin.ko"], "updates/autokmod/p/twin.ko"),
    (OURS, ["kernel/twin.ko", "updates/dkms/twin.ko"], "updates/dkms/twin.ko"),
    (OURS | UBUNTU, ["kernel/twin.ko", "ubuntu/twin.ko"], "ubuntu/twin.ko"),
    (OURS | UBUNTU, ["ubuntu/twin.ko", "weak-updates/autokmod/p/twin.ko"], "weak-updates/autokmod/p/twin.ko"),
    (OURS | EL9, ["kernel/twin.ko", "weak-updates/autokmod/p/twin.ko"], "weak-updates/autokmod/p/twin.ko"),
    (OURS | EL9, ["kernel/twin.ko", "weak-updates/twin.ko"], "kernel/twin.ko"),
    (OURS | EL9, ["kernel/twin.ko", "extra/twin.ko"], "extra/twin.ko"),
    # search lines add up, in the order of the file names, whatever the directory
    ({"b.conf": "search kernel\n", "a.conf": "search extra\n"}, ["kernel/twin.ko", "extra/twin.ko"], "extra/twin.ko"),
    ({"usr/lib/depmod.d/a.conf": "search extra\n", "b.conf": "search kernel\n"}, ["kernel/twin.ko", "extra/twin.ko"],
     "extra/twin.ko"),
    # a namesake masks
    ({"usr/lib/depmod.d/a.conf": "search kernel\n", "a.conf": "search extra kernel\n"},
     ["kernel/twin.ko", "extra/twin.ko"], "extra/twin.ko"),
    # a search line takes the default away
    ({"a.conf": "search built-in extra\n"}, ["kernel/twin.ko", "updates/twin.ko", "extra/twin.ko"], None),
    # overrides: any kernel, a pattern, one that does not match
    ({"a.conf": "override twin * extra\n"}, ["updates/twin.ko", "extra/twin.ko"], "extra/twin.ko"),
    ({"a.conf": "override twin ^6\\.1 extra\n"}, ["updates/twin.ko", "extra/twin.ko"], "extra/twin.ko"),
    ({"a.conf": "override twin 6.1.0-* extra\n"}, ["updates/twin.ko", "extra/twin.ko"], "extra/twin.ko"),
    ({"a.conf": "override twin 5.* extra\n"}, ["updates/twin.ko", "extra/twin.ko"], "updates/twin.ko"),
    ({"a.conf": "override twin * extra/\n"}, ["updates/twin.ko", "extra/twin.ko"], "updates/twin.ko"),
    # the last override is the first that is asked
    ({"a.conf": "override twin * extra\noverride twin * more\n"}, ["more/twin.ko", "extra/twin.ko"], "more/twin.ko"),
    # lines that go on, comments, nonsense
    ({"a.conf": "# search kernel\nsearch \\\n  extra \\\n\tkernel\nbogus\n"}, ["kernel/twin.ko", "extra/twin.ko"],
     "extra/twin.ko"),
    ({"a.conf": "exclude extra\nsearch extra kernel\n"}, ["kernel/twin.ko", "extra/twin.ko"], "kernel/twin.ko"),
    ({"a.conf": "search extra kernel"}, ["kernel/twin.ko", "extra/twin.ko.xz"], None),
    ({}, ["kernel/build/twin.ko", "kernel/b/twin.ko"], "kernel/b/twin.ko"),
]  # fmt: skip


@pytest.mark.parametrize(("conf", "modules", "winner"), TABLE)
def test_depmod_picks(root: Path, conf: Mapping[str, str], modules: Sequence[str], winner: str | None) -> None:
    """None: what wins depends on the order of directory entries, and depmod and this code must see the same."""
    paths = make_tree(root, conf, modules)
    assert ours(paths) == depmod(paths)
    if winner is not None:
        assert ours(paths)["twin"] == winner


ENTRIES = ("updates", "updates/autokmod", "weak-updates", "weak-updates/autokmod", "extra", "built-in", "kernel")
PLACES = ("kernel/a", "kernel/b", "updates", "updates/dkms", "updates/autokmod/p", "weak-updates", "extra", "odd",
          "weak-updates/autokmod/p", "weak-updates/autokmod/q")  # fmt: skip
SEARCHES = st.lists(st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=4), max_size=3)
OVERRIDES = st.lists(st.sampled_from(("updates", "extra", "weak-updates/autokmod/p", "kernel/a")), max_size=2)
FILES = st.lists(st.sampled_from(PLACES), min_size=2, max_size=6, unique=True)


@settings(max_examples=60, deadline=None)
@given(searches=SEARCHES, overrides=OVERRIDES, places=FILES)
def test_any_configuration(searches: list[list[str]], overrides: list[str], places: list[str]) -> None:
    conf = {f"{i}.conf": "search " + " ".join(words) + "\n" for i, words in enumerate(searches)}
    conf["over.conf"] = "".join(f"override twin * {place}\n" for place in overrides)
    with tempfile.TemporaryDirectory() as directory:
        paths = make_tree(Path(directory) / "root", conf, [f"{place}/twin.ko" for place in places])
        assert ours(paths) == depmod(paths)


def test_links_are_followed_inside_the_root(root: Path) -> None:
    paths = make_tree(root, {}, ["updates/real.ko"])
    modulesd = paths.modulesd(KREL)
    (modulesd / "weak").mkdir()
    (modulesd / "weak/linked.ko").symlink_to(f"/usr/lib/modules/{KREL}/updates/real.ko")
    (modulesd / "weak/dangling.ko").symlink_to("nowhere.ko")
    (modulesd / "loop").symlink_to(".")
    (modulesd / "away").symlink_to(f"/usr/lib/modules/{KREL}/updates")
    found = find_modules(paths, KREL, DepmodConfig())
    assert {name: sorted(files) for name, files in found.items()} == {
        "real": ["away/real.ko", "updates/real.ko"],
        "linked": ["weak/linked.ko"],
    }


def test_external_directories(root: Path) -> None:
    conf = {"a.conf": "search external updates\nexternal * /opt/ko\nexternal ^5 /opt/other\nexternal * /gone\n"}
    paths = make_tree(root, conf, ["updates/twin.ko"])
    (root / "opt/ko").mkdir(parents=True)
    (root / "opt/ko/twin.ko").write_bytes(KO)
    assert ours(paths) == {"twin": "/opt/ko/twin.ko"}


def test_what_depmod_would_not_understand_is_named() -> None:
    text = "override one\n\nexternal\nsearch a\nfoo bar\noverride m ((( d\noverride m a{9} d\ninclude x\n"
    config = parse_depmod_conf(text, "/etc/depmod.d/a.conf", KREL, DepmodConfig(search=()))
    assert config.search == ("a",)
    assert config.overrides == ()
    assert [p.text.split(": ")[1].split()[1] for p in config.problems] == ["1", "3", "5", "7"]


def test_a_masked_file_and_an_unreadable_one(root: Path) -> None:
    paths = make_tree(root, {"usr/lib/depmod.d/a.conf": "search kernel\n"}, [])
    (root / "etc/depmod.d/a.conf").symlink_to("/dev/null")
    (root / "etc/depmod.d/b.conf").symlink_to("gone")
    (root / "etc/depmod.d/c.conf").mkdir()
    (root / "etc/depmod.d/d.txt").write_text("search extra\n")
    config = read_depmod_config(paths, KREL)
    assert config.search == ("updates",)
    assert [p.text.split(":")[0] for p in config.problems] == ["/etc/depmod.d/b.conf"]


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("foo.ko", "foo"),
        ("a/b/snd-hda.ko.xz", "snd_hda"),
        ("foo.ko.zst", "foo"),
        ("foo.bar.ko", "foo"),
        ("foo_bar.ko.gz", "foo_bar"),
    ],
)
def test_module_name(filename: str, name: str) -> None:
    assert module_name(filename) == name


def test_modules_dep(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("kernel/a-b.ko: kernel/c.ko\nupdates/x.ko.xz:\n")
    assert read_modules_dep(tmp_path) == {"a_b": "kernel/a-b.ko", "x": "updates/x.ko.xz"}


@pytest.mark.parametrize("text", ["kernel/a.ko\n", "\n", "kernel/a.ko: b\nrubbish: c\n", "\0\0\0"])
def test_a_damaged_modules_dep(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.dep").write_text(text)
    with pytest.raises(FormatError, match="line"):
        read_modules_dep(tmp_path)


def test_no_modules_dep(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_modules_dep(tmp_path)
    os.mkfifo(tmp_path / "modules.dep")
    with pytest.raises(FormatError, match="not a regular file"):
        read_modules_dep(tmp_path)
