"""How the kernels stand: looked at once for all that happens until that begins, and told where it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from autokmod import journal
from autokmod.daemon.core import Core, Standing
from autokmod.daemon.loop import Loop
from autokmod.daemon.sayings import SAYINGS, say
from autokmod.daemon.service import Manager
from autokmod.events import Event
from autokmod.model import KernelState, KernelStatus, Readiness
from autokmod.observe.atwork import find_package_manager
from autokmod.paths import Paths

Do = Callable[[Callable[[], Any], Callable[[Any], None]], None]
REMOVED = "removed"  # the readiness of a kernel that is gone
TRANSACTION_S = 20.0  # between two looks at a kernel that a package manager is unpacking
log = journal.get()


class Judge:
    """On the loop's thread, but for the look itself: `do` has that done elsewhere, and its outcome come back."""

    def __init__(self, paths: Paths, core: Core, manager: Manager, loop: Loop, do: Do) -> None:
        self._paths, self._core, self._manager, self._loop, self._do = paths, core, manager, loop, do
        self._kernels: Mapping[str, KernelStatus] = {}
        self._said: dict[str, Readiness] = {}
        self._is_due = False
        self._timer: int | None = None

    def due(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._do(self._look, self.judged)

    def _look(self) -> tuple[Standing, bool]:
        """And whether a package manager is at work."""
        self._is_due = False
        in_transaction = find_package_manager(self._paths) is not None
        return self._core.standing(), in_transaction

    def judged(self, result: Future[tuple[Standing, bool]]) -> None:
        before = self._kernels
        standing, in_transaction = result.result()
        self._kernels = {status.krel: status for status in standing.kernels}
        self._manager.tell_standing(standing)
        for krel in sorted(before.keys() - self._kernels.keys()):
            self._tell_gone(krel)
        for krel, status in self._kernels.items():
            if krel not in before or before[krel].readiness is not status.readiness:
                self._manager.ReadinessChanged(krel, status.readiness.value)
            if not (in_transaction and status.state is KernelState.INCOMPLETE):
                self._say(status)
            else:  # it is being unpacked, which is no reason for alarm
                self._later()

    def _tell_gone(self, krel: str) -> None:
        self._said.pop(krel, None)
        log.info(f"{krel} is gone", kind=Event.KERNEL_REMOVED, krel=krel)
        self._manager.ReadinessChanged(krel, REMOVED)

    def _say(self, status: KernelStatus) -> None:
        """Pending is on the way to something else, and not worth a word."""
        if status.readiness in SAYINGS and self._said.get(status.krel) is not status.readiness:
            self._said[status.krel] = status.readiness
            say(status)

    def _later(self) -> None:
        """However many kernels are being unpacked, and however often they are looked at meanwhile."""
        if self._timer is None:
            self._timer = self._loop.after(TRANSACTION_S, self._now)

    def _now(self) -> None:
        self._timer = None
        self.due()
