"""Packages really built: real headers, real compiler, real sandbox. Where nothing needs compiling, nothing is: a
module of the kernel's own, copied, passes for one that was just made.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import autokmod
from autokmod.act.build import build_package
from autokmod.act.store import find_build, list_builds, read_built
from autokmod.config import BuildConfig, Config
from autokmod.decide.buildkey import build_key, source_key
from autokmod.jobs.tokens import TokenPool
from autokmod.model import Build, Package
from autokmod.observe.abi import read_abi
from autokmod.observe.elf import Elf
from autokmod.observe.kernels import read_kernel
from autokmod.observe.ko import parse_module
from autokmod.observe.recipe import read_recipe
from autokmod.observe.sources import find_packages
from autokmod.observe.toolchain import read_toolchain
from autokmod.run import Cancel, run
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.realroot import RealRoot

pytestmark = pytest.mark.root

HELLO_C = """
#include <linux/module.h>
int hello(int x);
int hello(int x) { return x + 1; }
EXPORT_SYMBOL_GPL(hello);
static int __init start(void) { return 0; }
module_init(start);
MODULE_LICENSE("GPL");
"""
USER_C = """
#include <linux/module.h>
extern int hello(int x);
static int __init start(void) { return hello(1); }
module_init(start);
MODULE_LICENSE("GPL");
"""


def conf(name: str = "hello", *lines: str, module: str | None = None) -> str:
    head = f'PACKAGE_NAME="{name}"\nPACKAGE_VERSION="1.0"\nAUTOINSTALL=yes\n'
    built = f"BUILT_MODULE_NAME={module or name}\nDEST_MODULE_LOCATION=/extra\n"
    return head + built + "".join(f"{line}\n" for line in lines)


def source(name: str = "hello", *lines: str, code: str = HELLO_C) -> dict[str, str]:
    return {"dkms.conf": conf(name, *lines), f"{name}.c": code, "Makefile": f"obj-m := {name}.o\n"}


# "Makes" the kernel's own dummy.ko.
DUMMY = "cp /lib/modules/$kernelver/kernel/drivers/net/dummy.ko* ."


class Workshop:
    """One kernel, one job-token pool, and packages built one by one."""

    def __init__(self, root: RealRoot, krel: str, pool: TokenPool) -> None:
        self.root, self.paths, self.krel, self.pool = root, root.paths, krel, pool
        self.config = Config(build=BuildConfig(time_limit_s=120))
        self.cancel = Cancel()

    def package(self, name: str) -> Package:
        (found,) = [p for p in find_packages(self.paths, self.config) if p.name == name]
        return found

    def build(self, name: str, depends: tuple[Build, ...] | None = None) -> Build:
        kernel = read_kernel(self.paths, self.krel)
        abi = read_abi(self.paths, kernel)
        package = self.package(name)
        recipe = read_recipe(self.paths, self.config, package, kernel, abi)
        toolchain, problem = read_toolchain(self.paths, kernel, abi, self.config)
        assert problem is None
        keys = build_key(package, recipe, abi, toolchain), source_key(package, recipe)
        return build_package(
            self.paths, self.config, package, recipe, kernel, abi, *keys, self.pool, self.cancel, depends
        )

    def made(self, name: str, files: dict[str, str]) -> Build:
        self.root.add_source(name, "1.0", files)
        return self.build(name)

    def dummy(self, *lines: str, make: str = DUMMY) -> Build:
        """A package that compiles nothing: what `make` does is up to the test."""
        files = {"dkms.conf": conf("hello", *lines, "MAKE=$(cat ${BASH_SOURCE%/*}/what)", module="dummy"), "what": make}
        return self.made("hello", files)

    def log(self, build: Build) -> str:
        return Path(build.directory, "build.log").read_text()

    def says(self, build: Build, text: str) -> None:
        """Failed, once, with this sentence; and nothing is left of it but the entry in the store."""
        assert not build.ok
        assert text in build.errors[0].text
        assert build.modules == ()
        self.is_clean()

    def is_clean(self) -> None:
        assert os.listdir(self.paths.work) == []
        entries = os.listdir(self.paths.builds) if self.paths.builds.exists() else []
        assert all(len(name) == 64 for name in entries)


@pytest.fixture
def workshop(real_root: MakeRoot, corpus: Corpus) -> Iterator[Workshop]:
    pool = TokenPool(2)
    yield Workshop(real_root(kernels=(corpus.trio.first,)), corpus.trio.first, pool)
    pool.close()


def sections(build: Build) -> set[str]:
    data = Path(build.directory, build.modules[0].file).read_bytes()
    return {s.name for s in Elf("x", data).sections}


# ---- good builds ---------------------------------------------------------------------------------


def test_a_package_is_built_and_stored(workshop: Workshop) -> None:
    files = {**source(), "Makefile": "obj-m := hello.o\n$(info release $(origin KERNELRELEASE) $(KERNELRELEASE))\n"}
    build = workshop.made("hello", files)
    assert build.ok, workshop.log(build)
    (module,) = build.modules
    facts = parse_module("hello.ko", read_built(build, module))
    assert (module.name, facts.release) == ("hello", workshop.krel)
    assert [e.name for e in facts.exports] == ["hello"]
    assert find_build(workshop.paths, build.key) == build
    assert f"release command line {workshop.krel}" in workshop.log(build)
    assert "jobserver unavailable" not in workshop.log(build)
    assert not any(name.startswith(".debug") for name in sections(build))
    assert "hello" in Path(build.directory, "Module.symvers").read_text()
    assert sorted(os.listdir(workshop.paths.usr_src / "hello-1.0")) == sorted(files)
    workshop.is_clean()


def test_what_is_stored_is_root_s_and_readable_by_all(workshop: Workshop) -> None:
    build = workshop.dummy()
    assert build.ok, workshop.log(build)
    for path in (Path(build.directory), *Path(build.directory).iterdir()):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (0, 0)
        assert stat.S_IMODE(status.st_mode) == (0o755 if path.is_dir() else 0o644)


def test_strip_no_is_honoured(workshop: Workshop) -> None:
    """The kernel's own module is stripped already, so a section of our own is what strip would take."""
    make = f"{DUMMY}; echo x >x; objcopy --add-section .debug_mine=x --set-section-flags .debug_mine=debug dummy.ko"
    assert ".debug_mine" in sections(workshop.dummy("STRIP=no", make=make))
    assert ".debug_mine" not in sections(workshop.dummy("STRIP=yes", make=make))


