"""POSIX extended regular expressions, by the C library, as depmod itself matches a kernel's release.

Python's `re` differs in syntax and can take exponential time on a hostile pattern; regexec(3) does neither, once
back-references and repetition counts are left out.
"""

from __future__ import annotations

REG_EXTENDED, REG_NOSUB = 1, 8  # the same in glibc and musl
MAX_PATTERN = 128


def matches(pattern: str, text: str) -> bool:
    """False also for a pattern that does not compile. Raises ValueError for one that is not tried."""
    if len(pattern) > MAX_PATTERN or "{" in pattern or any(f"\\{d}" in pattern for d in "123456789"):
        raise ValueError(pattern)
    import ctypes  # heavy, and hardly any configuration needs it

    libc = ctypes.CDLL(None)
    compiled = ctypes.create_string_buffer(1024)  # a regex_t has 64 bytes or fewer
    if libc.regcomp(compiled, pattern.encode(), REG_EXTENDED | REG_NOSUB) != 0:
        return False
    try:
        return bool(libc.regexec(compiled, text.encode(), 0, None, 0) == 0)
    finally:
        libc.regfree(compiled)
