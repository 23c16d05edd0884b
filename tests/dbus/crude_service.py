"""A service on the real shim whose methods are slow, fail, or mutter: what the daemon's own ones should never be."""

from __future__ import annotations

import os
import sys
import threading

from autokmod.daemon.bus import INTERFACE, Bus, signal
from autokmod.daemon.calls import Caller, threaded
from autokmod.daemon.loop import Loop
from autokmod.daemon.notify import notify
from autokmod.daemon.variants import record
from autokmod.errors import UnknownKernel

XML = f"""<node><interface name="{INTERFACE}">
  <property name="Count" type="u" access="readwrite"/>
  <method name="Meet"><arg type="u" direction="in"/><arg type="u" direction="out"/></method>
  <method name="Quick"><arg type="u" direction="out"/></method>
  <method name="Pair"><arg type="s" direction="out"/><arg type="i" direction="out"/></method>
  <method name="Nothing"/>
  <method name="Break"/>
  <method name="BreakThreaded"/>
  <method name="Misfit"><arg type="u" direction="out"/></method>
  <method name="Own"/>
  <method name="Who"><arg type="u" direction="out"/></method>
  <method name="Record"><arg type="a{{sv}}" direction="out"/></method>
  <signal name="Told"><arg type="s"/></signal>
</interface></node>"""


class Crude:
    Told = signal()
    PropertiesChanged = signal()
    Count = 7

    def __init__(self) -> None:
        self._barrier: threading.Barrier | None = None
        self._lock = threading.Lock()

    @threaded
    def Meet(self, number: int) -> int:
        """Returns when so many are inside at the same time."""
        with self._lock:
            self._barrier = self._barrier or threading.Barrier(number)
        self._barrier.wait(60)
        return number

    def Quick(self) -> int:
        return self._barrier.n_waiting if self._barrier else 0

    def Pair(self) -> tuple[str, int]:
        return "one", -1

    def Nothing(self) -> None:
        self.Told("nothing")

    def Break(self) -> None:
        raise ValueError("a secret of the program")

    @threaded
    def BreakThreaded(self) -> None:
        raise ValueError("a secret of the program")

    def Misfit(self) -> str:
        return "not a number"

    @threaded
    def Own(self) -> None:
        raise UnknownKernel("6.1")

    @threaded
    def Who(self, *, caller: Caller) -> int:
        return caller.uid

    def Record(self) -> dict[str, object]:
        value = {
            "text": "é\udcff\0", "whole": 3, "negative": -3, "real": 0.5, "true": True, "none": None,
            "texts": ["a", "b"], "records": [{"a": 1}], "empty": [], "inner": {"b": "c"}, "mixed": [1, "a"],
        }  # fmt: skip
        return record(value)


def main() -> int:
    loop = Loop()
    bus = Bus()
    bus.add(Crude(), XML)
    bus.take_name()
    bus.on_lost(loop.quit)
    notify("READY=1")
    return loop.run()


if __name__ == "__main__":
    sys.stdout = os.fdopen(1, "w", 1)
    sys.exit(main())