def test_xtables_addons_is_built_as_it_comes(real_root: MakeRoot, corpus: Corpus) -> None:
    krel = corpus.trio.first
    pool = TokenPool(2)
    workshop = Workshop(real_root(kernels=(krel,), packages=("xtables-addons-dkms",)), krel, pool)
    build = workshop.build("xtables-addons")
    pool.close()
    assert build.ok, workshop.log(build)
    assert len(build.modules) == 23
    assert all((m.vermagic or "").startswith(f"{krel} ") for m in build.modules)
    workshop.is_clean()


def test_the_compiled_module_may_have_another_name_on_disk(workshop: Workshop) -> None:
    build = workshop.dummy("DEST_MODULE_NAME=renamed-dummy")
    (module,) = build.modules
    assert (module.name, module.dest_name, module.file) == ("dummy", "renamed-dummy", "renamed-dummy.ko")


def test_a_package_builds_upon_another(workshop: Workshop) -> None:
    hello = workshop.made("hello", source())
    user = workshop.made("user", source("user", "BUILD_DEPENDS=hello", code=USER_C))
    assert user.ok, workshop.log(user)
    provider = parse_module("hello.ko", read_built(hello, hello.modules[0]))
    (export,) = provider.exports
    versions = parse_module("user.ko", read_built(user, user.modules[0])).versions
    assert versions is not None
    assert versions["hello"] == export.crc


def test_without_what_it_depends_on_it_does_not_link(workshop: Workshop) -> None:
    build = workshop.made("user", source("user", code=USER_C))
    workshop.says(build, 'ERROR: modpost: "hello" [user.ko] undefined!')


def test_patches_apply_in_order_and_the_administrator_s_wins(workshop: Workshop) -> None:
    def patch(old: str, new: str) -> str:
        return f"--- a/value\n+++ b/value\n@@ -1 +1 @@\n-{old}\n+{new}\n"

    admin = workshop.paths.at("etc/dkms/hello/patches/two.patch")
    admin.parent.mkdir(parents=True)
    admin.write_text(patch("one", "admin"))
    files = {
        "dkms.conf": conf("hello", "PATCH=(one.patch two.patch)", f"MAKE='cat value; {DUMMY}'", module="dummy"),
        "value": "zero\n",
        "patches/one.patch": patch("zero", "one"),
        "patches/two.patch": patch("one", "package"),
    }
    build = workshop.made("hello", files)
    assert build.ok, workshop.log(build)
    assert "\nadmin\n" in workshop.log(build)
    assert (workshop.paths.usr_src / "hello-1.0/value").read_text() == "zero\n"


