"""What the entries of an image come to, held against the system calls that the kernel makes for them."""

from __future__ import annotations

import gzip
import json
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from autokmod.act.archive import archive
from autokmod.errors import FormatError
from autokmod.observe.image import cpio, segments
from autokmod.observe.image.carried import read_carried
from autokmod.observe.image.contents import read_image
from autokmod.observe.image.cpio import Entry
from autokmod.observe.image.layers import lay_over
from tests.unit.test_image_carried import DRV, KREL, NEW, OLD, STANDING, TOP, image, problems

FILE, DIRECTORY, LINK, PIPE = 0o100644, 0o040755, 0o120777, 0o010644
Made = dict[str, tuple[int, str]]  # path → kind, and content or target

# init/initramfs.c, by the system calls that it makes: do_name, do_symlink, maybe_link, clean_path.
AS_THE_KERNEL_DOES = """
import json, os, stat, sys

def clean(path, mode):
    try:
        info = os.lstat(path)
        if (info.st_mode ^ mode) & 0o170000:
            (os.rmdir if stat.S_ISDIR(info.st_mode) else os.unlink)(path)
    except OSError:
        pass

def unpack(path, mode, content, link, linked):
    if stat.S_ISLNK(mode):
        clean(path, 0)
        return os.symlink(content, path)
    if not stat.S_ISREG(mode) and content:
        return
    clean(path, mode)
    if stat.S_ISDIR(mode):
        os.mkdir(path)
    elif stat.S_ISFIFO(mode):
        os.mkfifo(path)
    elif stat.S_ISREG(mode):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        if link is not None:
            old = linked.get(json.dumps(link))
            linked.setdefault(json.dumps(link), path)
            if old is not None:
                clean(path, 0)
                os.link(old, path)
                flags = os.O_WRONLY | os.O_CREAT
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    print("null", flush=True)  # who opens that, waits or writes elsewhere
                    os._exit(0)
        fd = os.open(path, flags)
        if content:
            os.ftruncate(fd, len(content))
            os.write(fd, content.encode())
        os.close(fd)

def look(path):
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return stat.S_IFMT(mode), os.readlink(path)
    return stat.S_IFMT(mode), open(path).read() if stat.S_ISREG(mode) else ""

for number, case in enumerate(json.load(sys.stdin)):
    top = f"{sys.argv[1]}/{number}"
    for name in ("", "/dev", "/root"):
        os.mkdir(top + name)
    if (pid := os.fork()) == 0:
        os.chroot(top)
        os.chdir("/")
        linked = {}
        for path, mode, content, link in case:
            try:
                unpack(path, mode, content, link, linked)
            except OSError:
                pass
        found = [f"{d}/{n}" for d, dirs, names in os.walk("/") for n in dirs + names]
        print(json.dumps({p.lstrip("/"): look(p) for p in found}), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""
PATHS = ["a", "b", "a/b", "a/b/c", "lib", "lib/x", "lib/x/y", "usr", "usr/lib", "usr/lib/x", "b/x", "dev/x", "dev"]
PATHS += ["lib/../b", "./a", "//usr", "usr/./lib//x", "a/../usr/lib/x", "../b", "usr/lib/..", "."]
TARGETS = ("usr/lib", "/usr/lib", "a", "b", "lib", "..", "../b", "/", "nowhere", "usr/lib/x", "")
Case = list[tuple[str, int, str, tuple[int, int, int, int] | None]]


def draw_case(draw: random.Random) -> Case:
    case: Case = []
    for _ in range(draw.randrange(1, 14)):
        kind = draw.choice((FILE, FILE, FILE, DIRECTORY, DIRECTORY, LINK, PIPE))
        text = draw.choice(TARGETS) if kind == LINK else draw.choice(("", "one", "two!"))
        link = (draw.randrange(2), 0, 0, draw.randrange(2)) if kind == FILE and draw.random() < 0.4 else None
        case.append((draw.choice(PATHS), kind, text if kind != DIRECTORY or draw.random() < 0.1 else "", link))
    return [(path, mode, text, link and (n // 5, *link[1:])) for n, (path, mode, text, link) in enumerate(case)]


def laid_over(case: Case) -> Made:
    files = lay_over(Entry(p.removeprefix("./").lstrip("/"), m, len(t), link, t.encode()) for p, m, t, link in case)
    return {path: (stat.S_IFMT(e.mode), _text(e)) for path, e in files.items()}


def _text(entry: Entry) -> str:
    return (entry.content or b"").decode() if entry.is_file or entry.is_symlink else ""


@pytest.mark.root
@pytest.mark.parametrize("seed", range(4))
def test_as_the_kernel_does(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    cases = [draw_case(draw) for _ in range(500)]
    argv = [sys.executable, "-c", AS_THE_KERNEL_DOES, str(tmp_path)]
    done = subprocess.run(argv, input=json.dumps(cases), capture_output=True, text=True, check=True)
    for case, line in zip(cases, done.stdout.splitlines(), strict=True):
        found = json.loads(line)
        if found is None:
            continue
        made = {path: (kind, text) for path, (kind, text) in found.items()}
        ours = laid_over(case)
        for path in ("dev", "root"):  # of which only what an image says is ours
            if ours.get(path, made.get(path)) == (stat.S_IFDIR, ""):
                made.pop(path, None)
                ours.pop(path, None)
        assert ours == made, case


# ---- what that means for a module


def newc(*entries: tuple[str, int, bytes], inode: int = 0) -> bytes:
    """No directories of themselves; `inode`: all are links to one file."""
    out = b""
    for name, mode, data in (*entries, ("TRAILER!!!", 0, b"")):
        raw = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 2 if inode else 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08x" % f for f in fields) + raw
        out += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return out


RIGHT = {f"{TOP}/{DRV}": NEW, f"{TOP}/modules.dep": f"{DRV}:\n".encode()}
MAIN = archive(RIGHT, links={"lib": "usr/lib"})


def test_right(tmp_path: Path) -> None:
    assert problems(image(tmp_path, MAIN)) == []


@pytest.mark.parametrize("prefix", ["././", "/", "//", "usr/../", "lib/../../", ""])
def test_a_name_that_is_written_differently(tmp_path: Path, prefix: str) -> None:
    assert problems(image(tmp_path, MAIN, newc((f"{prefix}{TOP}/{DRV}", FILE, OLD)))) == ["initrd-stale"]


def test_a_name_by_way_of_a_link(tmp_path: Path) -> None:
    """What an archive has below lib/ is written over what lies below usr/lib."""
    other = newc((f"lib/modules/{KREL}/{DRV}", FILE, OLD))
    assert problems(image(tmp_path, MAIN, other)) == ["initrd-stale"]
    assert problems(image(tmp_path, MAIN, other, newc((f"{TOP}/{DRV}", FILE, NEW)))) == []


def test_a_directory_in_place_of_the_link(tmp_path: Path) -> None:
    """From then on modprobe finds nothing: it looks below /lib."""
    file = image(tmp_path, MAIN, newc(("lib", DIRECTORY, b"")))
    assert problems(file) == ["initrd-lacks"]
    assert read_carried(file, KREL, STANDING).modules == {"drv": ()}


def test_without_a_directory_for_it(tmp_path: Path) -> None:
    """As `find -type f | cpio` makes it: the kernel makes nothing, and does not say so."""
    file = image(tmp_path, newc(("init", FILE, b""), *((path, FILE, data) for path, data in RIGHT.items())))
    assert problems(file) == ["initrd-lacks"]
    assert read_carried(file, KREL, STANDING).modules == {}


def test_inode_numbers_are_of_one_archive(tmp_path: Path) -> None:
    """Each archive's program numbers from 1: what is linked in one has nothing to do with the other."""
    twin = newc((f"{TOP}/{DRV}", FILE, NEW), (f"{TOP}/twin.ko", FILE, b""), inode=7)
    other = newc(("other", FILE, OLD), ("others", FILE, b""), inode=7)
    files = read_image(image(tmp_path, MAIN, twin, gzip.compress(other)), lambda _: True).files
    contents = [files[path].content for path in (f"{TOP}/{DRV}", f"{TOP}/twin.ko", "other", "others")]
    assert contents == [NEW, NEW, OLD, OLD]


