"""The object on the bus: a thin coat around the core, as io.github.autokmod.AutoKmod1.xml describes it.

Its attributes and signals are touched on the loop's thread only; what looks at the disk or changes something is
`threaded`; what changes something names the action that the caller must be permitted: `changes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from autokmod import __version__
from autokmod.daemon.authorize import Action
from autokmod.daemon.bus import INTERFACE, NAME, signal
from autokmod.daemon.calls import alone, changes, threaded
from autokmod.daemon.core import Core, Standing
from autokmod.daemon.variants import record
from autokmod.decide.boot import boot_word
from autokmod.jsonvalue import to_json
from autokmod.model import Reason

XML = files("autokmod.daemon").joinpath(f"{NAME}.xml").read_text(encoding="utf-8")
LONGEST_LOG = 1 << 20  # characters; compilers complain last of what ended them
ENDED = "ended"  # the state of a job that is not in the queue any more

Record = dict[str, Any]


class Manager:
    JobNew = signal()
    JobChanged = signal()
    JobProgress = signal()
    JobRemoved = signal()
    ReadinessChanged = signal()
    PropertiesChanged = signal()

    def __init__(self, core: Core) -> None:
        self._core = core
        self.Version = __version__
        self.State = "starting"
        self.NJobs = 0
        self.ConfigurationError = ""
        self.NextBootKernel = ""
        self.NextBootReadiness = "unknown"
        self.NextBootReason: Record = {}
        self.NextBootLoader = self.NextBootEntry = ""
        self.BootGuard: Record = {}
        self.ThisBoot = "unknown"

    def update(self, values: Mapping[str, Any]) -> None:
        """Set properties and tell about those that are other than before."""
        changed = {name: value for name, value in values.items() if getattr(self, name) != value}
        for name, value in changed.items():
            setattr(self, name, value)
        if changed:
            self.PropertiesChanged(INTERFACE, changed, [])

    def tell_standing(self, standing: Standing) -> None:
        """What the next boot takes, what the boot guard does about it, and what this boot made of its promises."""
        taken = next((s for s in standing.kernels if s.next_boot), None)
        self.update(
            {
                "NextBootKernel": taken.krel if taken else "",
                "NextBootReadiness": taken.readiness.value if taken else "unknown",
                "NextBootReason": record(to_json(standing.next_boot.reason)),
                "NextBootLoader": standing.next_boot.loader,
                "NextBootEntry": standing.next_boot.entry,
                "BootGuard": record({**to_json(standing.guard), **to_json(standing.limits)}),
                "ThisBoot": boot_word(next((s.booted for s in standing.kernels if s.running), None)),
            }
        )

    @threaded
    def ListKernels(self) -> list[Record]:
        return [record(to_json(status)) for status in self._core.kernels()]

    @threaded
    def ListPackages(self) -> list[Record]:
        return [record(to_json(package)) for package in self._core.packages()]

    @threaded
    def ListNeighbours(self) -> list[Record]:
        return [record(to_json(neighbour)) for neighbour in self._core.neighbours()]

    @threaded
    def ListJobs(self) -> list[Record]:
        return [record(to_json(job)) for job in self._core.jobs()]

    @threaded
    def GetJob(self, job_id: int) -> Record:
        job, result = self._core.find_job(job_id)
        if result is None:
            return record(to_json(job))
        return record({**to_json(job), "state": ENDED, "result": result.result, "message": result.message})

    @threaded
    def Explain(self, package: str, krel: str) -> Record:
        placement = self._core.explain(package, krel)
        if placement is not None:
            return record(to_json(placement))
        hint = f"autokmodctl reconcile {krel}"
        reason = Reason("not-examined", "it was not examined for this kernel yet", hint=hint)
        return record({"package": package, "reasons": [to_json(reason)]})

    @threaded
    def ReadLog(self, package: str, krel: str) -> tuple[str, str]:
        path, text = self._core.log(package, krel)
        return str(path), text[-LONGEST_LOG:].replace("\0", "?")

    @threaded
    def GetSigning(self) -> Record:
        return record(self._core.signing())

    @alone
    def Verify(self, krels: list[str]) -> list[Record]:
        found = self._core.verify(krels).items()
        return [record({"krel": k, "files": count, "problems": to_json(problems)}) for k, (count, problems) in found]

    @changes(Action.RECONCILE)
    def Reconcile(self, krels: list[str], force: bool) -> list[int]:  # noqa: FBT001
        return self._core.reconcile(krels, force=force)

    @changes(Action.COLLECT, unless=lambda dry_run: dry_run)
    def CollectGarbage(self, dry_run: bool) -> Record:  # noqa: FBT001
        return record(to_json(self._core.collect(dry_run=dry_run)))

    @changes(Action.CANCEL)
    def CancelJob(self, job_id: int) -> None:
        self._core.cancel(job_id)

    @changes(Action.RESTORE)
    def RestoreInitrd(self, krel: str) -> Record:
        done = self._core.restore_initrd(krel)
        return record({"krel": done.krel, "good": done.initrd_ok, "word": to_json(done.initrd)})
