"""GRUB's configuration is a program: parsed here into commands, as far as its menu and its default depend on it.

The manual's "Writing full configuration files" has the grammar: words with the shell's quotes and variables, commands
separated by line ends and `;`, if, while, until, for, functions, and blocks in braces after menuentry and submenu.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from autokmod.errors import FormatError

MAX_DEPTH = 50
MAX_TOKENS = 400_000
MAX_BRANCHES = 100  # of one if
MAX_NEGATIONS = 10
NAME = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[?#@*])\}|([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[?#@*]))")
BLANK, ENDS, BRACES = " \t\r", "\n;", "{}"
OUT_OF_PLACE = ("then", "elif", "else", "fi", "do", "done")
SPECIAL = frozenset(BLANK + ENDS + BRACES + "|&<>'\"\\$")


@dataclass(frozen=True, slots=True)
class Part:
    """Of a word: text, or a variable's name. What is not quoted is split at blanks."""

    text: str
    is_variable: bool = False
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    parts: tuple[Part, ...]

    @property
    def plain(self) -> str | None:
        """Its text where nothing in it is quoted or a variable: the only way that keywords are written."""
        if any(p.is_variable or p.quoted for p in self.parts):
            return None
        return "".join(p.text for p in self.parts)


@dataclass(frozen=True, slots=True)
class Command:
    words: tuple[Word, ...]
    body: tuple[Node, ...] | None = None  # of menuentry and submenu


@dataclass(frozen=True, slots=True)
class If:
    branches: tuple[tuple[tuple[Node, ...], tuple[Node, ...]], ...]  # condition, then
    otherwise: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """while, until, for: what it does is not followed."""

    variable: str
    body: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    body: tuple[Node, ...]


Node = Command | If | Loop | Function
Token = Word | str  # a str is a line end or a brace


def parse_script(text: str, path: str) -> tuple[Node, ...]:
    """Raises FormatError."""
    parser = _Parser(_tokenize(text, path), path)
    nodes = parser.nodes(())
    if parser.peek() is not None:
        raise FormatError(path, f"{parser.peek()!r} where a command should be")
    return nodes


# ---- words ---------------------------------------------------------------------------------------


def _tokenize(text: str, path: str) -> list[Token]:
    text = text.replace("\\\n", "")
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char in BLANK:
            at += 1
        elif char == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif char in ENDS:
            tokens.append("\n")
            at += 1
        elif char in BRACES or char in "|&<>":
            tokens.append(char)
            at += 1
        else:
            word, at = _word(text, at, path)
            tokens.append(word)
        if len(tokens) > MAX_TOKENS:
            raise FormatError(path, "too long for a boot loader's configuration")
    return tokens


def _word(text: str, at: int, path: str) -> tuple[Word, int]:
    parts: list[Part] = []
    while at < len(text) and (text[at] not in SPECIAL or text[at] in "'\"\\$"):
        char = text[at]
        if char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise FormatError(path, "a quotation mark without its twin", at)
            parts.append(Part(text[at + 1 : end], quoted=True))
            at = end + 1
        elif char == '"':
            quoted, at = _double_quoted(text, at + 1, path)
            parts += quoted
        elif char == "\\":
            parts.append(Part(text[at + 1 : at + 2], quoted=True))
            at += 2
        elif char == "$":
            part, at = _variable(text, at, quoted=False)
            parts.append(part)
        else:
            end = at
            while end < len(text) and text[end] not in SPECIAL:
                end += 1
            parts.append(Part(text[at:end]))
            at = end
    return Word(tuple(parts)), at


def _double_quoted(text: str, at: int, path: str) -> tuple[list[Part], int]:
    start, parts = at, [Part("", quoted=True)]
    while at < len(text):
        char = text[at]
        if char == '"':
            return parts, at + 1
        if char == "\\" and text[at + 1 : at + 2] in ("\\", '"', "$"):
            parts.append(Part(text[at + 1], quoted=True))
            at += 2
        elif char == "$":
            part, at = _variable(text, at, quoted=True)
            parts.append(part)
        else:
            end = at + 1
            while end < len(text) and text[end] not in '"\\$':
                end += 1
            parts.append(Part(text[at:end], quoted=True))
            at = end
    raise FormatError(path, "a quotation mark without its twin", start)


def _variable(text: str, at: int, *, quoted: bool) -> tuple[Part, int]:
    found = NAME.match(text, at)
    if found is None:
        return Part("$", quoted=quoted), at + 1
    return Part(found[1] or found[2], is_variable=True, quoted=quoted), found.end()


# ---- commands ------------------------------------------------------------------------------------


class _Parser:
    def __init__(self, tokens: Sequence[Token], path: str) -> None:
        self._tokens, self._path, self._at, self._depth = tokens, path, 0, 0

    def peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def nodes(self, ends: Sequence[str]) -> tuple[Node, ...]:
        """To one of these keywords or braces, which is left."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FormatError(self._path, "nested too deeply")
        found: list[Node] = []
        while (token := self._skip_ends()) is not None and self._key(token) not in ends:
            found.append(self._node(token))
        self._depth -= 1
        return tuple(found)

    def _skip_ends(self) -> Token | None:
        while self.peek() == "\n":
            self._at += 1
        return self.peek()

    def _key(self, token: Token | None) -> str | None:
        return token.plain if isinstance(token, Word) else token

    def _expect(self, key: str) -> None:
        token = self._skip_ends()
        if self._key(token) != key:
            raise FormatError(self._path, f"{key!r} is missing before {self._key(token)!r}")
        self._at += 1

    def _node(self, token: Token) -> Node:
        key = self._key(token)
        if key == "if":
            return self._if()
        if key in ("while", "until", "for"):
            return self._loop()
        if key == "function":
            return self._function()
        if key in OUT_OF_PLACE:
            raise FormatError(self._path, f"{key!r} where a command should be")
        return self._command()

    def _if(self) -> If:
        branches = []
        while self._key(self._skip_ends()) in ("if", "elif"):
            self._at += 1
            condition = self.nodes(("then",))
            self._expect("then")
            branches.append((condition, self.nodes(("elif", "else", "fi"))))
            if len(branches) > MAX_BRANCHES:
                raise FormatError(self._path, "an if with too many branches")
        otherwise: tuple[Node, ...] = ()
        if self._key(self._skip_ends()) == "else":
            self._at += 1
            otherwise = self.nodes(("fi",))
        self._expect("fi")
        return If(tuple(branches), otherwise)

    def _loop(self) -> Loop:
        kind = self._key(self.peek())
        self._at += 1
        variable = self._key(self.peek()) or "" if kind == "for" else ""
        condition = self.nodes(("do",))
        self._expect("do")
        body = self.nodes(("done",))
        self._expect("done")
        return Loop(variable, (*(condition if kind != "for" else ()), *body))

    def _function(self) -> Function:
        self._at += 1
        name = self._key(self.peek())
        self._at += 1
        self._expect("{")
        body = self.nodes(("}",))
        self._expect("}")
        return Function(name or "", body)

    def _command(self) -> Command:
        words: list[Word] = []
        body: tuple[Node, ...] | None = None
        while isinstance(token := self.peek(), Word):
            words.append(token)
            self._at += 1
        if token == "{" and words:
            self._at += 1
            body = self.nodes(("}",))
            self._expect("}")
        elif not words or token not in ("\n", None, "}"):
            raise FormatError(self._path, f"{token!r} where a command should be")
        if all(word.plain == "!" for word in words[:MAX_NEGATIONS]) and len(words) > MAX_NEGATIONS:
            raise FormatError(self._path, "too many negations")
        return Command(tuple(words), body)
