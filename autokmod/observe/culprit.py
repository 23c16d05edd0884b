"""The name that an error is about: the function that is not declared, the member that is not there. Pure.

The sentences are those of gcc, clang, modpost, the linkers and make. Kernel interfaces come and go by name: the name
is what a person looks up in the kernel's history.
"""

from __future__ import annotations

import re

_QUOTED = r"[\u2018'`\"](?P<name>[^\u2019'`\"]+)[\u2019'\"]"
_SENTENCES = tuple(
    re.compile(sentence.replace("@", _QUOTED))
    for sentence in (
        r"implicit declaration of function @",
        r"call to undeclared (?:library )?function @",
        r"has no member named @",
        r"no member named @ in ",
        r"field designator @ does not refer to any field",
        r"use of undeclared (?:identifier|label) @",
        r"^@ undeclared",
        r"unknown type name @",
        r"too (?:few|many) arguments to function @",
        r"passing argument \d+ of @",
        r"conflicting types for @",
        r"redefinition of @",
        r"static declaration of @ follows",
        r"^@ used but never defined",
        r"(?:undefined|incomplete) type @",
        r"incomplete definition of type @",
        r"(?:tentative definition|variable) has (?:incomplete )?type @",
        r"^(?:@ file not found|(?P<header>\S+\.h): No such file or directory)",
        r"modpost: @ \[\S+\] undefined!",
        r"ERROR: @ \[\S+\] undefined!",  # modpost before 5.8
        r"modpost: .*uses symbol (?P<name>\w+) from namespace",
        r"modpost: .*uses GPL-only symbol @",
        r"undefined reference to @",
        r"undefined symbol: (?P<name>\S+)",
        r"No rule to make target @",
    )
)


def name_in(text: str) -> str | None:
    """A type comes with its `struct` or `union`. None where the sentence names nothing of the kind."""
    match = next((m for s in _SENTENCES if (m := s.search(text))), None)
    if match is None:
        return None
    names = match.groupdict()
    return names.get("name") or names.get("header")
