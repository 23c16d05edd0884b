"""watch: what the daemon does, line by line, as it says it on the bus."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from autokmod.ctl.render import clean, when
from autokmod.ctl.terminal import JSON_VERSION
from autokmod.ctl.view import OK, output_of, paths_of
from autokmod.errors import AutokmodError, DaemonUnavailable
from autokmod.observe.machine import is_daemon_running

# Signal → what JSON calls the event, and its arguments.
EVENTS = {
    "JobNew": ("job-new", ("id", "name")),
    "JobChanged": ("job-changed", ("id", "name", "state")),
    "JobProgress": ("job-progress", ("id", "text")),
    "JobRemoved": ("job-removed", ("id", "name", "result")),
    "ReadinessChanged": ("readiness-changed", ("krel", "readiness")),
}
DAEMON = "daemon"  # here (the first event), left, or came back


def add_parser(sub: Any) -> None:
    watch = sub.add_parser(
        "watch",
        help="show what autokmodd does, as it happens",
        description="Show what autokmodd does, line by line, as it happens: jobs that come, run and end, what they are "
        "at, and how kernels stand; first the jobs that are there. Until Ctrl-C. With --json one object a line.",
    )
    watch.set_defaults(run=run_watch)


def run_watch(args: argparse.Namespace) -> int:
    output, is_json = output_of(args), args.json != "off"
    if not is_daemon_running(paths_of(args)):
        raise DaemonUnavailable
    for event in News().follow():
        text = json.dumps({"version": JSON_VERSION, **event}) if is_json else as_line(event)
        if not output.quiet and not _is_written(text):
            break
    return OK


def _is_written(line: str) -> bool:
    """False: whoever read has enough."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115  # for the interpreter, which flushes it at its end
        return False
    return True


@dataclass(slots=True)
class News:
    """Events as JSON has them: "at", "event", what the signal tells, and of which job."""

    names: dict[int, str] = field(default_factory=dict)  # of the jobs that were heard of

    def follow(self) -> Iterator[dict[str, Any]]:
        """Raises DaemonUnavailable."""
        from autokmod.ctl import client  # gi is slow to import, and missing in small systems

        for signal, arguments in client.follow():
            event = self.event(signal, arguments)
            if event is not None:
                if event.get("result") == "failed":
                    event |= _why(event["id"])
                yield {"at": time.time(), **event}

    def event(self, signal: str, arguments: Sequence[Any]) -> dict[str, Any] | None:
        """None for a signal that a newer daemon may have, and of which nothing is known here."""
        if signal == "NameOwnerChanged":
            return {"event": DAEMON, "state": "came" if arguments[2] else "left"}
        if signal not in EVENTS:
            return {"event": DAEMON, "state": signal} if signal == "here" else None
        name, keys = EVENTS[signal]
        event = {"event": name, **dict(zip(keys, arguments, strict=False))}
        if "name" in event:
            self.names[event["id"]] = event["name"]
        elif "id" in event:
            event["name"] = self.names.get(event["id"], f"job {event['id']}")
        if signal == "JobRemoved":
            del self.names[event["id"]]
        return event


def _why(number: int) -> dict[str, str]:
    from autokmod.ctl import client  # as above

    try:
        return {"message": client.get_job(number).get("message", "")}
    except AutokmodError:  # it left in the meantime
        return {}


def as_line(event: dict[str, Any]) -> str:
    what = {
        "job-new": "queued",
        "job-changed": event.get("state"),
        "job-progress": event.get("text"),
        "job-removed": event.get("result"),
        "readiness-changed": event.get("readiness"),
        DAEMON: event.get("state"),
    }[event["event"]]
    about = event.get("name") or event.get("krel") or "autokmodd"
    why = f": {event['message']}" if event.get("message") else ""
    return clean(f"{when(event['at'])}  {about}  {what}{why}")
