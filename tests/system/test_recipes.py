"""Real dkms.confs, and confs made to do harm, evaluated by the real bash in the real sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokmod.config import BuildConfig, Config
from autokmod.errors import RecipeError, SandboxUnavailable
from autokmod.model import Kernel, KernelState, Package, Recipe
from autokmod.observe import dkmsconf
from autokmod.observe.abi import read_abi
from autokmod.observe.kernels import read_kernel
from autokmod.observe.lint import lint
from autokmod.observe.recipe import read_recipe
from autokmod.observe.sources import find_packages
from tests.conftest import MakeRoot
from tests.corpus import Corpus
from tests.realroot import RealRoot

pytestmark = pytest.mark.root
KREL = "6.1.0-56-amd64"
HEAD = 'PACKAGE_NAME="foo"\nPACKAGE_VERSION="1.0"\nBUILT_MODULE_NAME="foo"\nDEST_MODULE_LOCATION="/extra"\n'
QUICK = Config(build=BuildConfig(eval_limit_s=2))


class Confs:
    """A root without kernels, and one source whose conf is given anew for each evaluation."""

    def __init__(self, root: RealRoot) -> None:
        self.root, self.paths = root, root.paths
        modulesd = self.paths.modulesd(KREL)
        modulesd.mkdir(parents=True)
        self.kernel = Kernel(KREL, KernelState.HEADERS_ONLY, str(modulesd), None, None, (), 0.0)

    def package(self) -> Package:
        (found,) = [p for p in find_packages(self.paths, QUICK) if p.name == "foo"]
        return found

    def recipe(self, conf: str, **files: str) -> Recipe:
        self.root.add_source("foo", "1.0", {"dkms.conf": conf})
        for name, text in files.items():
            place = self.paths.at("etc/dkms") / f"{name.replace('_', '-')}.conf"
            place.parent.mkdir(exist_ok=True)
            place.write_text(text)
        return read_recipe(self.paths, QUICK, self.package(), self.kernel, None)

    def error(self, conf: str) -> RecipeError:
        with pytest.raises(RecipeError) as caught:
            self.recipe(conf)
        return caught.value


@pytest.fixture
def confs(real_root: MakeRoot) -> Confs:
    return Confs(real_root())


# ---- real packages -------------------------------------------------------------------------------

# Debian package → modules, autoinstall, and what its make command line holds. Counted by hand in the confs.
REAL = {
    "v4l2loopback-dkms": (1, True, "make KERNEL_DIR=/lib/modules/{krel}/build all"),
    "xtables-addons-dkms": (23, True, "-name '*.ko' -exec mv -v {} "),
    "dahdi-dkms": (32, True, "MODULES_EXTRA='dahdi_dummy dahdi_echocan_oslec'"),
    "openafs-modules-dkms": (1, True, "--with-linux-kernel-headers=/lib/modules/{krel}/build "),
    "lttng-modules-dkms": (42, True, "modules CONFIG_LTTNG=m"),
    "digimend-dkms": (4, True, "make KVERSION={krel}"),
    "iptables-netflow-dkms": (1, True, "make ipt_NETFLOW.ko"),
    "ddcci-dkms": (2, True, "make KVER={krel} -C /var/lib/dkms/ddcci/"),
    "evdi-dkms": (1, True, "DKMS_BUILD=1"),
    "jool-dkms": (3, True, "build/src/mod/siit modules"),
    "lime-forensics-dkms": (1, False, "make -C /lib/modules/{krel}/build"),
}
EXCLUDED_ON_CLOUD = {"v4l2loopback-dkms", "dahdi-dkms", "digimend-dkms", "ddcci-dkms", "evdi-dkms"}


def test_real_confs_are_understood_unchanged(real_root: MakeRoot, corpus: Corpus) -> None:
    krel = corpus.trio.first
    root = real_root(kernels=(krel,), packages=tuple(REAL))
    kernel = read_kernel(root.paths, krel)
    abi = read_abi(root.paths, kernel)
    packages = {Path(p.source).name: p for p in find_packages(root.paths, Config())}
    for deb, (modules, autoinstall, make) in REAL.items():
        package = packages[_source_of(corpus, deb)]
        recipe = read_recipe(root.paths, Config(), package, kernel, abi)
        assert (recipe.name, recipe.version) == (package.name, package.version)
        assert (len(recipe.modules), recipe.autoinstall) == (modules, autoinstall), deb
        assert make.replace("{krel}", krel) in recipe.make, deb
        assert recipe.warnings == (), deb
        if "cloud" in krel:
            assert (recipe.excluded is not None) == (deb in EXCLUDED_ON_CLOUD), deb


def _source_of(corpus: Corpus, deb: str) -> str:
    (conf,) = corpus.layer(deb).tree.glob("usr/src/*/dkms.conf")
    return conf.parent.name


def test_netflow_s_conf_in_particular(real_root: MakeRoot, corpus: Corpus) -> None:
    """It does pushd to its own place, wants its module unstripped, and configures before it builds."""
    root = real_root(packages=("iptables-netflow-dkms",))
    (package,) = find_packages(root.paths, Config())
    modulesd = root.paths.modulesd(KREL)
    modulesd.mkdir(parents=True)
    kernel = Kernel(KREL, KernelState.HEADERS_ONLY, str(modulesd), None, None, (), 0.0)
    recipe = read_recipe(root.paths, Config(), package, kernel, None)
    assert not recipe.modules[0].strip
    assert recipe.pre_build.startswith(f"./configure --from-dkms-conf=/lib/modules/{KREL}/build ")


# ---- confs that behave ---------------------------------------------------------------------------


def test_dkms_s_variables_are_set(confs: Confs) -> None:
    names = "kernelver arch module module_version kernel_source_dir kernel_config dkms_tree source_tree install_tree"
    lines = [HEAD, 'MAKE="', *(f"${{{name}?}} " for name in names.split()), '${parallel_jobs:?}"']
    made = confs.recipe("".join(lines)).make.split()
    assert made[0] == KREL
    assert made[2:9] == [
        *("foo", "1.0"),
        *(f"/lib/modules/{KREL}/build", f"/lib/modules/{KREL}/build/.config"),
        *("/var/lib/dkms", "/usr/src", "/lib/modules"),
    ]
    assert int(made[9]) >= 1


@pytest.mark.parametrize(
    ("conf", "make"),
    [
        ("MAKE='make KVER=$kernelver'", "make KVER=$kernelver"),  # expanded when it runs
        ("MAKE=(one two)\nMAKE[1]=three", "one"),
        ("MAKE[0]=old\nMAKE_MATCH[1]='^6\\.'\nMAKE[1]=new", "new"),
        ("MAKE[0]=old\nMAKE_MATCH[1]='^[0-5]\\.'\nMAKE[1]=new", "old"),
        ("MAKE=$(echo made | tr a-z A-Z)", "MADE"),
        ("i=0; while [ $i -lt 3 ]; do MAKE[0]+=$i; i=$((i+1)); done", "012"),
        ("MAKE=dos\r", "dos"),
        ("echo noise; echo more >&2; printf 'MAKE\\0000\\000fake\\0'; MAKE=quiet", "quiet"),
        ("false", ""),
        ("set -u; MAKE=u", "u"),
        ("printf() { :; }; builtin() { :; }; echo() { :; }; unset() { :; }; MAKE=masked", "masked"),
        ("exit() { :; }; return() { :; }; trap 'echo trapped' EXIT DEBUG; MAKE=trapped", "trapped"),
        ("IFS=0123456789; MAKE=a1b2", "a1b2"),
        ("local i=0 j=1; MAKE=local$i$j", "local01"),
        ("declare -a MAKE=(declared); declare BUILT_MODULE_NAME=foo", "declared"),
        ("shopt -s nullglob failglob; set -f; MAKE='*.c'", "*.c"),
        ("set -- a b c; shift 2; MAKE=shifted", "shifted"),
        ("exec >/dev/null 2>&1 <&-; MAKE=closed", "closed"),
        ("case x in @(x|y)) MAKE=extglob ;; esac", "extglob"),
        ("return 0\nMAKE=never", ""),
        ("cd /; pushd /usr >/dev/null; MAKE=$(dirname $BASH_SOURCE)", "/var/lib/dkms/foo/1.0/source"),
        ("MAKE=$(cat ${BASH_SOURCE%/*}/dkms.conf | wc -l)", "5"),
        ("kernelver=9.9; MAKE_MATCH[1]='^9'; MAKE[1]=fooled; MAKE[0]=not", "not"),
        ("MAKE='`no` \"quoted\" \\ $HOME'", '`no` "quoted" \\ $HOME'),
    ],
)
def test_whatever_bash_can_say(confs: Confs, conf: str, make: str) -> None:
    assert confs.recipe(HEAD + conf + "\n").make == make


def test_values_are_read_twice_as_dkms_does(confs: Confs) -> None:
    conf = HEAD + "BUILT_MODULE_NAME='${PACKAGE_NAME}_x'\nPRE_BUILD='run.sh $kernelver'\n"
    made = confs.recipe(conf)
    assert made.modules[0].built_name == "foo_x"
    assert made.pre_build == "run.sh $kernelver"


def test_overrides_come_in_dkms_s_order(confs: Confs) -> None:
    files = ("foo", "foo-1.0", f"foo-1.0-{KREL}", f"foo--{KREL}")
    etc = confs.paths.at("etc/dkms")
    etc.mkdir(exist_ok=True)
    for name in files:
        (etc / f"{name}.conf").write_text(f'MAKE="$MAKE {name}"\n')
    (etc / "foo-1.0-5.10.0.conf").write_text("MAKE=other-kernel\n")
    assert confs.recipe(HEAD + "MAKE=conf\n").make == f"conf {' '.join(files)}"


def test_an_error_in_an_override_names_the_override(confs: Confs) -> None:
    with pytest.raises(RecipeError) as caught:
        confs.recipe(HEAD, foo="MAKE=(\n")
    assert caught.value.path == "/etc/dkms/foo.conf"


# ---- confs that do not ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conf", "why"),
    [
        ("if true; then\nMAKE=x\n", "line 7: syntax error: unexpected end of file"),
        ("MAKE=(\n", "line 5: unexpected EOF while looking for matching"),
        ("fi\n", "line 5: syntax error near unexpected token `fi'"),
        ("exit 3\n", "it ended the shell that reads it, with exit status 3"),
        ("echo going >&2; exit 0\n", "with exit status 0 after 'going'"),
        ("set -e; false\n", "with exit status 1"),
        ("kill -9 $$\n", "with exit status 137"),
        ("exec true\n", "with exit status 0"),
        ("while :; do :; done\n", "took longer than 2 s"),
        ("(trap '' TERM INT HUP; while :; do sleep 1; done) & wait\n", "took longer than 2 s"),
        ("yes\n", "it printed more than 8 MiB"),
        ("declare -A PATCH; PATCH[x]=y\n", "an index has to be a number"),
        ("for ((i=0; i<10000; i++)); do BUILT_MODULE_NAME[i]=m$i; done\n", "names 10000 modules, more than 1000"),
        ("BUILT_MODULE_NAME[123456789]=far\n", "names 123456790 modules"),
        ("MAKE_MATCH='(('\nMAKE=x\n", "'((' is not a regular expression"),
        ("BUILT_MODULE_LOCATION=../../../etc\n", "leaves the build directory"),
        ("BUILT_MODULE_NAME=$'a\\nb'\n", "is not the name of a module"),
        ("PACKAGE_NAME=$'\\xff'\n", "is not UTF-8"),
    ],
)
def test_a_bad_conf_is_one_clear_sentence(confs: Confs, conf: str, why: str) -> None:
    error = confs.error(HEAD + conf)
    assert why in error.why
    assert error.path == str(confs.paths.usr_src / "foo-1.0/dkms.conf")
    assert "\n" not in str(error)


def test_an_empty_conf_and_one_of_garbage(confs: Confs) -> None:
    assert confs.error("").key in ("PACKAGE_NAME", "BUILT_MODULE_NAME")
    confs.error("\x01\x02\x7fELF \x80" * 50)


def test_a_source_that_only_root_may_read_is_told(confs: Confs) -> None:
    """DKMS reads as root; here the build user has to."""
    confs.recipe(HEAD)
    conf = confs.paths.usr_src / "foo-1.0/dkms.conf"
    conf.chmod(0o600)
    error = confs.error(HEAD + "MAKE=other\n")
    assert "chmod -R o+rX" in error.why
    conf.chmod(0o644)
    conf.parent.chmod(0o700)
    assert "chmod o+x" in confs.error(HEAD + "MAKE=another\n").why


def test_a_hostile_conf_reaches_nothing(confs: Confs) -> None:
    secret = confs.paths.at("etc/dkms/secret.conf")
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("top secret")
    secret.chmod(0o600)
    confs.paths.state.mkdir(parents=True, exist_ok=True)
    conf = """
