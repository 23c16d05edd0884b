"""GRUB's files and what GRUB makes of them: a configuration, an environment, and the kernel that is booted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autokmod.decide.grubmenu import Menu, Taken, read_menu
from autokmod.errors import FormatError
from autokmod.observe.bls import parse_entry
from autokmod.observe.grub import ENV_MAGIC, GrubLook, parse_grub_default, parse_grubenv
from autokmod.observe.grubscript import parse_script

HEADER = """
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="DEFAULT"
fi

if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
if loadfont unicode ; then
  set gfxmode=auto
fi
"""
MENU = """
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-U' {
\tsavedefault
\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
\tsearch --no-floppy --fs-uuid --set=root U
\tlinux\t/boot/vmlinuz-3 root=UUID=U ro quiet
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-U' {
\tmenuentry 'Debian, with Linux 3' --class os $menuentry_id_option 'gnulinux-3-advanced-U' {
\t\tlinux /boot/vmlinuz-3 root=UUID=U
\t}
\tmenuentry 'Debian, with Linux 3 (recovery mode)' $menuentry_id_option 'gnulinux-3-recovery-U' {
\t\tlinux /boot/vmlinuz-3 root=UUID=U single
\t}
\tmenuentry 'Debian, with Linux 2' $menuentry_id_option 'gnulinux-2-advanced-U' {
\t\tlinux ($root)/boot/vmlinuz-2 root=UUID=U
\t}
}
menuentry 'Windows > 10' --id windows { chainloader +1 }
"""
FIRMWARE = """
if [ "$grub_platform" = "efi" ]; then
  menuentry 'UEFI Firmware Settings' --id 'uefi-firmware' { fwsetup }
