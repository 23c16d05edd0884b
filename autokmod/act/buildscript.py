"""What bash does inside the sandbox to build one package. Pure: text in, text out.

The order is DKMS's: patches, PRE_BUILD, make, results taken and stripped, POST_BUILD. Everything that DKMS offers to
command lines is offered here: variables (kernelver, arch, module and module_version exported, the others not), a
leading `make` that gets KERNELRELEASE, results in DKMS's place below $dkms_tree. Instead of -jN there is the
jobserver in MAKEFLAGS, which reaches every make, however deep.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from autokmod.model import Recipe

# -jN of a make, up to where the next command begins.
_OWN_JOBS = re.compile(
    r"""((?<![\w./-])['"]?make['"]?(?:[ \t][^;&|\n]*?)?)[ \t]+(?:-j[ \t]?\d+|-j|--jobs=\d+)(?=[ \t;&|)\n]|$)"""
)

PRELUDE = r"""
export -n dkms_tree source_tree install_tree kernel_source_dir kernel_config parallel_jobs
say() { printf '==> %s\n' "$*"; }
fail() { printf 'autokmod: %s\n' "$*"; exit 1; }
build=$dkms_tree/$module/$module_version/build
result=$dkms_tree/$module/$module_version/$kernelver/$arch
cd "$build" || fail "the build directory cannot be entered"

apply() {
    local patch=/etc/dkms/$module/patches/$1
    [[ -f $patch ]] || patch=$build/patches/$1
    [[ -f $patch ]] || fail "the patch $1 is not there"
    command -v patch >/dev/null || fail "patch is not installed, and the recipe has patches: apt-get install patch"
    say "patch $1"
    patch -p1 --force -i "$patch" || fail "the patch $1 does not apply"
}

# A script that is not executable is passed over, as DKMS does.
script() {
    local kind=$1 command=$2 program=${2%% *}
    local path=$build/$program
    [[ -x /etc/dkms/$module/$program ]] && path=/etc/dkms/$module/$program
    if [[ ! -x $path ]]; then
        say "warning: the $kind script $program is not executable"
        return 0
    fi
    say "$kind $command"
    (cd "$build" && eval "exec \"\$path\" ${command#"$program"}") || fail "the $kind script ended with exit status $?"
}

take() {
    local built=$build/$1.ko
    [[ -f $built ]] || { missing+=("$1.ko"); return 0; }
    local magic
    IFS= read -rN 4 magic <"$built"
    [[ $magic == $'\x7fELF' ]] || fail "$1.ko is no module: it is not ELF"
    cp -- "$built" "$result/module/$2.ko" || fail "$1.ko cannot be copied"
    [[ $3 == no ]] || to_strip+=("$result/module/$2.ko")
}

# What is still running was put into the background and not waited for: what it would have made is not there yet.
# Only in a PID namespace, where everything that runs is this build's.
no_leftovers() {
    local init process left try
    IFS= read -r init </proc/1/comm
    [[ $init == bwrap ]] || return 0
    for try in {1..10}; do
        left=()
        for process in /proc/[0-9]*; do
            [[ $process == "/proc/1" || $process == "/proc/$$" ]] && continue
            { IFS= read -r init <"$process/comm"; } 2>/dev/null && left+=("$init")
        done
        (( ${#left[@]} )) || return 0
        sleep 0.1
    done
    fail "it left processes behind: ${left[*]:0:5}"
}

finish() {
    (( ${#missing[@]} == 0 )) || fail "the recipe promises ${missing[*]}, which the build did not make"
    (( ${#to_strip[@]} == 0 )) || "$strip" -g -- "${to_strip[@]}" || fail "$strip failed"
    if [[ -f $build/Module.symvers ]]; then
        cp -- "$build/Module.symvers" "$result/Module.symvers"
    else
        find "$build" -name Module.symvers -type f -exec cat {} + | sort -u >"$result/Module.symvers"
    fi
}
"""


def build_script(recipe: Recipe, krel: str, strip: str) -> str:
    return PRELUDE + "\n".join(_steps(recipe, krel, strip)) + "\n"


def _steps(recipe: Recipe, krel: str, strip: str) -> Iterator[str]:
    yield f"strip={shlex.quote(strip)}"
    yield from (f"apply {shlex.quote(patch)}" for patch in recipe.patches)
    if recipe.pre_build:
        yield f"script PRE_BUILD {shlex.quote(recipe.pre_build)}"
    command = make_command(recipe, krel)
    yield f"say {shlex.quote(command)}"
    yield f"(eval {shlex.quote(command)}) || exit $?"
    yield 'mkdir -p "$result/module" && missing=() to_strip=()'
    for module in recipe.modules:
        built = f"{module.built_location}/{module.built_name}" if module.built_location else module.built_name
        yield shlex.join(["take", built, module.dest_name, "yes" if module.strip else "no"])
    yield "finish"
    if recipe.post_build:
        yield f"script POST_BUILD {shlex.quote(recipe.post_build)}"
    yield "no_leftovers"
    yield "exit 0"


def make_command(recipe: Recipe, krel: str) -> str:
    """Packages rely on a leading `make` seeing KERNELRELEASE on its command line; 'make' in quotes is left alone.

    A number of jobs of their own (nvidia's `'make' -j8`) would leave the jobserver, so it is taken out.
    """
    make = recipe.make or 'make -C "$kernel_source_dir" M="$build"'
    command = f"make KERNELRELEASE={krel}{make[4:]}" if make.startswith("make") else make
    return _OWN_JOBS.sub(r"\1", command)
