"""How the journal is told of a kernel's readiness."""

from __future__ import annotations

from autokmod import journal
from autokmod.events import Event
from autokmod.model import KernelStatus, Readiness

SAYINGS = {
    Readiness.READY: ("info", Event.KERNEL_READY, "is ready: it may be booted"),
    Readiness.WAITING: ("warning", Event.KERNEL_WAITING, "waits"),
    Readiness.DEGRADED: ("warning", Event.KERNEL_DEGRADED, "lacks something that is not required"),
    Readiness.NOT_READY: ("error", Event.KERNEL_NOT_READY, "is not ready to be booted"),
}

log = journal.get()


def say(status: KernelStatus) -> None:
    """Pending is on the way to something else: no event, and the daemon keeps it to itself."""
    level, kind, sentence = SAYINGS.get(status.readiness, ("info", None, "is not finished"))
    why = f": {status.reasons[0].text}" if status.reasons else ""
    getattr(log, level)(f"{status.krel} {sentence}{why}", kind=kind, krel=status.krel, result=status.readiness.value)