fi
"""
LAST = "menuentry last { linux /boot/vmlinuz-1 }\n"


def look(script: str, env: dict[str, str] | None = None, **files: str) -> GrubLook:
    texts = {f"{name}.cfg": text for name, text in files.items()}
    names = frozenset({"grub.cfg", *texts, *(["grubenv"] if env is not None else [])})
    return GrubLook("/boot/grub", script, texts, names, env or {}, None, ())


def taken(script: str, env: dict[str, str] | None = None, **files: str) -> Taken:
    return Menu(look(script, env, **files)).default()


def debian(default: str = "0") -> str:
    return HEADER.replace("DEFAULT", default) + MENU + FIRMWARE


SAVED = "${saved_entry}"


@pytest.mark.parametrize(
    ("default", "env", "image"),
    [
        ("0", None, "/boot/vmlinuz-3"),
        ("0", {"saved_entry": "gnulinux-advanced-U>gnulinux-2-advanced-U"}, "/boot/vmlinuz-3"),
        ("1>2", None, "/boot/vmlinuz-2"),
        ("1", None, "/boot/vmlinuz-3"),
        ("1>9", None, "/boot/vmlinuz-3"),
        ("0x1>0x2", None, "/boot/vmlinuz-2"),
        ("01>02", None, "/boot/vmlinuz-2"),
        ("99", None, "unknown"),  # in the firmware's own entry's range: only GRUB knows where the menu ends
        ("gnulinux-advanced-U>gnulinux-2-advanced-U", None, "/boot/vmlinuz-2"),
        ("Advanced options for Debian GNU/Linux>Debian, with Linux 2", None, "/boot/vmlinuz-2"),
        ("no such entry", None, "unknown"),
        ("windows", None, None),
        ("Windows >> 10", None, None),
        (SAVED, None, "/boot/vmlinuz-3"),
        (SAVED, {}, "/boot/vmlinuz-3"),
        (SAVED, {"saved_entry": "gnulinux-advanced-U>gnulinux-2-advanced-U"}, "/boot/vmlinuz-2"),
        (SAVED, {"saved_entry": "1>2"}, "/boot/vmlinuz-2"),
        (SAVED, {"saved_entry": "1>2", "next_entry": "0"}, "/boot/vmlinuz-3"),
        (SAVED, {"next_entry": "1>2"}, "/boot/vmlinuz-2"),
        (SAVED, {"next_entry": "", "saved_entry": "1>2"}, "/boot/vmlinuz-2"),
    ],
)
def test_default(default: str, env: dict[str, str] | None, image: str | None) -> None:
    found = taken(debian(default), env)
    if image == "unknown":
        assert found.doubt
    else:
        assert (found.image, found.doubt) == (image, "")


def test_what_is_not_found_is_the_first_where_the_menu_is_certain() -> None:
    script = HEADER.replace("DEFAULT", "gone") + MENU
    assert taken(script).image == "/boot/vmlinuz-3"
    assert taken(HEADER.replace("DEFAULT", "99") + MENU).image == "/boot/vmlinuz-3"


def test_an_unreadable_environment_makes_all_unknown() -> None:
    damaged = GrubLook("/boot/grub", debian(SAVED), {}, frozenset({"grubenv"}), {}, "not a block", ())
    assert "not a block" in Menu(damaged).default().doubt


@pytest.mark.parametrize(
    "script",
    [
        "if cmostest 55 ; then set default=0; else set default=1; fi\n",
        "if keystatus --shift ; then set default=1; fi\n",
        "source /elsewhere.cfg\n",
        "configfile ($root)/other/grub.cfg\n",
        "load_env --file (hd0,gpt2)/env\n",
        "set default=$grub_platform\n",
        "set default=1; while keystatus; do set default=0; done\n",
        "probe --set=default --fs $root\n",
        "regexp --set default '(.*)' $cmdpath\n",
        "set blsdir=/x; blscfg\n",
        "$grub_cpu; set default=0\n",
    ],
)
def test_what_only_grub_knows(script: str) -> None:
    found = taken(script + "menuentry a { linux /vmlinuz-1 }\nmenuentry b { linux /vmlinuz-2 }\n")
    assert found.image is None
    assert found.doubt


@pytest.mark.parametrize(
    ("script", "image"),
    [
        ("if keystatus --shift; then set x=1; fi\n", "/boot/vmlinuz-1"),
        ("if keystatus; then set default=0; else set default=0; fi\n", "/boot/vmlinuz-1"),
        ("set default=1\nif keystatus; then menuentry x { linux /boot/vmlinuz-9 }; fi\nset default=1\n", "unknown"),
        ("if false; then set default=1; elif true; then set default=0; fi\n", "/boot/vmlinuz-1"),
        ('if [ -n "${boot_counter}" -a "${boot_success}" = "0" ]; then set default=1; fi\n', "/boot/vmlinuz-1"),
        ('if [ -z "$a" -o "$b" = x ]; then set default=0; else set default=1; fi\n', "/boot/vmlinuz-1"),
        ("if [ ! -f $prefix/custom.cfg ]; then set default=0; else set default=1; fi\n", "/boot/vmlinuz-1"),
        ("if ! false; then set default=0; fi\n", "/boot/vmlinuz-1"),
        ("for x in a b; do echo $x; done\n", "/boot/vmlinuz-1"),
        ("default=0\nexport default\nunset other\n", "/boot/vmlinuz-1"),
        ("source $prefix/gone.cfg\n", "/boot/vmlinuz-1"),
    ],
)
def test_conditions(script: str, image: str) -> None:
    found = taken(script + LAST + "menuentry b { linux /boot/vmlinuz-2 }\n")
    assert (found.image or "unknown") == image


def test_a_custom_file_beside_it() -> None:
    script = "if [ -f ${config_directory}/custom.cfg ]; then source ${config_directory}/custom.cfg; fi\n" + LAST
    assert taken(script).image == "/boot/vmlinuz-1"
    assert taken(script, custom="menuentry mine { linux /boot/vmlinuz-own }\n").image == "/boot/vmlinuz-own"
    assert taken(script, custom="set default=last\n").image == "/boot/vmlinuz-1"


def test_which_kernel_an_entry_loads_may_be_unknown() -> None:
    entry = "menuentry a { if keystatus; then linux /vmlinuz-1; else linux /vmlinuz-2; fi }\n"
    assert taken(entry).doubt
    assert taken("menuentry a { linux $image }\n").doubt
    assert taken("menuentry a { linux $grub_image }\n").doubt


def test_xen_is_not_taken_for_its_dom0() -> None:
    found = taken("menuentry xen { multiboot2 /boot/xen.gz\n module2 /boot/vmlinuz-3 }\n")
    assert (found.title, found.image) == ("xen", None)


def test_choices_are_named_so_that_they_lead_there() -> None:
    found = {c.spec: c.image for c in Menu(look(debian(SAVED), {})).choices()}
    assert found == {
        "gnulinux-simple-U": "/boot/vmlinuz-3",
        "gnulinux-advanced-U>gnulinux-3-advanced-U": "/boot/vmlinuz-3",
        "gnulinux-advanced-U>gnulinux-2-advanced-U": "/boot/vmlinuz-2",
    }
    for spec, image in found.items():
        assert taken(debian(SAVED), {"saved_entry": spec}).image == image


# ---- blscfg ----

BLS = "set default=DEFAULT\nif [ -s $prefix/grubenv ]; then load_env; fi\ninsmod blscfg\nblscfg\n"
MACHINE = "2a9f0000000000000000000000000000"


def fedora(default: str, env: dict[str, str] | None = None) -> Taken:
    names = ("5.14.0-362.el9.x86_64", "5.14.0-427.el9.x86_64", "0-rescue")
    entries = tuple(parse_entry(f"title R {n}\nlinux /vmlinuz-{n}\n", f"{MACHINE}-{n}.conf") for n in names)
    script = HEADER.replace("DEFAULT", default) + BLS.partition("\n")[2]
    made = GrubLook("/boot/grub2", script, {}, frozenset({"grubenv"}), env or {}, None, entries)
    return Menu(made).default()


@pytest.mark.parametrize(
    ("default", "env", "image"),
    [
        (SAVED, {}, "/vmlinuz-5.14.0-427.el9.x86_64"),
        (SAVED, {"saved_entry": f"{MACHINE}-5.14.0-362.el9.x86_64"}, "/vmlinuz-5.14.0-362.el9.x86_64"),
        (SAVED, {"saved_entry": "1"}, "/vmlinuz-5.14.0-362.el9.x86_64"),
        (SAVED, {"saved_entry": "R 5.14.0-362.el9.x86_64"}, "/vmlinuz-5.14.0-362.el9.x86_64"),
        ("2", {}, "/vmlinuz-0-rescue"),
    ],
)
def test_blscfg(default: str, env: dict[str, str], image: str) -> None:
    assert fedora(default, env).image == image


def test_a_name_that_may_be_a_number() -> None:
    """A GRUB that takes it for the number 2 falls back to the first entry; newer ones find the name."""
    assert fedora(SAVED, {"saved_entry": f"{MACHINE}-gone"}).doubt
    script = "set default='1st'\nmenuentry a { linux /a }\nmenuentry 1st { linux /b }\nmenuentry c { linux /c }\n"
    assert taken(script).image == "/b"
    assert taken(script.replace("1st", "2nd")).doubt


# ---- files ----


def test_grubenv() -> None:
    data = ENV_MAGIC + b"saved_entry=a>b\nkernelopts=x=1 y\\\\z\n#comment=1\nodd\n" + b"#" * 900
    assert parse_grubenv(data, "x") == {"saved_entry": "a>b", "kernelopts": "x=1 y\\z"}


@pytest.mark.parametrize("data", [b"", b"#" * 1024, b"saved_entry=0\n"])
def test_no_environment_block(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_grubenv(data, "/boot/grub/grubenv")


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("GRUB_DEFAULT=0\n", "0"),
        ('GRUB_DEFAULT="saved" # x\n', "saved"),
        ("#GRUB_DEFAULT=1\n", None),
        ("GRUB_DEFAULT=0\nGRUB_DEFAULT='1>2'\n", "1>2"),
        ("", None),
    ],
)
def test_grub_default(text: str, default: str | None) -> None:
    assert parse_grub_default(text) == default


@pytest.mark.parametrize(
    "text",
    [
        "menuentry a {",
        "if true; then",
        "'",
        '"',
        "}",
        "fi",
        "a | b",
        "function { }",
        "{",
        "if; fi",
        "a > b",
        "if " * 99,
    ],
)
def test_no_configuration(text: str) -> None:
    with pytest.raises(FormatError):
        parse_script(text, "grub.cfg")


@pytest.mark.parametrize(
    "text",
    [
        "if false; then a; " + "elif false; then a; " * 5000 + "fi\n",
        "! " * 5000 + "true\n",
        "if [ " + "a -a " * 5000 + "a ]; then a; fi\n",
        "if [ " + "! " * 5000 + "a ]; then a; fi\n",
        "if a; then " * 5000 + "fi; " * 5000,
        "submenu a { " * 5000 + "}" * 5000,
        "$a" * 5000 + "\n",
        "menuentry a { }\n" * 5000,
    ],
    ids=["elif", "negations", "and", "not", "nested", "menus", "variables", "entries"],
)
def test_any_size_is_an_error_or_an_answer(text: str) -> None:
    menu = read_menu(look(text))
    assert isinstance(menu, str) or menu.default() is not None


@pytest.mark.parametrize("text", ["function f { f; }\nf\n", "function f { f; f; }\nmenuentry a { f }\n"])
def test_no_end(text: str) -> None:
    made = read_menu(look(text))
    assert isinstance(made, str) or _fails(made)


def _fails(menu: Menu) -> bool:
    with pytest.raises(FormatError):
        menu.default()
    return True


@given(st.integers(0, len(debian(SAVED))), st.integers(0, 40), st.text(max_size=4))
def test_damage_is_an_error_or_an_answer(at: int, length: int, text: str) -> None:
    """Never another exception, and never an entry that is not there."""
    whole = debian(SAVED)
    menu = read_menu(look(whole[:at] + text + whole[at + length :], {"saved_entry": "1>2"}))
    if isinstance(menu, Menu):
        try:
            menu.default()
        except FormatError:
            return


@given(st.binary(max_size=300))
def test_any_environment(data: bytes) -> None:
    found = parse_grubenv(ENV_MAGIC + data, "x")
    assert all("=" not in name for name in found)
