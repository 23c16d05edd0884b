"""From a conf's variables to a Recipe: every rule, and every way to be wrong, by table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from autokmod.errors import RecipeError
from autokmod.model import Package, Recipe, RecipeModule
from autokmod.observe.dkmseval import RawConf
from autokmod.observe.dkmsfields import KernelFacts
from autokmod.observe.dkmsrecipe import make_recipe

PACKAGE = Package("foo", "1.0", "/usr/src/foo-1.0", "dkms", "d")
KERNEL = KernelFacts("6.1.0-56-amd64", "x86_64", {"CONFIG_PCI": "y", "CONFIG_USB": "m", "CONFIG_HZ": "250"})
Values = Mapping[str, str | Mapping[int, str]]
PLAIN: Values = {"PACKAGE_NAME": "foo", "PACKAGE_VERSION": "1.0", "DEST_MODULE_LOCATION": "/extra"}


def recipe(
    values: Values | None = None,
    matches: Mapping[str, Mapping[int, int]] | None = None,
    kernel: KernelFacts = KERNEL,
    **changes: str | Mapping[int, str],
) -> Recipe:
    """Of PLAIN with changes; a text stands for index 0."""
    given = {**(PLAIN if values is None else values), **changes}
    arrays = {name: {0: value} if isinstance(value, str) else value for name, value in given.items()}
    return make_recipe(PACKAGE, kernel, RawConf(arrays, matches or {}))


def fails(changes: Values) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        recipe({**PLAIN, **changes})
    assert caught.value.path == "/usr/src/foo-1.0/dkms.conf"
    return caught.value


def test_the_least_that_a_conf_can_say() -> None:
    made = recipe()
    assert (made.name, made.version) == ("foo", "1.0")
    assert made.modules == (RecipeModule("foo", "", "foo", strip=True),)
    assert (made.make, made.patches, made.build_depends, made.pre_build, made.post_build) == ("", (), (), "", "")
    assert not made.autoinstall
    assert made.link_allowed
    assert made.excluded is None
    assert made.warnings == ()


def test_all_of_a_module() -> None:
    made = recipe(
        BUILT_MODULE_NAME={0: "a", 1: "b-c"},
        BUILT_MODULE_LOCATION={1: "src/mod/"},
        DEST_MODULE_NAME={1: "d"},
        DEST_MODULE_LOCATION={0: "/updates", 1: "/kernel/drivers"},
        STRIP={1: "no"},
    )
    assert made.modules == (RecipeModule("a", "", "a", strip=True), RecipeModule("b-c", "src/mod", "d", strip=False))


@pytest.mark.parametrize(
    ("strip", "expected"),
    [
        ({}, (True, True)),
        ({0: "no"}, (False, False)),
        ({0: "no", 1: "yes"}, (False, True)),
        ({1: "N"}, (True, False)),
        ({0: "Yes"}, (True, True)),
        ({0: "strange"}, (True, True)),
    ],
)
def test_strip_is_inherited_from_the_first(strip: dict[int, str], expected: tuple[bool, bool]) -> None:
    made = recipe(BUILT_MODULE_NAME={0: "a", 1: "b"}, DEST_MODULE_LOCATION={0: "/extra", 1: "/extra"}, STRIP=strip)
    assert tuple(m.strip for m in made.modules) == expected


@pytest.mark.parametrize(
    ("location", "clean"), [("", ""), (".", ""), ("./", ""), ("src/", "src"), ("./a//b/", "a/b"), ("..a", "..a")]
)
def test_locations_are_cleaned(location: str, clean: str) -> None:
    assert recipe(BUILT_MODULE_LOCATION=location).modules[0].built_location == clean


@pytest.mark.parametrize("value", ["yes", "Yes", "YES"])
def test_autoinstall(value: str) -> None:
    assert recipe(AUTOINSTALL=value).autoinstall


@pytest.mark.parametrize("value", ["no", "NO", ""])
def test_no_autoinstall(value: str) -> None:
    assert not recipe(AUTOINSTALL=value).autoinstall


def test_no_weak_modules() -> None:
    assert not recipe(NO_WEAK_MODULES="yes").link_allowed


def test_build_depends_are_names_in_any_number_of_entries() -> None:
    assert recipe(BUILD_DEPENDS={0: "a b", 3: "c", 4: "a"}).build_depends == ("a", "b", "c")


@pytest.mark.parametrize(
    ("make", "condition", "matches", "expected"),
    [
        ({0: "make all"}, {}, {}, "make all"),
        ({}, {}, {}, ""),
        ({0: "old", 1: "new"}, {1: "^6"}, {1: 0}, "new"),
        ({0: "old", 1: "new"}, {1: "^7"}, {1: 1}, "old"),
        ({0: "a", 1: "b", 2: "c"}, {1: "^6", 2: "^6.1"}, {1: 0, 2: 0}, "c"),  # the last match wins
        ({0: "a", 1: "b"}, {0: "^5", 1: "^7"}, {0: 1, 1: 1}, ""),  # a conditional first one is no default
        ({0: "a", 1: "b"}, {}, {}, "a"),  # without a condition only the first counts
    ],
)
def test_make_match(make: dict[int, str], condition: dict[int, str], matches: dict[int, int], expected: str) -> None:
    made = recipe(matches={"MAKE_MATCH": matches}, MAKE=make, MAKE_MATCH=condition)
    assert made.make == expected


def test_patches_in_order_where_their_condition_holds() -> None:
    made = recipe(
        matches={"PATCH_MATCH": {1: 1, 5: 0}},
        PATCH={0: "a.patch", 1: "b.patch", 5: "sub/c.patch", 6: ""},
        PATCH_MATCH={1: "^5", 5: "^6"},
    )
    assert made.patches == ("a.patch", "sub/c.patch")


# ---- exclusions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "matches", "kind"),
    [
        ({"BUILD_EXCLUSIVE_KERNEL": "^5"}, {"BUILD_EXCLUSIVE_KERNEL": {0: 1}}, "excluded-kernel"),
        ({"BUILD_EXCLUSIVE_KERNEL": "^6"}, {"BUILD_EXCLUSIVE_KERNEL": {0: 0}}, None),
        ({"BUILD_EXCLUSIVE_ARCH": "arm"}, {"BUILD_EXCLUSIVE_ARCH": {0: 1}}, "excluded-arch"),
        ({"BUILD_EXCLUSIVE_ARCH": "x86"}, {"BUILD_EXCLUSIVE_ARCH": {0: 0}}, None),
        ({"BUILD_EXCLUSIVE_KERNEL_MIN": "6.2"}, {}, "excluded-kernel"),
        ({"BUILD_EXCLUSIVE_KERNEL_MIN": "6.1"}, {}, None),
        ({"BUILD_EXCLUSIVE_KERNEL_MAX": "5.19"}, {}, "excluded-kernel"),
        ({"BUILD_EXCLUSIVE_KERNEL_MAX": "6.1"}, {}, None),
        ({"BUILD_EXCLUSIVE_CONFIG": "CONFIG_PCI CONFIG_USB"}, {}, None),
        ({"BUILD_EXCLUSIVE_CONFIG": "CONFIG_PCI CONFIG_I2C"}, {}, "excluded-config"),
        ({"BUILD_EXCLUSIVE_CONFIG": "CONFIG_HZ"}, {}, "excluded-config"),  # set, but neither y nor m
        ({"BUILD_EXCLUSIVE_CONFIG": "!CONFIG_PREEMPT_RT"}, {}, None),
        ({"BUILD_EXCLUSIVE_CONFIG": "!CONFIG_USB"}, {}, "excluded-config"),
        ({"OBSOLETE_BY": "6.1"}, {}, "excluded-kernel"),
        ({"OBSOLETE_BY": "6.1.0-57"}, {}, None),
    ],
)
def test_build_exclusive(values: Values, matches: Mapping[str, Mapping[int, int]], kind: str | None) -> None:
    excluded = recipe({**PLAIN, **values}, matches).excluded
    assert (excluded.kind if excluded else None) == kind


def test_without_headers_nobody_can_tell() -> None:
    made = recipe(BUILD_EXCLUSIVE_CONFIG="CONFIG_NONE", kernel=replace(KERNEL, config=None))
    assert made.excluded is None


HOLE: Values = {"BUILT_MODULE_NAME": {0: "a", 2: "b"}}
TWO: Values = {**PLAIN, "BUILT_MODULE_NAME": {0: "a", 1: "b"}, "DEST_MODULE_LOCATION": {0: "/extra", 1: "/extra"}}


def test_an_exclusion_of_one_module_leaves_the_others() -> None:
    made = recipe(TWO, BUILD_EXCLUSIVE_KERNEL_MAX={1: "5.0"})
    assert made.excluded is None
    assert [m.dest_name for m in made.modules] == ["a"]
    assert [w.kind for w in made.warnings] == ["module-excluded"]
    assert made.warnings[0].text.startswith("b: ")


def test_the_first_index_speaks_for_all_as_in_dkms() -> None:
    made = recipe(TWO, BUILD_EXCLUSIVE_KERNEL_MAX={0: "5.0"})
    assert made.excluded is not None
    assert len(made.modules) == 2


def test_a_package_with_every_module_excluded_is_excluded() -> None:
    three = {**TWO, "BUILD_EXCLUSIVE_CONFIG": {1: "CONFIG_NONE"}, "BUILD_EXCLUSIVE_KERNEL_MIN": {0: "7.0"}}
    assert recipe(three).excluded is not None


# ---- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", PLAIN)
def test_mandatory_keys(key: str) -> None:
    values = {name: value for name, value in PLAIN.items() if name != key}
    if key == "DEST_MODULE_LOCATION":
        values["BUILT_MODULE_NAME"] = "foo"
    with pytest.raises(RecipeError) as caught:
        recipe(values)
    assert caught.value.key.startswith(key)
    assert caught.value.why == "is missing"


def test_no_module_at_all_is_worth_a_warning() -> None:
    """DKMS says no more either: confs leave modules out that the kernel has itself."""
    made = recipe({"PACKAGE_NAME": "foo", "PACKAGE_VERSION": "1.0"})
    assert made.modules == ()
    assert made.excluded is not None
    assert made.excluded.kind == "excluded-modules"
    assert [w.kind for w in made.warnings] == ["no-modules"]


@pytest.mark.parametrize(
    ("changes", "key", "why"),
    [
        ({"DEST_MODULE_LOCATION": {0: "/extra", 1: "/extra"}}, "BUILT_MODULE_NAME[0]", "is missing"),
        ({**HOLE, "DEST_MODULE_LOCATION": {2: "/extra"}}, "DEST_MODULE_LOCATION[0]", "is missing"),
        ({**HOLE, "DEST_MODULE_LOCATION": {0: "/extra", 2: "/extra"}}, "BUILT_MODULE_NAME[1]", "has 3 modules"),
        ({"DEST_MODULE_LOCATION": "/lib"}, "DEST_MODULE_LOCATION[0]", "begins with none of"),
        ({"DEST_MODULE_LOCATION": "extra"}, "DEST_MODULE_LOCATION[0]", "begins with none of"),
        ({"DEST_MODULE_LOCATION": "/extra/../../etc"}, "DEST_MODULE_LOCATION[0]", "leaves the modules directory"),
        ({"BUILT_MODULE_NAME": "foo.ko"}, "BUILT_MODULE_NAME[0]", "without '.ko'"),
        ({"BUILT_MODULE_NAME": "foo.o"}, "BUILT_MODULE_NAME[0]", "without '.ko'"),
        ({"BUILT_MODULE_NAME": "foo.ko.xz"}, "BUILT_MODULE_NAME[0]", "without '.ko'"),
        ({"BUILT_MODULE_NAME": "a/b"}, "BUILT_MODULE_NAME[0]", "slash"),
        ({"BUILT_MODULE_NAME": ".."}, "BUILT_MODULE_NAME[0]", "not the name of a module"),
        ({"BUILT_MODULE_NAME": "a b"}, "BUILT_MODULE_NAME[0]", "not the name of a module"),
        ({"BUILT_MODULE_NAME": "a\nb"}, "BUILT_MODULE_NAME[0]", "not the name of a module"),
        ({"BUILT_MODULE_NAME": "$(reboot)"}, "BUILT_MODULE_NAME[0]", "not the name of a module"),
        ({"BUILT_MODULE_NAME": "-rf"}, "BUILT_MODULE_NAME[0]", "not the name of a module"),
        ({"DEST_MODULE_NAME": "foo.ko"}, "DEST_MODULE_NAME[0]", "without '.ko'"),
        ({"DEST_MODULE_NAME": "../foo"}, "DEST_MODULE_NAME[0]", "slash"),
        ({"BUILT_MODULE_LOCATION": "../other"}, "BUILT_MODULE_LOCATION[0]", "leaves the build directory"),
        ({"BUILT_MODULE_LOCATION": "a/../../b"}, "BUILT_MODULE_LOCATION[0]", "leaves the build directory"),
        ({"BUILT_MODULE_LOCATION": "/etc"}, "BUILT_MODULE_LOCATION[0]", "leaves the build directory"),
        ({"BUILT_MODULE_LOCATION": "a\x1b[2J"}, "BUILT_MODULE_LOCATION[0]", "leaves the build directory"),
        ({**TWO, "BUILT_MODULE_NAME": {0: "a", 1: "a"}}, "BUILT_MODULE_NAME[1]", "same module as BUILT_MODULE_NAME[0]"),
        ({**TWO, "DEST_MODULE_NAME": {0: "x-y", 1: "x_y"}}, "DEST_MODULE_NAME[1]", "same module"),
        ({"BUILT_MODULE_NAME": {9999: "x"}}, "BUILT_MODULE_NAME", "names 10000 modules, more than 1000"),
        ({"AUTOINSTALL": "true"}, "AUTOINSTALL", "'true' is neither yes nor no"),
        ({"AUTOINSTALL": "Y"}, "AUTOINSTALL", "neither yes nor no"),
        ({"NO_WEAK_MODULES": "1"}, "NO_WEAK_MODULES", "neither yes nor no"),
        ({"BUILD_DEPENDS_REBUILD": "1"}, "BUILD_DEPENDS_REBUILD", "neither yes nor no"),
        ({"BUILD_DEPENDS": "../x"}, "BUILD_DEPENDS", "not the name of a package"),
        ({"PATCH": "../../etc/passwd"}, "PATCH[0]", "leaves the patches directory"),
        ({"PATCH": "/etc/passwd"}, "PATCH[0]", "leaves the patches directory"),
        ({"MAKE": "make \udcff"}, "MAKE[0]", "is not UTF-8"),
        ({"MAKE": "make " * 9999}, "MAKE[0]", "is longer than 16384 characters"),
    ],
)  # fmt: skip
def test_errors_name_the_key_and_what_is_wrong(changes: Values, key: str, why: str) -> None:
    error = fails(changes)
    assert error.key == key
    assert why in error.why
    str(error).encode("ascii", "strict")


@pytest.mark.parametrize("name", ["MAKE_MATCH", "PATCH_MATCH", "BUILD_EXCLUSIVE_KERNEL", "BUILD_EXCLUSIVE_ARCH"])
def test_a_broken_regular_expression(name: str) -> None:
    raw = {**PLAIN, "MAKE": "make", "PATCH": "a.patch", name: "(("}
    with pytest.raises(RecipeError, match=r"'\(\(' is not a regular expression") as caught:
        recipe(raw, {name: {0: 2}})
    assert caught.value.key == f"{name}[0]"


# ---- what a person may want to know --------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"PACKAGE_VERSION": "1.1"}, "package-name-differs", "foo-1.1"),
        ({"PACKAGE_NAME": "bar"}, "package-name-differs", "bar-1.0"),
        ({"REMAKE_INITRD": "yes"}, "deprecated", "REMAKE_INITRD is deprecated and ignored"),
        ({"MODULES_CONF": {1: "alias a b"}}, "deprecated", "MODULES_CONF is"),
        ({"OBSOLETE_BY": "7.0"}, "deprecated", "OBSOLETE_BY is deprecated"),
        ({"POST_INSTALL": "rm -rf x"}, "script-not-run", "POST_INSTALL='rm -rf x' is not run"),
    ],
)
def test_warnings(changes: Values, kind: str, text: str) -> None:
    (warning,) = recipe({**PLAIN, **changes}).warnings
    assert warning.kind == kind
    assert text in warning.text


def test_what_dkms_ignores_in_silence() -> None:
    assert recipe(CLEAN="make clean").warnings == ()
