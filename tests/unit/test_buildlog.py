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
    assert [(e.file, e.line, e.text) for e in find_errors(log, (BUILD,))] == expected


# Each: one line of output, and the name that its error is about.
NAMED = [
    # gcc 12, in the C locale
    ("a.c:3:52: error: implicit declaration of function 'strlcpy' [-Werror=implicit-function-declaration]", "strlcpy"),
    ("a.c:3:52: error: implicit declaration of function 'strlcpy'; did you mean 'strscpy'? [-Werror]", "strlcpy"),
    ("a.c:3:40: error: 'struct foo' has no member named 'gone'", "gone"),
    ("a.c:3:40: error: 'struct foo' has no member named 'gone'; did you mean 'going'?", "gone"),
    ("a.c:3:63: error: 'undecl' undeclared (first use in this function)", "undecl"),
    ("a.c:14:12: error: 'UNDEF_CONST' undeclared here (not in a function)", "UNDEF_CONST"),
    ("a.c:3:83: error: invalid use of undefined type 'struct inc'", "struct inc"),
    ("a.c:5:1: error: unknown type name 'unknown_t'", "unknown_t"),
    ("a.c:7:23: error: too few arguments to function 'two'", "two"),
    ("a.c:8:23: error: too many arguments to function 'two'", "two"),
    ("a.c:9:23: error: conflicting types for 'conf'; have 'int(char *)'", "conf"),
    ("a.c:10:33: error: redefinition of 'red'", "red"),
    ("a.c:10:8: error: redefinition of 'struct red'", "struct red"),
    ("a.c:12:30: error: invalid application of 'sizeof' to incomplete type 'struct inc'", "struct inc"),
    ("a.c:13:66: error: passing argument 1 of 'cb' from incompatible pointer type [-Werror]", "cb"),
    ("a.c:18:28: error: static declaration of 'stc' follows non-static declaration", "stc"),
    ("a.c:15:12: error: 'stat1' used but never defined [-Werror]", "stat1"),
    ("h.c:1:10: fatal error: linux/gone.h: No such file or directory", "linux/gone.h"),
    # gcc 12 with quotation marks of UTF-8
    ("a.c:3:52: error: implicit declaration of function \u2018strlcpy\u2019 [-Werror]", "strlcpy"),
    ("a.c:3:40: error: \u2018struct foo\u2019 has no member named \u2018gone\u2019", "gone"),
    ("a.c:3:63: error: \u2018undecl\u2019 undeclared (first use in this function)", "undecl"),
    # clang 14; the second is clang 16's
    ("a.c:3:52: error: implicit declaration of function 'strlcpy' is invalid in C99 [-Werror]", "strlcpy"),
    ("a.c:3:52: error: call to undeclared function 'strlcpy'; ISO C99 and later do not support it", "strlcpy"),
    ("a.c:3:42: error: no member named 'gone' in 'struct foo'", "gone"),
    ("a.c:3:63: error: use of undeclared identifier 'undecl'", "undecl"),
    ("a.c:4:28: error: field designator 'nope' does not refer to any field in type 'struct foo'", "nope"),
    ("a.c:3:83: error: incomplete definition of type 'struct inc'", "struct inc"),
    ("a.c:11:12: error: tentative definition has type 'struct inc' that is never completed", "struct inc"),
    ("h.c:1:10: fatal error: 'linux/gone.h' file not found", "linux/gone.h"),
    # modpost, the linkers, make
    ('ERROR: modpost: "gone" [/x/foo.ko] undefined!', "gone"),
    ('ERROR: "gone" [/x/foo.ko] undefined!', "gone"),
    ("ERROR: modpost: module foo uses symbol gone from namespace BAR, but does not import it.", "gone"),
    ("ERROR: modpost: GPL-incompatible module foo.ko uses GPL-only symbol 'gone'", "gone"),
    ("u.c:(.text+0x5): undefined reference to `gone'", "gone"),
    ("ld.lld: error: undefined symbol: gone", "gone"),
    ("make: *** No rule to make target 'missing.c', needed by 'missing.o'.  Stop.", "missing.c"),
    # nothing is named
    ("a.c:7:28: error: too few arguments to function call, expected 2, have 1", None),
    ("a.c:20:37: error: void value not ignored as it ought to be", None),
    ("configure: error: no acceptable C compiler found in $PATH", None),
    ("a.c:1:1: error: expected ';' before '}' token", None),
]


@pytest.mark.parametrize(("line", "symbol"), NAMED)
def test_the_name_that_an_error_is_about(line: str, symbol: str | None) -> None:
    assert [e.symbol for e in find_errors(line)] == [symbol]


def test_a_linker_s_error_is_told_with_its_file() -> None:
    log = "/usr/bin/ld: /tmp/u.o: in function `main':\nu.c:(.text+0x5): undefined reference to `gone'\n"
    assert find_errors(log) == (BuildError("u.c", 0, "undefined reference to `gone'", "gone"),)


@pytest.mark.parametrize("sign", ["//   ", "# "])
def test_what_a_script_only_tried_is_no_error(sign: str) -> None:
    """ipt-netflow's make writes its compat_def.h so, and shows it."""
    trial = f"{sign}{BUILD}/cc-test-build/test.c:4:16: error: storage size of 'test' isn't known\n"
    made = f"{BUILD}/a.c:71:10: fatal error: asm/unaligned.h: No such file or directory\n"
    expected = BuildError("a.c", 71, "asm/unaligned.h: No such file or directory", "asm/unaligned.h")
    assert find_errors(trial + made, [BUILD]) == (expected,)


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
