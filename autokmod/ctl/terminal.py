"""How output leaves: JSON or text, colour and symbols by systemctl's rules, through a pager where it is long."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

JSON_VERSION = 1
TRUE = ("1", "yes", "y", "true", "t", "on", "16", "256", "24bit", "auto-16", "auto-256", "auto-24bit")
FALSE = ("0", "no", "n", "false", "f", "off")


@dataclass(frozen=True, slots=True)
class Style:
    colour: bool = False
    symbols: bool = False  # ● and friends: only where the locale has them


@dataclass(frozen=True, slots=True)
class Output:
    json: str = "off"  # "off", "short", "pretty"
    legend: bool = True
    pager: bool = True
    quiet: bool = False
    style: Style = Style()

    def data(self, value: Mapping[str, Any]) -> None:
        """One JSON value, with the version of its shape."""
        if not self.quiet:
            whole = {"version": JSON_VERSION, **value}
            _write(json.dumps(whole, indent=2 if self.json == "pretty" else None) + "\n")

    def lines(self, lines: Sequence[str]) -> None:
        if self.quiet:
            return
        text = "".join(f"{line}\n" for line in lines)
        command = pager_cmd(os.environ) if self.pager and _overflows(lines) else ()
        if not command or not _page(command, text):
            _write(text)

    def note(self, text: str) -> None:
        """What is not data: to standard error."""
        if not self.quiet:
            _write(f"{text}\n", sys.stderr)


def json_mode(asked: str, *, tty: bool) -> str:
    return ("pretty" if tty else "short") if asked == "auto" else asked


def choose_style(env: Mapping[str, str], stream: TextIO) -> Style:
    encoding = (stream.encoding or "").lower().replace("-", "")
    return Style(colour=has_colour(env, tty=stream.isatty()), symbols=encoding == "utf8")


def has_colour(env: Mapping[str, str], *, tty: bool) -> bool:
    """$SYSTEMD_COLORS is an order; without it $NO_COLOR, a dumb terminal or no terminal mean none."""
    wish = env.get("SYSTEMD_COLORS", "").lower()
    if wish in TRUE:
        return True
    if wish in FALSE or env.get("NO_COLOR"):
        return False
    return tty and env.get("TERM", "dumb") != "dumb"


def pager_cmd(env: Mapping[str, str]) -> tuple[str, ...]:
    """argv, or nothing. Under sudo only less, in its secure mode: another pager would be a shell for root."""
    if is_elevated(env):
        return ("less",)
    wish = next((env[name] for name in ("SYSTEMD_PAGER", "PAGER") if name in env), "less")
    return () if wish.strip() in ("", "cat") else tuple(wish.split())


def pager_env(env: Mapping[str, str]) -> dict[str, str]:
    return {**env, "LESS": env.get("SYSTEMD_LESS", "FRSXMK"), **({"LESSSECURE": "1"} if is_elevated(env) else {})}


def is_elevated(env: Mapping[str, str]) -> bool:
    return os.geteuid() == 0 and "SUDO_UID" in env


def _write(text: str, stream: TextIO | None = None) -> None:
    """A reader that has enough and leaves changes nothing of what the exit status is to say."""
    stream = stream or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _page(command: Sequence[str], text: str) -> bool:
    from autokmod.run import page  # subprocess costs start-up that most calls do not need

    return page(command, text, pager_env(os.environ))


def _overflows(lines: Sequence[str]) -> bool:
    return sys.stdout.isatty() and len(lines) >= os.get_terminal_size(sys.stdout.fileno()).lines
