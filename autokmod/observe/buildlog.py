"""The first errors in the log of a failed build, as a person would pick them. Pure.

Compilers, modpost, configure and patch say what is wrong; that a program is missing or a rule cannot be made says
less; that make ended with an error says nothing, and is taken only where nothing better is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from autokmod.model import BuildError
from autokmod.observe.culprit import name_in

MAX_ERRORS = 5
MAX_TEXT = 300
NOTHING_SAID = BuildError("", 0, "it failed without printing anything")

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LAST = 20_000  # characters at the end, for want of anything better
LONGEST = 2000  # characters of a line that are looked at: matching takes its square
# Not behind a comment's sign: so scripts show what the compiler said of what they only tried.
_COMPILER = re.compile(
    r"(?!(?://|#)\s)(?P<file>[^\s:][^:]*):(?P<line>\d+):(?:\d+:)? (?:fatal error|error|Error): (?P<text>.+)"
)
_CLEAR = (
    re.compile(r"(?P<text>(?:ERROR|FATAL): modpost: .+)"),
    re.compile(r'(?P<text>ERROR: "\S+" \[\S+\] undefined!)'),  # modpost before 5.8
    re.compile(r"(?:\S*/)?(?P<text>configure: error: .+)"),
    re.compile(r"(?P<text>patch: \*\*\*\* .+)"),
    re.compile(r"(?P<text>Hunk #\d+ FAILED at .+)"),
    re.compile(r"(?P<text>can't find file to patch at input line \d+)"),
    re.compile(r"(?P<text>cc1: (?:fatal )?error: .+)"),
    re.compile(r"(?P<file>[^\s:]+):(?:\(\S+\)|(?P<line>\d+)): (?P<text>undefined reference to .+)"),
    re.compile(r"(?:\S*/)?(?P<text>(?:ld|ld\.lld|\S*-ld)(?:\.bfd)?: (?!warning|\S+: in function).+)"),
    re.compile(r"(?:\S*/)?(?P<text>(?:clang|gcc|cc|\S*-gcc)[-\d.]*: (?:fatal )?error: .+)"),
    re.compile(r"(?P<text>error: .+)"),  # rustc, objtool
    re.compile(r"(?P<file>[^\s:]+\.o): (?P<text>error: objtool: .+)"),
    re.compile(r"autokmod: (?!the \S+ script ended)(?P<text>.+)"),
)
_VAGUE = (
    re.compile(r"(?P<file>[^\s:]+):(?P<line>\d+): \*\*\* (?P<text>.+?)\s*Stop\."),
    re.compile(r"make(?:\[\d+\])?: \*\*\* (?P<text>No rule to make target .+?)\.?\s*(?:Stop\.)?"),
    re.compile(r"(?P<text>.*: (?:command )?not found)"),
    re.compile(r"(?P<text>(?:make|sh|bash|/bin/sh|env)\S*: .*No such file or directory)"),
    re.compile(r"(?P<text>.*: (?:Permission denied|No space left on device|Read-only file system))"),
    re.compile(r"(?P<text>.*(?:Killed|out of memory|Cannot allocate memory|Resource temporarily unavailable).*)"),
)
# Anything that calls itself an error, and that a script failed: after what the script itself said.
_LOOSE = (
    re.compile(r"(?P<text>\W*(?:Error|ERROR)[:!] .+)"),
    re.compile(r"autokmod: (?P<text>.+)"),
)
# A log may have a million lines: what no pattern below could match is passed over at one look.
_WORTH = re.compile(
    r"error|Error|ERROR|FATAL|FAILED|undefined reference|\*\*\*|not found|No such file|No space|denied|Read-only|"
    r"Killed|emory|unavailable|find file to patch|ld\b.*: |autokmod: "
)
_MAKE = (re.compile(r"(?P<text>make(?:\[\d+\])?: \*\*\* .+)"),)
_NOISE = re.compile(r"make(?:\[\d+\])?: (?:Entering|Leaving) directory|==> ")


def find_errors(log: str, shorten: Sequence[str] = ()) -> tuple[BuildError, ...]:
    """At least one. Paths that begin with one of `shorten` (the build directory's names) are given without it."""
    lines = [_clean(line) for line in log.splitlines() if _WORTH.search(line)]
    for patterns in ((_COMPILER, *_CLEAR), _VAGUE, _LOOSE, _MAKE):
        found = tuple(_first(_matching(lines, patterns), shorten))
        if found:
            return found
    last = [text for line in log[-LAST:].splitlines() if (text := _clean(line)) and not _NOISE.match(text)]
    return tuple(BuildError("", 0, text[:MAX_TEXT]) for text in last[-3:]) or (NOTHING_SAID,)


def _clean(line: str) -> str:
    return _ESCAPES.sub("", line[:LONGEST]).strip()


def _matching(lines: Iterable[str], patterns: Sequence[re.Pattern[str]]) -> Iterator[re.Match[str]]:
    for line in lines:
        match = next((m for p in patterns if (m := p.fullmatch(line))), None)
        if match is not None:
            yield match


def _first(matches: Iterable[re.Match[str]], shorten: Sequence[str]) -> Iterator[BuildError]:
    """Each once: an error in a header comes with every file that includes it."""
    seen: set[BuildError] = set()
    for match in matches:
        error = _error(match, shorten)
        if error not in seen:
            seen.add(error)
            yield error
        if len(seen) == MAX_ERRORS:
            return


def _error(match: re.Match[str], shorten: Sequence[str]) -> BuildError:
    groups = match.groupdict()
    file, text = groups.get("file") or "", groups["text"].strip()
    for prefix in shorten:
        file = file.removeprefix(f"{prefix.rstrip('/')}/")
        text = text.replace(f"{prefix.rstrip('/')}/", "")
    line = groups.get("line") or "0"
    return BuildError(file.removeprefix("./")[:MAX_TEXT], int(line[:9]), text[:MAX_TEXT], name_in(text[:MAX_TEXT]))
