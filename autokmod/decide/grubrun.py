"""Runs GRUB's configuration as far as its menu and its default depend on it, without guessing what is not known here.

Whatever depends on the firmware, the keyboard or a file that was not read is UNKNOWN: a condition on it takes all its
branches, and what they do not agree on is unknown as well, menu entries included. What is looked up in such a menu is
found only where nothing uncertain stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from autokmod.decide.grubstate import UNKNOWN, Item, State, forget, merge, plain, shown
from autokmod.decide.grubtest import evaluate
from autokmod.errors import FormatError
from autokmod.observe.bls import in_grub_order
from autokmod.observe.grub import GrubLook
from autokmod.observe.grubscript import Command, Function, If, Loop, Node, Word, parse_script

PREFIX = "(prefix)"
MAX_STEPS = 100_000
MAX_DEPTH = 40
# What GRUB itself sets; every other variable is empty until the configuration or the environment block sets it.
OWN = frozenset(
    {"root", "cmdpath", "lockdown", "shim_lock", "check_signatures", "locale_dir", "lang", "secondary_locale_dir"}
)
OWN_PREFIXES = ("grub_", "net_", "pxe_", "feature_", "efi_")
SOURCES = (
    "source",
    ".",
    "configfile",
    "extract_entries_source",
    "extract_entries_configfile",
    "normal",
    "legacy_source",
)
SETS_VARIABLE = (
    "search",
    "search.fs_uuid",
    "search.fs_label",
    "search.file",
    "probe",
    "regexp",
    "smbios",
    "read",
    "rdmsr",
)
LINUX = ("linux", "linux16", "linuxefi")
OTHERS = ("chainloader", "multiboot", "multiboot2", "fwsetup", "halt", "reboot", "configfile", "ntldr", "exit")
OTHER = "(other)"  # instead of an image: something that is no Linux kernel


class Runner:
    """Raises FormatError, also where a configuration does not come to an end."""

    def __init__(self, look: GrubLook, env: Mapping[str, str]) -> None:
        self._look, self._block = look, env
        self._steps = self._depth = 0

    def start(self) -> State:
        known = {"prefix": PREFIX, "config_directory": PREFIX, "config_file": f"{PREFIX}/grub.cfg", "?": "0"}
        state = State({**known, "feature_menuentry_id": "y"})
        self.run(parse_script(self._look.script, f"{self._look.directory}/grub.cfg"), state)
        return state

    def run(self, nodes: Sequence[Node], state: State) -> bool | None:
        """The last command's outcome."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FormatError(self._look.directory, "its commands call one another too deeply")
        result: bool | None = True
        for node in nodes:
            result = self._node(node, state)
        self._depth -= 1
        return result

    def _node(self, node: Node, state: State) -> bool | None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise FormatError(self._look.directory, "its commands have no end")
        if isinstance(node, Command):
            outcome = self._command(node, state)
            state.env["?"] = UNKNOWN if outcome is None else "0" if outcome else "1"
            return outcome
        if isinstance(node, If):
            return self._if(node.branches, node.otherwise, state)
        if isinstance(node, Function):
            state.functions[node.name] = node.body
            return True
        self._loop(node, state)
        return None

    # ---- conditions

    def _if(
        self,
        branches: Sequence[tuple[tuple[Node, ...], tuple[Node, ...]]],
        otherwise: tuple[Node, ...],
        state: State,
    ) -> bool | None:
        if not branches:
            return self.run(otherwise, state)
        (condition, then), *rest = branches
        holds = self.run(condition, state)
        if holds is not None:
            return self.run(then, state) if holds else self._if(rest, otherwise, state)
        one, two = state.copy(), state.copy()
        self.run(then, one)
        self._if(rest, otherwise, two)
        merge(state, one, two, f"a condition that only GRUB can answer ({shown(condition)})")
        return None

    def _loop(self, node: Loop, state: State) -> None:
        inside = state.copy()
        if node.variable:
            inside.env[node.variable] = UNKNOWN
        self.run(node.body, inside)
        merge(state, inside, state.copy(), "a loop")

    # ---- commands

    def _command(self, node: Command, state: State) -> bool | None:
        first, words = node.words[0], self._expand(node.words, state)
        name, args = (words[0], words[1:]) if words else ("", [])
        if name == "!":
            held = self._command(Command(node.words[1:], node.body), state) if node.words[1:] else True
            return None if held is None else not held
        if first.parts and not first.parts[0].quoted and "=" in first.parts[0].text:
            return self._set([name, *args], state)
        if UNKNOWN in name:
            self._unsettled(state, "a command whose name is not known")
            return None
        if name in state.functions:
            return self.run(state.functions[name], state)
        return self._builtin(name, args, node, state)

    def _builtin(self, name: str, args: list[str], node: Command, state: State) -> bool | None:
        simple: dict[str, Callable[[list[str], State], bool | None]] = {
            "set": self._set, "unset": self._unset, "load_env": self._load_env, "blscfg": self._blscfg,
            "bls_import": self._blscfg, "increment": self._count, "decrement": self._count,
        }  # fmt: skip
        if name in simple:
            return simple[name](args, state)
        if name in ("menuentry", "submenu"):
            return self._entry(args, node.body or (), state, is_submenu=name == "submenu")
        if name in SOURCES:
            return self._source(args, state)
        if name in ("[", "test"):
            return evaluate(args[:-1] if name == "[" else args, self._is_there)
        if name in LINUX:
            state.images.append(args[0] if args else UNKNOWN)
        elif name in OTHERS:
            state.images.append(OTHER)
        elif name in SETS_VARIABLE:
            forget(args, state)
        return {"true": True, "false": False, "export": True, "save_env": True, "insmod": True}.get(name)

    def _set(self, args: list[str], state: State) -> bool:
        for arg in args:
            name, equals, value = arg.partition("=")
            if equals and name != "prefix":  # elsewhere is a stub's configuration, which leads to this one
                state.env[name] = value
        return True

    def _unset(self, args: list[str], state: State) -> bool:
        for name in args:
            state.env[name] = ""
        return True

    def _count(self, args: list[str], state: State) -> bool:
        for name in args:
            state.env[name] = UNKNOWN
        return True

    def _load_env(self, args: list[str], state: State) -> bool | None:
        names = [a for a in args if not a.startswith("-")]
        if any(a in ("-f", "--file") or a.startswith("--file=") for a in args):
            file = next((a.partition("=")[2] for a in args if a.startswith("--file=")), names[0] if names else "")
            names = [n for n in names if n != file]
            if file != f"{PREFIX}/grubenv":
                self._unsettled(state, f"an environment block elsewhere ({plain(file)})")
                return None
        if self._look.env_problem is not None:
            self._unsettled(state, self._look.env_problem)
            return None
        state.env.update({k: v for k, v in self._block.items() if not names or k in names})
        return True

    def _source(self, args: list[str], state: State) -> bool | None:
        file = args[0] if args else ""
        name = file.removeprefix(f"{PREFIX}/")
        if name in self._look.files:
            return self.run(parse_script(self._look.files[name], f"{self._look.directory}/{name}"), state)
        if name != file and "/" not in name and name not in self._look.names:
            return False
        self._unsettled(state, f"a file that is not read here ({plain(file) or 'unnamed'})")
        return None

    def _unsettled(self, state: State, why: str) -> None:
        """From here on anything may be: the menu before it is known, the default is not."""
        state.doubts.append(why)
        state.env["default"] = UNKNOWN
        state.menu.append(Item(UNKNOWN, UNKNOWN, is_certain=False))
        state.images.append(UNKNOWN)

    def _blscfg(self, args: list[str], state: State) -> bool | None:
        if state.env.get("blsdir"):
            self._unsettled(state, "loader entries elsewhere (blsdir)")
            return None
        default = state.env.get("default", "")
        for entry in in_grub_order(e for e in self._look.entries if e.image):
            is_default = default in (entry.grub_id, entry.title)
            if not args or is_default == (args[0] == "default") or args[0] == entry.grub_id:
                title = entry.title or entry.image
                state.menu.append(Item(title, entry.grub_id, image=entry.image, by_name=True))
        return True

    def _entry(self, args: list[str], body: tuple[Node, ...], state: State, *, is_submenu: bool) -> bool:
        title, id_ = "", ""
        rest = iter(args)
        for arg in rest:
            if arg.startswith("--id"):
                id_ = arg.partition("=")[2] or next(rest, "")
            elif arg in ("--class", "--users", "--hotkey", "--source"):
                next(rest, None)
            elif not arg.startswith("--") and not title:
                title = arg
        certain = UNKNOWN not in title and UNKNOWN not in id_
        state.menu.append(Item(title, id_ or title, body, is_submenu, certain))
        return True

    # ---- words

    def _expand(self, words: Sequence[Word], state: State) -> list[str]:
        """A word without quotes that is empty is none; what is unknown and not quoted counts as one."""
        found: list[str] = []
        for word in words:
            text, is_quoted = "", False
            for part in word.parts:
                value = self._value(part.text, state) if part.is_variable else part.text
                if part.is_variable and not part.quoted and any(c.isspace() for c in value):
                    *whole, value = value.split() or [""]
                    for piece in whole:
                        found.append(text + piece)
                        text = ""
                text += value
                is_quoted = is_quoted or part.quoted
            if text or is_quoted:
                found.append(text)
        return found

    def _value(self, name: str, state: State) -> str:
        if name == "menuentry_id_option" and state.env.get(name) == UNKNOWN:
            return "--id"
        if name in state.env:
            return state.env[name]
        return UNKNOWN if name in OWN or name.startswith(OWN_PREFIXES) or not name[0].isalpha() else ""

    def _is_there(self, file: str, *, filled: bool) -> bool | None:
        name = file.removeprefix(f"{PREFIX}/")
        if name == file or "/" in name or UNKNOWN in name:
            return None
        if name == "grubenv" and filled:
            return None if self._look.env_problem else name in self._look.names
        return (bool(self._look.files[name]) or not filled) if name in self._look.files else name in self._look.names
