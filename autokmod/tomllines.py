"""On which line of a TOML text a key stands: tomllib does not tell, and whoever mends a file wants to know. Pure.

The text is one that tomllib has read, so that nothing is checked here.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Mapping

Key = tuple[str | int, ...]  # ("patch", 1, "when", "kernel"): of the second [[patch]]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_PART = re.compile(r"""[ \t]*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))[ \t]*""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{1,2}(?!"))?' r"|'''.*?'''(?:'{1,2}(?!'))?" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE = re.compile(r"[^,\]}\n#]*")


def key_lines(text: str) -> Mapping[Key, int]:
    """From every key, table and item of a list to its line, counted from 1."""
    scanner = _Scanner(text)
    with contextlib.suppress(RecursionError):  # lists in lists without end: what is found by then is enough
        scanner.scan()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.pos = text, 0
        self.lines: dict[Key, int] = {}
        self._counts: dict[Key, int] = defaultdict(int)  # of [[…]] with this key
        self._seen = (0, 1)  # a position and its line

    def scan(self) -> None:
        table: Key = ()
        while self._skip() < len(self.text):
            if self.text[self.pos] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Key:
        line, is_array = self._line(), self.text.startswith("[[", self.pos)
        self.pos += 2 if is_array else 1
        parts = self._dotted()
        self.pos += 2 if is_array else 1
        key = self._resolved(parts[:-1]) + parts[-1:]
        if is_array:
            self.lines.setdefault(key, line)
            key = (*key, self._counts[key])
            self._counts[key[:-1]] += 1
        elif key in self._counts:
            key = (*key, self._counts[key] - 1)
        self.lines.setdefault(key, line)
        return key

    def _resolved(self, parts: Key) -> Key:
        """[a.b] below [[a]] is of the latest a."""
        key: Key = ()
        for part in parts:
            key = (*key, part)
            if key in self._counts:
                key = (*key, self._counts[key] - 1)
        return key

    def _pair(self, table: Key) -> None:
        line, parts = self._line(), self._dotted()
        for end in range(1, len(parts) + 1):
            self.lines.setdefault(table + parts[:end], line)
        self.pos += 1  # =
        self._value(table + parts)

    def _dotted(self) -> Key:
        parts: list[str] = []
        while (found := _PART.match(self.text, self.pos)) is not None:
            parts.append(next(group for group in found.groups() if group is not None))
            self.pos = found.end()
            if not self.text.startswith(".", self.pos):
                break
            self.pos += 1
        return tuple(parts)

    def _value(self, key: Key) -> None:
        self._skip()
        opening = self.text[self.pos : self.pos + 1]
        if opening == "[":
            self._items(key, "]")
        elif opening == "{":
            self._items(key, "}")
        else:
            found = _STRING.match(self.text, self.pos) or _BARE.match(self.text, self.pos)
            self.pos = found.end() if found else len(self.text)

    def _items(self, key: Key, closing: str) -> None:
        """Of a list, or the pairs of an inline table."""
        self.pos += 1
        index = 0
        while self._skip() < len(self.text) and self.text[self.pos] != closing:
            before = self.pos
            if closing == "}":
                self._pair(key)
            else:
                self.lines[(*key, index)] = self._line()
                self._value((*key, index))
            index += 1
            self._skip()
            self.pos += self.text.startswith(",", self.pos)
            if self.pos == before:  # no TOML: whoever checks it says so
                self.pos = len(self.text)
        self.pos += 1

    def _skip(self) -> int:
        found = _BLANK.match(self.text, self.pos)
        self.pos = found.end() if found else self.pos
        return self.pos

    def _line(self) -> int:
        position, line = self._seen
        self._seen = (self.pos, line + self.text.count("\n", position, self.pos))
        return self._seen[1]
