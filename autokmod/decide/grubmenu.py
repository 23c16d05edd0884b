"""Which entry of GRUB's menu the next boot takes, and what would have to be saved to make it take another one.

As grub-core/normal/menu.c finds it: the default is a number (strtoul's: 0x and 0 are prefixes), or a title or id; what
follows a > is looked for in that submenu, and what is not found is the first entry. A number cannot be told from
a name that begins with one by every version alike: such a name is only believed where both would find the same entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from autokmod.decide.grubrun import OTHER, Runner
from autokmod.decide.grubstate import UNKNOWN, Item, State
from autokmod.errors import FormatError
from autokmod.observe.grub import GrubLook

MAX_MENUS = 5  # nested
NUMBER = re.compile(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)(.*)", re.DOTALL | re.ASCII)
DEVICE = re.compile(r"^\([^)]*\)")
RESCUE = ("recovery", "rescue", "single")


@dataclass(frozen=True, slots=True)
class Taken:
    """`image`: the kernel's path as GRUB has it; None: not known, for `doubt`, or no kernel at all."""

    title: str = ""
    image: str | None = None
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of one kernel that can be saved as the default."""

    spec: str  # what saved_entry says for it
    image: str


class Menu:
    """Raises FormatError where the configuration is none."""

    def __init__(self, look: GrubLook, env: Mapping[str, str] | None = None) -> None:
        """`env`: the environment block's, if it said something else than it does."""
        self._runner = Runner(look, look.env if env is None else env)
        self._state = self._runner.start()

    def default(self) -> Taken:
        return self._resolve(self._state, self._state.env.get("default", ""), MAX_MENUS)

    def choices(self) -> Iterator[Choice]:
        """Every entry that boots a kernel and is named so that it will never boot another."""
        yield from self._choices(self._state, "", MAX_MENUS)

    # ---- looking up

    def _resolve(self, state: State, spec: str, depth: int) -> Taken:
        if UNKNOWN in spec or not depth:
            return Taken(doubt=_why(state))
        name, rest = _split(spec)
        item = _find(state.menu, spec, name)
        if item is None:
            return Taken(doubt=f"it is not known what GRUB finds under {name!r}: {_why(state)}")
        if not item.is_submenu:
            return self._taken(state, item)
        return self._resolve(self._inside(state, item), rest, depth - 1)

    def _inside(self, state: State, item: Item) -> State:
        inside = replace(state, menu=[], images=[], env=dict(state.env), doubts=list(state.doubts))
        self._runner.run(item.body, inside)
        return inside

    def _taken(self, state: State, item: Item) -> Taken:
        if not item.title and not item.body and item.image is None:
            return Taken(doubt="GRUB's menu has no entries")
        if item.image is not None:
            return Taken(item.title, DEVICE.sub("", item.image))
        images = self._inside(state, item).images
        if not images or images[-1] == OTHER:
            return Taken(item.title)
        image = DEVICE.sub("", images[-1])
        if UNKNOWN in image or len(set(images)) > 1:
            return Taken(item.title, doubt=f"which kernel {item.title!r} loads is only known to GRUB")
        return Taken(item.title, image)

    def _choices(self, state: State, before: str, depth: int) -> Iterator[Choice]:
        for item in state.menu if depth else ():
            spec = before + (item.id or item.title).replace(">", ">>")
            if not item.is_certain or UNKNOWN in spec:
                continue
            if item.is_submenu:
                yield from self._choices(self._inside(state, item), f"{spec}>", depth - 1)
            elif (taken := self._taken(state, item)).image is not None and not _is_rescue(item):
                yield Choice(spec, taken.image)


def _why(state: State) -> str:
    return "; ".join(dict.fromkeys(state.doubts)) or "its configuration does not say"


def _is_rescue(item: Item) -> bool:
    return any(word in f"{item.id} {item.title}".lower() for word in RESCUE)


def _split(spec: str) -> tuple[str, str]:
    """The first name, and what is to be looked for inside. A doubled > stands for one."""
    at = 0
    while (at := spec.find(">", at)) >= 0:
        if spec[at + 1 : at + 2] != ">":
            return spec[:at].replace(">>", ">"), spec[at + 1 :]
        at += 2
    return spec.replace(">>", ">"), ""


def _find(menu: Sequence[Item], spec: str, name: str) -> Item | None:
    """None: not known."""
    named = _by_name(menu, name) if name else _first(menu)
    number = NUMBER.match(spec)
    if number is None:
        return named
    numbered = _at(menu, _number(number[1]))
    is_number = not number[2] or number[2].startswith(">")
    if is_number or named == numbered:
        return numbered
    return named if named is not None and named.by_name and named.id == name else None


def _number(text: str) -> int:
    """As strtoul: octal after a 0, to the first digit that is none."""
    if text[:2] in ("0x", "0X"):
        return int(text[:20], 16)
    octal = re.match(r"0[0-7]*", text)
    return int(octal[0][:20], 8) if octal else int(text[:20])


def _by_name(menu: Sequence[Item], name: str) -> Item | None:
    for item in menu:
        if not item.is_certain:
            return None
        if name in (item.title, item.id):
            return item
    return _first(menu)


def _first(menu: Sequence[Item]) -> Item | None:
    return _at(menu, 0)


def _at(menu: Sequence[Item], index: int) -> Item | None:
    """Beyond its end: the first. Where something uncertain comes before, what the place holds is."""
    if not menu:
        return Item("", "")
    if not all(item.is_certain for item in menu[: index + 1]):
        return None
    if index < len(menu):
        return menu[index]
    return menu[0] if menu[0].is_certain else None


def read_menu(look: GrubLook, env: Mapping[str, str] | None = None) -> Menu | str:
    """Or why it cannot be read."""
    try:
        return Menu(look, env)
    except FormatError as exc:
        return str(exc)