def test_what_is_written_over_has_other_names(tmp_path: Path) -> None:
    twin = newc((f"{TOP}/{DRV}", FILE, NEW), (f"{TOP}/twin.ko", FILE, b""), inode=7)
    assert problems(image(tmp_path, MAIN, twin, newc((f"{TOP}/twin.ko", FILE, OLD)))) == ["initrd-stale"]


@pytest.mark.parametrize("mode", [0o020644, DIRECTORY, PIPE, 0o644], ids=["device", "directory", "pipe", "nothing"])
def test_something_else_in_its_place(tmp_path: Path, mode: int) -> None:
    """The module goes away for it, even where nothing comes."""
    assert problems(image(tmp_path, MAIN, newc((f"{TOP}/{DRV}", mode, b"")))) == ["initrd-lacks"]


def test_links_to_modules_and_indexes(tmp_path: Path) -> None:
    """As weak-updates has them; a link that leads nowhere is no module."""
    elsewhere = archive({"usr/lib/modules/other/drv.ko": NEW, "usr/share/modules.dep": RIGHT[f"{TOP}/modules.dep"]})
    links = newc(
        (f"{TOP}/{DRV}", LINK, b"/lib/modules/other/drv.ko"),
        (f"{TOP}/modules.dep", LINK, b"../../../share/modules.dep"),
    )
    assert problems(image(tmp_path, MAIN, elsewhere, links)) == []
    assert problems(image(tmp_path, MAIN, links)) == ["initrd-unlisted"]
    gone = newc((f"{TOP}/{DRV}", LINK, b"/lib/modules/other/drv.ko"))
    assert problems(image(tmp_path, MAIN, gone)) == ["initrd-stale"]