def test_scripts_run_before_and_after(workshop: Workshop) -> None:
    lines = ("PRE_BUILD='pre.sh $kernelver'", "POST_BUILD=post.sh", f"MAKE='cat made; {DUMMY}'")
    files = {
        "dkms.conf": conf("hello", *lines, module="dummy"),
        "pre.sh": "#!/bin/sh\necho for $1 in $(pwd) with $arch >made\n",
        "post.sh": "#!/bin/sh\nls -l ../$kernelver/$arch/module\n",
    }
    workshop.root.add_source("hello", "1.0", files)
    for script in ("pre.sh", "post.sh"):
        (workshop.paths.usr_src / "hello-1.0" / script).chmod(0o755)
    build = workshop.build("hello")
    assert build.ok, workshop.log(build)
    assert f"for {workshop.krel} in /var/lib/dkms/hello/1.0/build with x86_64" in workshop.log(build)
    assert "dummy.ko" in workshop.log(build)


def test_a_script_that_is_not_executable_is_passed_over(workshop: Workshop) -> None:
    build = workshop.dummy("PRE_BUILD=what")
    assert build.ok, workshop.log(build)
    assert "the PRE_BUILD script what is not executable" in workshop.log(build)


def test_commands_find_dkms_s_variables_and_places(workshop: Workshop) -> None:
    make = f"""{DUMMY}; for v in "$kernelver" "$arch" "$module/$module_version" "$kernel_source_dir" "$dkms_tree" \\
    "$PWD" "$(readlink ../source)" "$CC"; do echo "v=$v"; done
    env | grep -c -E '^(dkms_tree|kernel_source_dir)='; env | grep -E '^(kernelver|arch|module|module_version)=' | wc -l
    touch /usr/src/hello-1.0/as-root-would && ls as-root-would"""
    build = workshop.dummy(make=make)
    assert build.ok, workshop.log(build)
    shown = [line[2:] for line in workshop.log(build).splitlines() if line.startswith("v=")]
    assert shown[:-1] == [
        *(workshop.krel, "x86_64", "hello/1.0"),
        *(f"/lib/modules/{workshop.krel}/build", "/var/lib/dkms", "/var/lib/dkms/hello/1.0/build"),
        "/usr/src/hello-1.0",
    ]
    assert shown[-1].startswith("gcc")
    assert workshop.log(build).rstrip().endswith("0\n4\nas-root-would")
    assert not (workshop.paths.usr_src / "hello-1.0/as-root-would").exists()


def test_headers_in_somebody_s_home(workshop: Workshop) -> None:
    """A kernel built by hand: /lib/modules/KREL/build leads to where it was built."""
    paths = workshop.paths
    link = paths.modulesd(workshop.krel) / "build"
    headers = paths.resolve(link)
    home = paths.at("home/me/linux")
    home.parent.mkdir(parents=True)
    run(["cp", "-a", str(headers), str(home)], timeout_s=60)
    for name in ("scripts", "tools"):
        if (home / name).is_symlink():
            target = paths.inside(paths.resolve(headers / name))
            (home / name).unlink()
            (home / name).symlink_to(target)
    link.unlink()
    link.symlink_to("/home/me/linux")
    build = workshop.made("hello", source())
    assert build.ok, workshop.log(build)
    paths.at("home/me").chmod(0o700)
    closed = workshop.build("hello")
    workshop.says(closed, "may not enter")
    assert closed.transient
    assert "home/me" in closed.errors[0].text


# ---- builds that fail ----------------------------------------------------------------------------


def test_a_compiler_error_is_told_with_file_and_line(workshop: Workshop) -> None:
    build = workshop.made("hello", source(code=HELLO_C + "int broken(void) { return strlcopy(); }\n"))
    assert not build.ok
    assert not build.transient
    (error,) = [e for e in build.errors if e.file]
    assert (error.file, error.line) == ("hello.c", HELLO_C.count("\n") + 1)
    assert "implicit declaration of function" in error.text
    assert "strlcopy" in error.text
    stored = find_build(workshop.paths, build.key)
    assert stored == build
    assert "hello.c" in workshop.log(build)
    workshop.is_clean()


