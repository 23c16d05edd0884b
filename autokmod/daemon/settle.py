"""When to look: not in the middle of an unpacking, and not never."""

from __future__ import annotations

PATIENCE_S = 120.0  # what changes without end is looked at after so long all the same


def wait_s(changed_at: float, hinted_at: float, now: float, settle_s: float) -> float:
    """How long to wait for something that changed last at `changed_at`; 0 when it has come to rest.

    `hinted_at`: since when there is a reason to look. A change in the future says only that a clock was wrong.
    """
    remaining = changed_at + settle_s - now
    if now - hinted_at >= PATIENCE_S or remaining > settle_s:
        return 0.0
    return max(remaining, 0.0)