def test_compressed_in_another_way_than_on_disk(tmp_path: Path) -> None:
    """modprobe unpacks it, and what it gets is the same."""
    dep = f"{DRV}.zst:\n".encode()
    for level in (1, 19):
        packed = zstandard.ZstdCompressor(level).compress(NEW)
        file = image(tmp_path, archive({f"{TOP}/{DRV}.zst": packed, f"{TOP}/modules.dep": dep}))
        assert problems(file) == []
    broken = archive({f"{TOP}/{DRV}.zst": packed[:-3], f"{TOP}/modules.dep": dep})
    assert problems(image(tmp_path, broken)) == ["initrd-stale"]


def test_early_and_main_both_have_it(tmp_path: Path) -> None:
    early = archive({f"{TOP}/{DRV}": NEW, "kernel/x86/microcode/GenuineIntel.bin": b"x"})
    late = archive(RIGHT | {f"{TOP}/{DRV}": OLD}, links={"lib": "usr/lib"})
    assert problems(image(tmp_path, early, gzip.compress(late))) == ["initrd-stale"]
    assert problems(image(tmp_path, archive({f"{TOP}/{DRV}": OLD}), gzip.compress(MAIN))) == []


# ---- of any size


@pytest.mark.parametrize("magic", [b"070701", b"070702"])
def test_nobody_keeps_what_is_not_wanted(tmp_path: Path, magic: bytes) -> None:
    """A sum over the content is no reason to keep it."""
    data = bytes(range(256)) * 12000
    whole = newc(("big", FILE, data), ("drv.ko", FILE, NEW)).replace(b"070701", magic)
    if magic == b"070702":
        for name, content in ((b"big\0", data), (b"drv.ko\0", NEW)):
            whole = whole.replace(b"00000000" + name, b"%08x" % (sum(content) & 0xFFFFFFFF) + name)
    image_ = read_image(image(tmp_path, whole), lambda p: p.endswith(".ko"))
    assert (image_.files["big"].content, image_.files["drv.ko"].content) == (None, NEW)
    if magic == b"070702":
        with pytest.raises(FormatError, match="checksum of big is wrong"):
            read_image(image(tmp_path, whole.replace(data[:300], data[1:301], 1)), lambda _: False)


BOMBS = {
    "a module": (newc(("drv.ko", FILE, bytes(5 << 20))), "to be looked into"),
    "many modules": (newc(*((f"{i}.ko", FILE, bytes(1 << 20)) for i in range(9))), "too many"),
    "many files": (newc(*((f"{i}", FILE, b"") for i in range(101))), "too many"),
    "many archives": (b"".join(newc((f"{i}", FILE, b"")) for i in range(101)), "too many"),
    "many segments": (b"", "unpacks to more than"),
}


@pytest.mark.parametrize(("data", "says"), BOMBS.values(), ids=BOMBS)
def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, says: str) -> None:
    monkeypatch.setattr(cpio, "KEPT_LIMIT", 4 << 20)
    monkeypatch.setattr(segments, "KEPT_LIMIT", 8 << 20)
    monkeypatch.setattr(segments, "ENTRY_LIMIT", 100)
    monkeypatch.setattr(segments, "UNPACKED_LIMIT", 20 << 20)
    parts = [gzip.compress(data)] if data else [gzip.compress(newc(("x", FILE, bytes(6 << 20))))] * 4
    with pytest.raises(FormatError, match=says):
        read_image(image(tmp_path, *parts), lambda p: p.endswith(".ko"))