def test_what_was_promised_has_to_be_made(workshop: Workshop) -> None:
    workshop.says(workshop.dummy(make="true"), "the recipe promises dummy.ko, which the build did not make")


@pytest.mark.parametrize("make", ["echo text >dummy.ko", ": >dummy.ko", "head -c 100 /dev/zero >dummy.ko"])
def test_what_was_promised_has_to_be_a_module(workshop: Workshop, make: str) -> None:
    workshop.says(workshop.dummy(make=make), "dummy.ko is no module: it is not ELF")


def test_a_patch_that_does_not_apply(workshop: Workshop) -> None:
    files = {
        "dkms.conf": conf("hello", "PATCH=bad.patch", f"MAKE='{DUMMY}'", module="dummy"),
        "value": "zero\n",
        "patches/bad.patch": "--- a/value\n+++ b/value\n@@ -1 +1 @@\n-other\n+new\n",
    }
    workshop.says(workshop.made("hello", files), "Hunk #1 FAILED at 1")


def test_a_patch_that_is_not_there(workshop: Workshop) -> None:
    workshop.says(workshop.dummy("PATCH=gone.patch"), "the patch gone.patch is not there")


def test_a_script_that_fails(workshop: Workshop) -> None:
    files = {"dkms.conf": conf("hello", "PRE_BUILD=pre.sh", module="dummy"), "pre.sh": "#!/bin/sh\nexit 3\n"}
    workshop.root.add_source("hello", "1.0", files)
    (workshop.paths.usr_src / "hello-1.0/pre.sh").chmod(0o755)
    workshop.says(workshop.build("hello"), "the PRE_BUILD script ended with exit status 3")


def test_the_time_limit(workshop: Workshop) -> None:
    workshop.config = Config(build=BuildConfig(time_limit_s=1))
    marker = "4545.4545"
    build = workshop.dummy(make=f"(setsid nohup sleep {marker} &); trap '' TERM; sleep {marker}")
    workshop.says(build, "took longer than 1 s")
    assert build.transient
    assert marker not in commands()


def test_a_cancelled_build_is_not_remembered(workshop: Workshop) -> None:
    threading.Timer(0.5, workshop.cancel.cancel).start()
    build = workshop.dummy(make="sleep 60")
    assert not build.ok
    assert build.transient
    assert list_builds(workshop.paths) == ()
    workshop.is_clean()


def test_a_build_that_was_cancelled_before_it_began(workshop: Workshop) -> None:
    workshop.cancel.cancel()
    assert not workshop.dummy(make="touch /usr/src/hello-1.0/x").ok
    workshop.is_clean()


def test_a_source_that_changed_is_not_built_under_the_old_key(workshop: Workshop) -> None:
    """Between the look and the copy: what is stored under a key has to be what the key says."""
    assert workshop.dummy().ok
    kernel = read_kernel(workshop.paths, workshop.krel)
    abi = read_abi(workshop.paths, kernel)
    package = replace(workshop.package("hello"), digest="that of an earlier look")
    recipe = read_recipe(workshop.paths, workshop.config, workshop.package("hello"), kernel, abi)
    build = build_package(
        workshop.paths, workshop.config, package, recipe, kernel, abi, "c" * 64, "d" * 64, workshop.pool, Cancel()
    )
    workshop.says(build, "the source changed while it was being copied")
    assert build.transient


def test_a_full_disk_may_pass(workshop: Workshop) -> None:
    build = workshop.dummy(make="echo 'cc1: fatal error: error writing to x.s: No space left on device'; false")
    workshop.says(build, "No space left on device")
    assert build.transient


# ---- hostile packages ----------------------------------------------------------------------------


