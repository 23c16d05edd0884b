"""The first errors of build logs. The texts are real output of gcc 12, clang, modpost, make 4.3, bash and patch."""

from __future__ import annotations

import pytest

from autokmod.model import BuildError
from autokmod.observe.buildlog import MAX_ERRORS, MAX_TEXT, NOTHING_SAID, find_errors

BUILD = "/var/lib/dkms/foo/1.0/build"
HEADER = "/usr/src/linux-headers-6.1.0-56-common/include/linux/fs.h"

# Each: the log, and the errors as (file, line, text).
LOGS: dict[str, tuple[str, list[tuple[str, int, str]]]] = {
    "gcc": (
        f"""make -C /lib/modules/6.12/build M={BUILD} modules
make[1]: Entering directory '/usr/src/linux-headers-6.12'
  CC [M]  {BUILD}/v4l2loopback.o
{BUILD}/v4l2loopback.c: In function 'vidioc_querycap':
{BUILD}/v4l2loopback.c:717:9: error: implicit declaration of function 'strlcpy'; did you mean 'strscpy'? [-Werror]
  717 |         strlcpy(cap->driver, "v4l2 loopback", sizeof(cap->driver));
      |         ^~~~~~~
      |         strscpy
cc1: some warnings being treated as errors
make[3]: *** [{HEADER[:-20]}/scripts/Makefile.build:229: {BUILD}/v4l2loopback.o] Error 1
make: *** [Makefile:53: v4l2loopback.ko] Error 2
""",
        [
            (
                "v4l2loopback.c",
                717,
                "implicit declaration of function 'strlcpy'; did you mean 'strscpy'? [-Werror]",
            )
        ],
    ),
    "missing header": (
        f"{BUILD}/a.c:3:10: fatal error: linux/gone.h: No such file or directory\ncompilation terminated.\n",
        [("a.c", 3, "linux/gone.h: No such file or directory")],
    ),
    "relative": ("./src/a.c:3:1: error: x\n", [("src/a.c", 3, "x")]),
    "assembler": (f"{BUILD}/a.S:12: Error: no such `frob'\n", [("a.S", 12, "no such `frob'")]),
    "kernel header": (f"{HEADER}:99:1: error: x\n", [(HEADER, 99, "x")]),
    "several": (
        f"{BUILD}/a.c:1:1: error: one\n{BUILD}/b.c:2:1: error: two\n{BUILD}/a.c:1:1: error: one\n",
        [("a.c", 1, "one"), ("b.c", 2, "two")],
    ),
    "modpost": (
        f"""  MODPOST {BUILD}/Module.symvers
ERROR: modpost: "strlcpy" [{BUILD}/foo.ko] undefined!
ERROR: modpost: "gone" [{BUILD}/foo.ko] undefined!
make[2]: *** [scripts/Makefile.modpost:145: {BUILD}/Module.symvers] Error 1
""",
        [
            ("", 0, 'ERROR: modpost: "strlcpy" [foo.ko] undefined!'),
            ("", 0, 'ERROR: modpost: "gone" [foo.ko] undefined!'),
        ],
    ),
    "old modpost": ('ERROR: "gone" [/x/foo.ko] undefined!\n', [("", 0, 'ERROR: "gone" [/x/foo.ko] undefined!')]),
    "configure": (
        "checking for gcc... no\nconfigure: error: no acceptable C compiler found in $PATH\nSee `config.log'\n",
        [("", 0, "configure: error: no acceptable C compiler found in $PATH")],
    ),
    "patch": (
        "==> applying patch a.patch\npatching file x.c\nHunk #1 FAILED at 12.\n1 out of 1 hunk FAILED\n",
        [("", 0, "Hunk #1 FAILED at 12.")],
    ),
    "ours": (
        "make: ok\nautokmod: the recipe promises src/x.ko, which was not made\n",
        [("", 0, "the recipe promises src/x.ko, which was not made")],
    ),
    "a configure of its own kind": (
        "! Error: Can not find iptables version\nautokmod: the PRE_BUILD script ended with exit status 1\n",
        [
            ("", 0, "! Error: Can not find iptables version"),
            ("", 0, "the PRE_BUILD script ended with exit status 1"),
        ],
    ),
    "linker": ("ld: cannot find -lfoo\nmake: *** [x] Error 1\n", [("", 0, "ld: cannot find -lfoo")]),
    "clang option": ("clang: error: unknown argument: '-x'\n", [("", 0, "clang: error: unknown argument: '-x'")]),
    "make stop": (
        "Makefile:12: *** Kernel tree not found, please set KERNEL_TREE.  Stop.\n",
        [("Makefile", 12, "Kernel tree not found, please set KERNEL_TREE.")],
    ),
    "no rule": (
        "make: *** No rule to make target 'modules'.  Stop.\n",
        [("", 0, "No rule to make target 'modules'")],
    ),
    "no program": (
        "bash: line 1: ./configure: No such file or directory\nmake: *** [x] Error 127\n",
        [("", 0, "bash: line 1: ./configure: No such file or directory")],
    ),
    "not found": ("/bin/sh: 1: bison: not found\nmake: *** [x] Error 127\n", [("", 0, "/bin/sh: 1: bison: not found")]),
    "disk full": (
        "cc1: fatal error: /tmp/x.s: No space left on device\n",
        [("", 0, "cc1: fatal error: /tmp/x.s: No space left on device")],
    ),
    "only make": (
        "something odd\nmake: *** [Makefile:3: all] Error 1\n",
        [("", 0, "make: *** [Makefile:3: all] Error 1")],
    ),
    "a compiler beats make": (
        "make: *** No rule to make target 'z'.  Stop.\na.c:1:1: error: x\n",
        [("a.c", 1, "x")],
    ),
    "colours": ("\x1b[01m\x1b[Ka.c:1:1:\x1b[m\x1b[K \x1b[01;31m\x1b[Kerror: \x1b[m\x1b[Kx\n", [("a.c", 1, "x")]),
    "last lines": ("1\n\n2\n3\n4\nmake[1]: Leaving directory '/x'\n", [("", 0, t) for t in ("2", "3", "4")]),
}  # fmt: skip


