"""What GRUB would have made of its configuration so far: variables, the menu, and why some of it is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from autokmod.decide.grubtest import UNKNOWN as UNKNOWN
from autokmod.observe.grubscript import Command, Node


@dataclass(frozen=True, slots=True)
class Item:
    """`body`: of a submenu, the menu; of an entry, what it does. `image`: set for entries of blscfg."""

    title: str
    id: str
    body: tuple[Node, ...] = ()
    is_submenu: bool = False
    is_certain: bool = True
    image: str | None = None
    by_name: bool = False  # blscfg's GRUB takes a name that begins with a number for a name


@dataclass(slots=True)
class State:
    env: dict[str, str]
    menu: list[Item] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)  # why something is unknown
    functions: dict[str, tuple[Node, ...]] = field(default_factory=dict)

    def copy(self) -> State:
        return State(dict(self.env), list(self.menu), list(self.images), list(self.doubts), dict(self.functions))


def merge(state: State, one: State, two: State, why: str) -> None:
    """What either of two ways of things would leave; of what they differ in nothing is known."""
    names, known, begun = one.env.keys() | two.env.keys(), len(state.doubts), len(state.menu)
    env = {n: v if (v := one.env.get(n, "")) == two.env.get(n, "") else UNKNOWN for n in names}
    if env.get("default", "") != state.env.get("default", "") and env.get("default") == UNKNOWN:
        state.doubts.append(f"the default depends on {why}")
    state.doubts += [d for branch in (one, two) for d in branch.doubts[known:]]
    if one.menu == two.menu:
        state.menu = one.menu
    else:
        added = one.menu[begun:] + two.menu[begun:]
        state.menu += [replace(item, is_certain=False) for item in added]
        state.doubts.append(f"the menu depends on {why}")
    state.images = one.images if one.images == two.images else [*state.images, UNKNOWN]
    state.functions = {**two.functions, **one.functions}
    state.env = env


def forget(args: Sequence[str], state: State) -> None:
    """search --set=root …: a variable of which only GRUB will know what it says."""
    for before, arg in zip(("", *args), args, strict=False):
        option, equals, name = arg.partition("=")
        if option == "--set" or option == "-s":
            state.env[name if equals else "root"] = UNKNOWN
        elif before in ("--set", "-s") or (not arg.startswith("-") and before == ""):
            state.env[arg] = UNKNOWN


def shown(condition: Sequence[Node]) -> str:
    last = condition[-1] if condition else None
    if not isinstance(last, Command):
        return "…"
    return " ".join("".join(f"${p.text}" if p.is_variable else p.text for p in w.parts) for w in last.words)


def plain(text: str) -> str:
    return text.replace(UNKNOWN, "…")