def test_a_hostile_build_reaches_nothing(workshop: Workshop) -> None:
    secret = workshop.paths.state / "key.pem"
    secret.parent.mkdir(parents=True)
    secret.write_text("PRIVATE")
    secret.chmod(0o600)
    places = "/ /usr /usr/src /lib/modules/$kernelver /etc /boot /root /home /run /var/lib /var/lib/autokmod /dev /sys"
    make = f"""cat {secret} /var/lib/autokmod/key.pem /etc/shadow /proc/1/root/etc/shadow
    for d in {places}; do (echo x >$d/planted) 2>/dev/null && echo "PLANTED in $d"; done
    (exec 3<>/dev/tcp/127.0.0.1/22) 2>/dev/null && echo CONNECTED
    find / -xdev -perm -4000 -type f -exec sh -c '"$1" -h' _ {{}} \\; >/dev/null 2>&1
    kill -9 -1; id -u; {DUMMY}"""
    build = workshop.dummy(make=make)
    said = workshop.log(build).splitlines()
    assert any("No such file or directory" in line for line in said)
    assert not [line for line in said if line.startswith(("PRIVATE", "root:", "PLANTED", "CONNECTED", "0"))]
    assert not any(
        workshop.paths.at(d.replace("$kernelver", workshop.krel) + "/planted").exists() for d in places.split()
    )
    workshop.is_clean()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ("ln -s /etc/passwd $result/module/dummy.ko", "is not what it should be"),
        ("mkfifo $result/module/dummy.ko", "is not a regular file"),
        ("mkdir $result/module/dummy.ko", "is not a regular file"),
        ("cp dummy.ko $result/module/dummy.ko; ln $result/module/dummy.ko other", "is one of 2 names of a file"),
        ("mv $result/module $result/a; ln -s /lib/modules/$kernelver/kernel/drivers/net $result/module", "is not what"),
        ("mv $result /var/lib/dkms/away; ln -s /etc $result", "is not what it should be"),
        (": >$result/module/dummy.ko", "dummy.ko: "),
        ("head -c 3000 dummy.ko >$result/module/dummy.ko", "dummy.ko: "),
        ("cp /bin/true $result/module/dummy.ko", "dummy.ko: "),
        ("cp /lib/modules/$kernelver/kernel/fs/fuse/fuse.ko* $result/module/dummy.ko", "is the module fuse, but"),
        ("rm -f $result/module/dummy.ko", "was not made"),
        ("cp dummy.ko $result/module; truncate -s 20M $result/Module.symvers", "Module.symvers: is larger than 16 MiB"),
        ("cp dummy.ko $result/module; ln -sf /etc/passwd $result/Module.symvers", "is not what it should be"),
    ],
)  # fmt: skip
def test_results_that_are_none(workshop: Workshop, make: str, why: str) -> None:
    """POST_BUILD comes last, so it has the last word on what lies where results are taken from."""
    head = "#!/bin/bash\nresult=/var/lib/dkms/hello/1.0/$kernelver/$arch\nrm -f $result/module/dummy.ko\n"
    files = {
        "dkms.conf": conf("hello", f"MAKE='{DUMMY}'", "POST_BUILD=post.sh", module="dummy"),
        "post.sh": f"{head}{make}\n",
    }
    workshop.root.add_source("hello", "1.0", files)
    (workshop.paths.usr_src / "hello-1.0/post.sh").chmod(0o755)
    build = workshop.build("hello")
    workshop.says(build, why)
    assert not build.transient


def test_a_module_of_another_kernel_is_refused(workshop: Workshop, corpus: Corpus) -> None:
    workshop.root.add_kernel(corpus.trio.equal, headers=False)
    build = workshop.dummy(make=f"cp /lib/modules/{corpus.trio.equal}/kernel/drivers/net/dummy.ko* .")
    workshop.says(build, f"was built for kernel {corpus.trio.equal}, not for {workshop.krel}")


def test_a_fork_bomb_and_a_memory_hog_end_by_themselves(workshop: Workshop) -> None:
    workshop.config = Config(build=BuildConfig(process_limit=40, memory_limit_mb=300, time_limit_s=20))
    bomb = 'python3 -c "import os\nwhile True: os.fork()" 2>&1 | grep -m1 -o BlockingIOError'
    hog = 'python3 -c "bytearray(1 << 30)" 2>&1 | grep -o MemoryError'
    build = workshop.dummy(make=f"{hog}; {bomb}; false")
    assert "MemoryError" in workshop.log(build)
    assert not build.ok
    workshop.is_clean()


def test_endless_output_ends_at_the_file_limit_and_the_kept_log_is_short(workshop: Workshop) -> None:
    workshop.config = Config(build=BuildConfig(file_limit_mb=40))
    build = workshop.dummy(make="echo FIRST; yes 'some line of output'")
    assert not build.ok
    size = Path(build.directory, "build.log").stat().st_size
    assert 16 << 20 <= size < 17 << 20
    with open(Path(build.directory, "build.log")) as f:
        assert "FIRST" in f.read(2000)
        assert "bytes are left out here" in f.read()