@pytest.mark.parametrize("name", LOGS)
def test_first_errors(name: str) -> None:
    log, expected = LOGS[name]
    assert find_errors(log, (BUILD,)) == tuple(BuildError(*e) for e in expected)


@pytest.mark.parametrize("log", ["", "\n \n", "make[1]: Entering directory '/x'\n", "\x1b[m\n"])
def test_never_nothing(log: str) -> None:
    assert find_errors(log) == (NOTHING_SAID,)


@pytest.mark.parametrize(
    "line",
    [
        "  CC [M]  error.o",
        "a.c:3:1: warning: x",
        "a.c:3:1: note: error: is not one",
        "checking whether error: works",
        "warning: the compiler differs from the one used to build the kernel",
    ],
)
def test_what_is_no_error(line: str) -> None:
    assert find_errors(f"{line}\nmake: *** [x] Error 1\n")[0].text == "make: *** [x] Error 1"


def test_it_is_bounded() -> None:
    found = find_errors("".join(f"a.c:{i}:1: error: {'x' * 1000}\n" for i in range(1000)))
    assert len(found) == MAX_ERRORS
    assert all(len(e.text) == MAX_TEXT for e in found)
    assert find_errors(f"a.c:{'9' * 500}:1: error: x\n")[0].line == 999_999_999


def test_a_hostile_log_prints_nothing_strange() -> None:
    log = ("a:" * 20_000) + "\n" + ("/" * 50_000) + ": error\n" + "\x1b]0;title\x07a.c:1:1: error: x\x00\x9b\n"
    (error,) = find_errors(log)
    assert (error.file + error.text).isprintable()