MAKE="$(cat /etc/dkms/secret.conf /etc/shadow /root/.bashrc 2>/dev/null | wc -c)"
MAKE+=" $(touch /usr/src/foo-1.0/x /etc/dkms/x /var/lib/autokmod/x /var/lib/dkms/x 2>/dev/null; echo $?)"
MAKE+=" $(ls -d /home /root /run /var/lib/autokmod 2>/dev/null | wc -l) $(id -u)"
(exec 3<>/dev/tcp/127.0.0.1/1) 2>/dev/null && MAKE=network
setsid sleep 5353.5353 &
"""
    zero, failed, seen, uid = confs.recipe(HEAD + conf).make.split()
    assert (zero, failed, seen) == ("0", "1", "0")
    assert uid != "0"
    assert not (confs.paths.usr_src / "foo-1.0/x").exists()
    assert not any("5353.5353" in p.read_text() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists())


# ---- what is kept --------------------------------------------------------------------------------


def test_a_recipe_is_evaluated_once(confs: Confs, monkeypatch: pytest.MonkeyPatch) -> None:
    first = confs.recipe(HEAD)
    monkeypatch.setattr(dkmsconf, "evaluate", None)  # a second evaluation would be a TypeError
    assert read_recipe(confs.paths, QUICK, confs.package(), confs.kernel, None) == first


def test_a_change_or_an_override_is_evaluated_anew(confs: Confs) -> None:
    assert confs.recipe(HEAD).make == ""
    assert confs.recipe(HEAD + "MAKE=changed\n").make == "changed"
    assert confs.recipe(HEAD + "MAKE=changed\n", foo="MAKE=override\n").make == "override"


def test_an_endless_loop_costs_its_time_once(confs: Confs, monkeypatch: pytest.MonkeyPatch) -> None:
    confs.error(HEAD + "while :; do :; done\n")
    monkeypatch.setattr(dkmsconf, "evaluate", None)
    with pytest.raises(RecipeError, match="took longer"):
        read_recipe(confs.paths, QUICK, confs.package(), confs.kernel, None)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', "\0"])
def test_a_damaged_cache_is_ignored(confs: Confs, damage: str) -> None:
    first = confs.recipe(HEAD)
    (kept,) = (confs.paths.cache / "recipes").rglob("*.json")
    kept.write_text(damage)
    assert read_recipe(confs.paths, QUICK, confs.package(), confs.kernel, None) == first
    assert kept.read_text() != damage


def test_without_the_user_nothing_is_evaluated_and_nothing_kept(confs: Confs) -> None:
    confs.root.add_source("foo", "1.0", {"dkms.conf": HEAD})
    config = Config(build=BuildConfig(user="autokmod-none"))
    with pytest.raises(SandboxUnavailable, match="there is no user autokmod-none"):
        read_recipe(confs.paths, config, confs.package(), confs.kernel, None)
    assert not list(confs.paths.cache.rglob("*/recipes/*/*.json"))


# ---- lint ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conf", "severity", "key", "why"),
    [
        ("if\n", "error", "", "syntax error"),
        ("PATCH[2]=gone.patch\nPATCH_MATCH[2]='^2'\n", "error", "PATCH[2]", "there is no patches/gone.patch"),
        ("REMAKE_INITRD=yes\n", "warning", "", "REMAKE_INITRD is deprecated"),
        ("POST_INSTALL=run.sh\n", "warning", "", "is not run"),
        ("PRE_BUILD='gone.sh x'\n", "warning", "PRE_BUILD", "gone.sh is not there or not executable"),
        ("MAKE='make K=`uname -r`'\n", "warning", "MAKE[0]", "$kernelver is"),
        ("BUILD_DEPENDS=bar\n", "warning", "", "it needs the package bar"),
        ("BUILT_MODULE_NAME[1]=foo\nDEST_MODULE_LOCATION[1]=/extra\n", "error", "BUILT_MODULE_NAME[1]", "same"),
    ],
)  # fmt: skip
def test_lint_of_a_dkms_conf(confs: Confs, conf: str, severity: str, key: str, why: str) -> None:
    confs.root.add_source("foo", "1.0", {"dkms.conf": HEAD + conf})
    matching = [f for f in lint(confs.paths, QUICK, confs.package()) if why in f.text]
    assert [(f.severity, f.key) for f in matching] == [(severity, key)]


def test_lint_finds_nothing_wrong_with_packages_of_the_archive(real_root: MakeRoot, corpus: Corpus) -> None:
    root = real_root(kernels=(corpus.trio.first,), packages=("v4l2loopback-dkms", "xtables-addons-dkms", "dahdi-dkms"))
    for package in find_packages(root.paths, Config()):
        assert lint(root.paths, Config(), package) == (), package.id