def test_a_work_directory_that_resists_is_removed(workshop: Workshop) -> None:
    build = workshop.dummy(make=f"{DUMMY}; mkdir -p a/b/c; touch a/b/c/d; chmod 0 a/b/c a/b a")
    assert build.ok, workshop.log(build)  # the result was copied before, and what the build tree became is nobody's
    workshop.is_clean()


UNSANDBOXED = """
from pathlib import Path
from autokmod.act.build import build_package
from autokmod.config import BuildConfig, Config
from autokmod.jobs.tokens import TokenPool
from autokmod.observe.abi import read_abi
from autokmod.observe.recipe import read_recipe
from autokmod.observe.kernels import find_kernels
from autokmod.observe.sources import find_packages
from autokmod.paths import Paths
from autokmod.run import Cancel
paths, config = Paths(Path("/")), Config(build=BuildConfig(allow_unsandboxed=True))
(package,), (kernel,) = find_packages(paths, config), find_kernels(paths)
abi = read_abi(paths, kernel)
recipe = read_recipe(paths, config, package, kernel, abi)
build = build_package(paths, config, package, recipe, kernel, abi, "a" * 64, "b" * 64, TokenPool(1), Cancel())
print(Path(build.directory, "build.log").read_text(), build.errors, "ok" if build.ok else "failed")
"""


def test_without_bubblewrap_only_where_the_administrator_said_so(workshop: Workshop) -> None:
    """The user is still dropped; run inside the root, for it is allowed on the running system only."""
    root = workshop.root
    make = 'id -u; echo "tree=$dkms_tree"; make -C "$kernel_source_dir" M="$dkms_tree/$module/$module_version/build"'
    root.add_source("hello", "1.0", {**source("hello", "MAKE=$(cat ${BASH_SOURCE%/*}/what)"), "what": make})
    shutil.copytree(Path(autokmod.__file__).parent, root.path / "opt/autokmod")
    root.paths.at("usr/bin/bwrap").unlink()
    done = root.chroot("/usr/bin/python3", "-c", UNSANDBOXED, PYTHONPATH="/opt")
    assert done.stdout.rstrip().endswith("ok"), done.stdout
    uid = next(line for line in done.stdout.splitlines() if line.isdecimal())
    assert uid != "0"
    assert "tree=/var/lib/autokmod/work/" in done.stdout


def test_without_bubblewrap_nothing_is_built(workshop: Workshop) -> None:
    workshop.root.add_source("hello", "1.0", source())
    shutil.copytree(Path(autokmod.__file__).parent, workshop.root.path / "opt/autokmod")
    workshop.paths.at("usr/bin/bwrap").unlink()
    script = UNSANDBOXED.replace("allow_unsandboxed=True", "")
    done = workshop.root.chroot("/usr/bin/python3", "-c", script, PYTHONPATH="/opt")
    assert "bubblewrap (bwrap) is not installed; install it: apt-get install bubblewrap" in done.stdout


KILLED = """
import sys
from pathlib import Path
from tests.system.test_builds import *
from tests.realroot import RealRoot
root = RealRoot(Path(sys.argv[1]), Corpus())
Workshop(root, sys.argv[2], TokenPool(1)).build("hello")
"""


def test_a_killed_daemon_leaves_no_process_and_its_work_is_swept(workshop: Workshop) -> None:
    marker = "4747.4747"
    files = {"dkms.conf": conf("hello", f"MAKE='echo started; sleep {marker}'", module="dummy")}
    workshop.root.add_source("hello", "1.0", files)
    argv = [sys.executable, "-c", KILLED, str(workshop.root.path), workshop.krel]
    with subprocess.Popen(argv, cwd=Path(__file__).parents[2]) as daemon:
        wait_for(lambda: marker in commands())
        daemon.kill()
    wait_for(lambda: marker not in commands())
    assert len(os.listdir(workshop.paths.work)) == 1
    assert workshop.dummy().ok
    workshop.is_clean()


def commands() -> str:
    """Without the daemon, whose own command line may hold what is looked for."""
    lines = run(["ps", "-eo", "comm,args"], timeout_s=10).output.splitlines()
    return "\n".join(line for line in lines if line.startswith("sleep"))


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        threading.Event().wait(0.1)
    pytest.fail("it did not come about within a minute")
