"""The daemon: hints come in, jobs go through, everybody is told. All of it on the loop's thread.

What takes time is left to others: jobs to the worker, looks at the disk to one background thread, slow calls to the
bus's pool. They answer by posting to the loop.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from autokmod import journal
from autokmod.config import Config, LogLevel
from autokmod.daemon import logcontrol
from autokmod.daemon.bus import Bus, BusUnavailable
from autokmod.daemon.core import Core
from autokmod.daemon.judge import Judge
from autokmod.daemon.late import Late
from autokmod.daemon.logcontrol import LogControl
from autokmod.daemon.logind import Logind
from autokmod.daemon.loop import Loop
from autokmod.daemon.notify import notify, notify_status, watchdog_s
from autokmod.daemon.service import XML, Manager
from autokmod.daemon.settle import wait_s
from autokmod.daemon.watcher import Watcher
from autokmod.daemon.watchlist import Hint
from autokmod.errors import ConfigError
from autokmod.events import Event
from autokmod.jobs.queue import Change, ChangeKind
from autokmod.model import Job, JobState
from autokmod.paths import Paths

GUARD_S = 3600.0  # between two looks of the boot guard
log = journal.get()


class App:
    def __init__(
        self, paths: Paths, config: Config, *, log_level: LogLevel | None = None, use_bus: bool = True
    ) -> None:
        self.loop = Loop()
        self.core = Core(
            paths,
            config,
            changed=lambda change: self.loop.post(self._job_changed, change),
            progress=lambda job, text: self.loop.post(self._progress, job, text),
            ended=lambda: self.loop.post(self._worker_ended),
            publishing=lambda krel: self._logind.publishing(krel) if self._logind else nullcontext(),
            working=lambda job: self._logind.working(self.core.config, job) if self._logind else nullcontext(),
            idle=lambda: self._logind.rest() if self._logind else None,
        )
        self.manager = Manager(self.core)
        self._paths, self._log_level, self._use_bus = paths, log_level, use_bus
        self._background = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._bus: Bus | None = None
        self._logind: Logind | None = None
        self._watcher: Watcher | None = None
        self._jobs: dict[int, Job] = {}
        self._judge = Judge(paths, self.core, self.manager, self.loop, self._do)
        self._take_up_due = False
        self._hinted_at = self._last_hint = 0.0
        self._timer: int | None = None
        self._late = Late(self.loop, self._compare_boot)
        self._stopping = False

    # ---- life ------------------------------------------------------------------------------------

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, self._stop)
        self.loop.on_signal(signal.SIGHUP, self._reload)
        try:
            self._watch()
            self._serve()
            self._look("boot", time.time())
            self._guard()
            self.core.worker.start()
            self._feed_watchdog()
            self._tell_state()
            notify("READY=1")
            return self.loop.run()
        finally:
            self._close()

    def _watch(self) -> None:
        try:
            self._watcher = Watcher(self._paths)
        except OSError as exc:
            log.warning(
                f"nothing can be watched for changes: {exc.strerror}; new kernels are still noticed through the "
                "package manager's hooks",
                kind=Event.WATCH_LIMIT,
            )
            return
        self.loop.on_readable(self._watcher.fileno(), self._watched)

    def _serve(self) -> None:
        """Raises NameTaken: two daemons would do each job twice."""
        if not self._use_bus:
            return
        try:
            self._bus = Bus()
            self._bus.on_lost(lambda: self.loop.post(self._bus_lost))
            self._bus.add(LogControl(), logcontrol.XML, logcontrol.PATH)
            self._bus.add(self.manager, XML)
            self._bus.take_name()
            self._logind = Logind(self._bus.connection)
            self._logind.on_shutdown(self._prepare_for_shutdown)
        except BusUnavailable as exc:
            log.warning(f"{exc}; going on without it", kind=Event.NO_BUS)

    def _bus_lost(self) -> None:
        """It comes back with other services; a restart finds it, and the jobs are in the spool."""
        if not self._stopping:
            log.error("the system bus went away; leaving, to be started again", kind=Event.NO_BUS)
            self.loop.exit_code = 1
            self._stop()

    def _prepare_for_shutdown(self, is_going: bool) -> None:  # noqa: FBT001
        """What runs goes on as long as it may; what is queued is autokmod-flush.service's."""
        log.info("the machine goes down: no new job is begun" if is_going else "the machine stays up: jobs go on")
        self.core.worker.hold(on=is_going)

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        notify("STOPPING=1")
        self.manager.update({"State": "stopping"})
        self.core.worker.stop()

    def _worker_ended(self) -> None:
        if not self._stopping:
            log.error("the worker ended unexpectedly; leaving, to be started again", kind=Event.INTERNAL_ERROR)
        self.loop.quit(0 if self._stopping else 1)

    def _close(self) -> None:
        if self.core.worker.is_alive():
            self.core.worker.stop()
            self.core.worker.join()
        self.core.worker.close()
        self._background.shutdown(cancel_futures=True)
        if self._bus:
            self._bus.close()
        if self._watcher:
            self._watcher.close()

    def _feed_watchdog(self) -> None:
        seconds = watchdog_s()
        if seconds is not None:
            notify("WATCHDOG=1")
            self.loop.after(seconds, self._feed_watchdog)

    # ---- configuration ---------------------------------------------------------------------------

    def _reload(self) -> None:
        self._do(self.core.reload, self._reloaded)

    def _reloaded(self, result: Future[Config]) -> None:
        error = result.exception()
        if isinstance(error, ConfigError):
            log.error(f"{error}; the last good configuration stays in use", kind=Event.CONFIG_WRONG)
            self.manager.update({"ConfigurationError": str(error)})
            return
        config = result.result()
        if self.manager.ConfigurationError:
            log.notice("the configuration is right again")
        self.manager.update({"ConfigurationError": ""})
        journal.set_level(self._log_level or config.daemon.log_level)
        self._look("config", time.time())

    # ---- hints -----------------------------------------------------------------------------------

    def _watched(self) -> None:
        hints = self._watcher.read() if self._watcher else frozenset()
        if Hint.SPOOL in hints and not self._take_up_due:  # once for all that comes until that begins
            self._take_up_due = True
            self._do(self._take_up, self._checked)
        if Hint.CONFIG in hints:
            self._reload()
        if hints & {Hint.KERNELS, Hint.SOURCES}:
            self._hinted()

    def _take_up(self) -> None:
        self._take_up_due = False
        self.core.take_up()

    def _hinted(self) -> None:
        """Look when there was no hint for a while: one look for all that a package manager does."""
        self._last_hint = time.time()
        if self._timer is None:
            self._hinted_at = self._last_hint
            self._look_in(self.core.config.daemon.settle_s)

    def _look_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.after(seconds, self._look_now)

    def _look_now(self) -> None:
        self._timer = None
        wait = wait_s(self._last_hint, self._hinted_at, time.time(), self.core.config.daemon.settle_s)
        if wait:
            self._look_in(wait)
        else:
            self._look("watcher", self._hinted_at)

    def _look(self, why: str, hinted_at: float) -> None:
        self._hinted_at = hinted_at
        self._do(lambda: (self.core.compare_boot(), self.core.look(why, hinted_at)), self._looked)

    def _looked(self, result: Future[tuple[bool, float | None]]) -> None:
        is_open, wait = result.result()
        self._late.looked(is_open=is_open)
        if wait is not None:
            self._look_in(wait)
        self._judge.due()

    def _compare_boot(self) -> None:
        self._do(lambda: (self.core.compare_boot(), None), self._looked)

    # ---- telling ---------------------------------------------------------------------------------

    def _job_changed(self, change: Change) -> None:
        job = change.job
        if change.kind is ChangeKind.REMOVED:
            self._jobs.pop(job.id, None)
            self.manager.JobRemoved(job.id, job.name, change.result.result if change.result else "")
        else:
            self._jobs[job.id] = job
            if change.kind is ChangeKind.NEW:
                self.manager.JobNew(job.id, job.name)
            else:
                self.manager.JobChanged(job.id, job.name, job.state.value)
        self._tell_state()
        if change.kind is ChangeKind.REMOVED:
            self._compare_boot()
        elif job.state is not JobState.RUNNING:
            self._judge.due()

    def _progress(self, job: Job, text: str) -> None:
        self.manager.JobProgress(job.id, text)
        notify_status(text)

    def _tell_state(self) -> None:
        running = [job for job in self._jobs.values() if job.state is JobState.RUNNING]
        state = "stopping" if self._stopping else "running" if running else "idle"
        self.manager.update({"State": state, "NJobs": len(self._jobs)})
        if not self._stopping:
            doing = f"working on {running[0].krel}" if running else "idle"
            waiting = len(self._jobs) - len(running)
            notify_status(f"{doing}, {waiting} queued" if waiting else doing)

    def _guard(self) -> None:
        """Also without any job: its limits are of time and boots."""
        self._do(self.core.guard, self._guarded)
        self.loop.after(GUARD_S, self._guard)

    def _guarded(self, result: Future[None]) -> None:
        result.result()
        self._judge.due()

    def _checked(self, result: Future[Any]) -> None:
        result.result()

    def _do(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """On the background thread; its outcome comes back to the loop, where `result()` raises what it raised."""
        if not self._stopping:
            self._background.submit(work).add_done_callback(lambda future: self.loop.post(then, future))
