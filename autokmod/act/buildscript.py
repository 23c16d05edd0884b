"""What bash does inside the sandbox to build one package. Pure: text in, text out.

The order is DKMS's: patches, PRE_BUILD, make, results taken and stripped, POST_BUILD. Everything that DKMS offers to
command lines is offered here: variables (kernelver, arch, module and module_version exported, the others not), a
leading `make` that gets KERNELRELEASE, results in DKMS's place below $dkms_tree. Instead of -jN there is the
jobserver in MAKEFLAGS, which reaches every make, however deep.

A recipe of autokmod's own goes: archives, patches, configure, make, install, modules taken. Its commands are run as
they are written: a tree whose Makefile asks for KERNELRELEASE to tell kbuild from a person is not fooled.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from autokmod.model import Recipe, RecipeModule

PATCHES = ".patches"  # below $dkms_tree: the administrator's
KBUILD = 'make -C "$kernel_source_dir" M="$PWD" modules'
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

# FILE NAME STRIP DIRECTORY. What failed is told with the patch's and the file's name, not as patch prints it.
apply() {
    local said line file='' failed=()
    [[ -f $1 ]] || fail "the patch $2 is not there"
    command -v patch >/dev/null || fail "patch is not installed, and the recipe has patches: apt-get install patch"
    say "patch $2"
    if said=$(patch -p"$3" --force --no-backup-if-mismatch -d "$build/$4" -i "$1" 2>&1); then
        printf '%s\n' "$said"
        return 0
    fi
    while IFS= read -r line; do
        printf '| %s\n' "$line"
        case $line in
            'patching file '*) file=${line#patching file } ;;
            '|+++ '*) [[ ${failed[*]} != *"can't find file"* ]] || failed=("there is no file ${line#|+++ }") ;;
            'Hunk #'*' FAILED at '*) failed+=("$file: ${line%.}") ;;
            "can't find file to patch"* | 'patch: ****'*) failed+=("$line") ;;
        esac
    done <<<"$said"
    for line in "${failed[@]:-patch ended with an error}"; do
        printf 'autokmod: the patch %s does not apply: %s\n' "$2" "${line#patch: \*\*\*\* }"
    done
    exit 1
}

apply_listed() {
    local patch=/etc/dkms/$module/patches/$1
    [[ -f $patch ]] || patch=$build/patches/$1
    apply "$patch" "$1" 1 .
}

unpack() {
    say "unpack $1"
    mkdir -p "$build/$2" || fail "$2 cannot be made"
    tar -x --no-same-owner -f "$build/$1" -C "$build/$2" --strip-components="$3" ||
        fail "the archive $1 cannot be unpacked"
    chmod -R u+rwX "$build/$2"
}

# Of an autokmod.toml: KIND DIRECTORY COMMAND
command_line() {
    say "$1: $3"
    (cd "$build/$2" && eval "$3")
    local status=$?
    (( status == 0 )) || { echo "autokmod: the $1 script ended with exit status $status"; exit "$status"; }
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
    keep "$built" "$1.ko" "$2" "$3"
}

keep() {
    local magic
    case $1 in
        *.gz) gzip -dc -- "$1" ;;
        *.xz) xz -dc -- "$1" ;;
        *.zst) zstd -qdc -- "$1" ;;
        *) cat -- "$1" ;;
    esac >"$result/module/$3.ko" || fail "$2 cannot be copied"
    IFS= read -rN 4 magic <"$result/module/$3.ko"
    [[ $magic == $'\x7fELF' ]] || fail "$2 is no module: it is not ELF"
    [[ $4 == no ]] || to_strip+=("$result/module/$3.ko")
}

# TOP DIRECTORY BUILT-NAME NAME STRIP. modules_install compresses where the kernel's configuration says so.
find_module() {
    local IFS='' found=() names=("$3.ko" "$3.ko.gz" "$3.ko.xz" "$3.ko.zst")
    if [[ $2 == '**' ]]; then
        mapfile -d '' found < <(find "$1" -type f \( -name "${names[0]}" -o -name "${names[1]}" -o -name "${names[2]}" \
            -o -name "${names[3]}" \) -print0 | sort -z)
    else
        local name file
        for name in "${names[@]}"; do
            for file in "$1"/$2/"$name"; do [[ ! -f $file ]] || found+=("$file"); done
        done
    fi
    IFS=' '
    case ${#found[@]} in
        0) missing+=("$3.ko") ;;
        1) keep "${found[0]}" "$3.ko" "$4" "$5" ;;
        *) fail "the build made ${#found[@]} files $3.ko, say which with the module's path: ${found[*]#"$1/"}" ;;
    esac
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
START_TAKING = 'mkdir -p "$result/module" && missing=() to_strip=()'


def build_script(recipe: Recipe, krel: str, strip: str) -> str:
    return PRELUDE + "\n".join(_steps(recipe, krel, strip)) + "\n"


def _steps(recipe: Recipe, krel: str, strip: str) -> Iterator[str]:
    yield f"strip={shlex.quote(strip)}"
    yield from (shlex.join(["say", f"warning: {warning.text}"]) for warning in recipe.warnings)
    yield from (shlex.join(["say", f"applied: {text}"]) for text in recipe.applied)
    yield from (shlex.join(["say", f"not applied: {text}"]) for text in recipe.passed_over)
    yield from (shlex.join(["unpack", a.file, a.directory or ".", str(a.strip)]) for a in recipe.archives)
    yield from (shlex.join(["apply_listed", patch]) for patch in recipe.patches)
    for patch in recipe.series:
        place = f"$dkms_tree/{PATCHES}" if patch.own else "$build"
        yield f'apply "{place}/"{shlex.join([patch.file, patch.file, str(patch.strip), patch.directory or "."])}'
    yield from (_toml_steps if recipe.kind == "toml" else _dkms_steps)(recipe, krel)
    yield "no_leftovers"
    yield "exit 0"


def _dkms_steps(recipe: Recipe, krel: str) -> Iterator[str]:
    if recipe.pre_build:
        yield f"script PRE_BUILD {shlex.quote(recipe.pre_build)}"
    command = make_command(recipe, krel)
    yield f"say {shlex.quote(command)}"
    yield f"(eval {shlex.quote(command)}) || exit $?"
    yield START_TAKING
    for module in recipe.modules:
        built = f"{module.built_location}/{module.built_name}" if module.built_location else module.built_name
        yield shlex.join(["take", built, module.dest_name, _yes_no(module)])
    yield "finish"
    if recipe.post_build:
        yield f"script POST_BUILD {shlex.quote(recipe.post_build)}"


def _toml_steps(recipe: Recipe, _krel: str) -> Iterator[str]:
    yield 'export kernel_source_dir destdir=$dkms_tree/$module/$module_version/destdir; mkdir -p "$destdir"'
    steps = (("configure", recipe.configure), ("make", recipe.make or KBUILD), ("install", recipe.install))
    for kind, command in steps:
        if command:
            yield shlex.join(["command_line", kind, recipe.directory or ".", own_jobs_removed(command)])
    yield START_TAKING
    top = '"$destdir"' if recipe.install else f'"$build"/{shlex.quote(recipe.directory or ".")}'
    for module in recipe.modules:
        found = [module.built_location or ".", module.built_name, module.dest_name, _yes_no(module)]
        yield f"find_module {top} {shlex.join(found)}"
    yield "finish"


def _yes_no(module: RecipeModule) -> str:
    return "yes" if module.strip else "no"


def make_command(recipe: Recipe, krel: str) -> str:
    """Packages rely on a leading `make` seeing KERNELRELEASE on its command line; 'make' in quotes is left alone.

    A number of jobs of their own (nvidia's `'make' -j8`) would leave the jobserver, so it is taken out.
    """
    make = recipe.make or 'make -C "$kernel_source_dir" M="$build"'
    command = f"make KERNELRELEASE={krel}{make[4:]}" if make.startswith("make") else make
    return own_jobs_removed(command)


def own_jobs_removed(command: str) -> str:
    return _OWN_JOBS.sub(r"\1", command)
