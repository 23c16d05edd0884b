"""Where the daemon's sentences go: into the journal with fields, or as readable lines to a terminal or pipe.

    log = journal.get()
    log.info("v4l2loopback/0.12.7: linked for 6.1.0-56", kind=Event.PACKAGE_LINKED, krel=krel, package="v4l2loopback")

`kind` becomes MESSAGE_ID, `krel` AUTOKMOD_KERNEL, `duration_s` AUTOKMOD_DURATION_USEC, `log` AUTOKMOD_LOG_PATH, any
other keyword AUTOKMOD_<KEYWORD>. The sentence says everything a person needs; the fields are for searching.
Logging never raises.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol, TextIO, cast, get_args

import structlog

from autokmod.config import LogLevel
from autokmod.events import Event
from autokmod.journald import SOCKET, JournalSocket, is_journal

PRIORITY = {"debug": 7, "info": 6, "notice": 5, "warning": 4, "error": 3}
IDENTIFIER = "autokmodd"
FIELDS = {"krel": "KERNEL", "log": "LOG_PATH"}
COLOURS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "notice": "\x1b[1m", "debug": "\x1b[2m"}
RESET = "\x1b[0m"
# What a compiler or a file name may bring along: nothing may steer the reader's terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

context = structlog.contextvars.bound_contextvars  # with context(job=…): … gives the fields to all that is said inside


class Logger(structlog.BoundLoggerBase):
    """structlog's bound logger with the journal's levels."""

    def debug(self, message: str, **fields: Any) -> None:
        self._proxy_to_logger("debug", message, **fields)

    def info(self, message: str, **fields: Any) -> None:
        self._proxy_to_logger("info", message, **fields)

    def notice(self, message: str, **fields: Any) -> None:
        self._proxy_to_logger("notice", message, **fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._proxy_to_logger("warning", message, **fields)

    def error(self, message: str, **fields: Any) -> None:
        self._proxy_to_logger("error", message, **fields)

    def exception(self, message: str, **fields: Any) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self._proxy_to_logger("error", message, exc_info=True, **fields)


@dataclass(frozen=True, slots=True)
class Entry:
    level: str
    message: str
    fields: tuple[tuple[str, str], ...]  # by their names in the journal, MESSAGE and PRIORITY not among them


class Sink(Protocol):
    def write(self, entry: Entry) -> None: ...


def get() -> Logger:
    return cast("Logger", structlog.get_logger())


def setup(
    level: LogLevel = "info",
    *,
    identifier: str = IDENTIFIER,
    journald: bool = False,
    stream: TextIO | None = None,
    env: Mapping[str, str] = os.environ,
    socket_path: str = SOCKET,
) -> None:
    """To be called once, by an entry point. `stream` is standard error unless given.

    `journald`: there if it listens, whatever standard error is; else only if standard error leads there.
    """
    set_level(level)
    out = stream if stream is not None else sys.stderr
    sink: Sink = LineSink(stream, colour=_wants_colour(out, env))
    _level.target = "console"
    if journald or is_journal(_fileno(out), env):
        sink = JournalSink(JournalSocket(socket_path), identifier, stream)
        _level.target = "journal"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _level,
            structlog.processors.format_exc_info,
            _to_entry,
        ],
        wrapper_class=Logger,
        logger_factory=lambda *_: _Output(sink),
        cache_logger_on_first_use=False,
    )


def set_level(level: LogLevel) -> None:
    _level.highest = PRIORITY[level]


def level() -> LogLevel:
    return next(name for name in get_args(LogLevel) if PRIORITY[name] == _level.highest)


def target() -> str:
    """As systemd names it: "journal" or "console"."""
    return _level.target


# ---- from keywords to an entry -------------------------------------------------------------------


@dataclass(slots=True)
class _Level:
    highest: int = PRIORITY["info"]
    target: str = "console"

    def __call__(self, _: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if PRIORITY[method] > self.highest:
            raise structlog.DropEvent
        return event


_level = _Level()


def _to_entry(_: Any, method: str, event: MutableMapping[str, Any]) -> tuple[tuple[Entry], dict[str, Any]]:
    message = str(event.pop("event"))
    if trace := event.pop("exception", None):
        message = f"{message}\n{trace}"
    kind = event.pop("kind", None)
    fields = [("MESSAGE_ID", str(kind.value))] if isinstance(kind, Event) else []
    fields += [_field(name, value) for name, value in event.items() if value is not None]
    return (Entry(method, message, (*fields, *_call_site())),), {}


def _field(name: str, value: Any) -> tuple[str, str]:
    if name == "duration_s":
        return "AUTOKMOD_DURATION_USEC", str(round(value * 1e6))
    return f"AUTOKMOD_{FIELDS.get(name, name.upper())}", str(value)


def _call_site() -> list[tuple[str, str]]:
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_logging(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    code = frame.f_code
    return [("CODE_FILE", code.co_filename), ("CODE_LINE", str(frame.f_lineno)), ("CODE_FUNC", code.co_name)]


def _is_logging(module: str) -> bool:
    return module == __name__ or module.partition(".")[0] == "structlog"


@dataclass(frozen=True, slots=True)
class _Output:
    """structlog's innermost logger: it is called by the name of the level."""

    sink: Sink

    def debug(self, entry: Entry) -> None:
        self.sink.write(entry)

    info = notice = warning = error = debug


# ---- where entries go ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LineSink:
    """One line an entry. The fields that the sentence does not name follow in brackets."""

    stream: TextIO | None  # None: whatever standard error is at that time
    colour: bool

    def write(self, entry: Entry) -> None:
        head = f"{entry.level}: " if entry.level in ("warning", "error") else ""
        rest = [f"{_short(n)}={v}" for n, v in entry.fields if _is_news(n, v, entry.message)]
        sentence, newline, trace = entry.message.partition("\n")
        line = CONTROL.sub("?", head + sentence + (f" [{', '.join(rest)}]" if rest else "") + newline + trace)
        paint = COLOURS.get(entry.level, "") if self.colour else ""
        _write(self.stream, f"{paint}{line}{RESET if paint else ''}\n")


@dataclass(frozen=True, slots=True)
class JournalSink:
    """Without journald the sentence alone goes to the stream, with the level as sd-daemon(3) writes it."""

    journal: JournalSocket
    identifier: str
    stream: TextIO | None

    def write(self, entry: Entry) -> None:
        level = str(PRIORITY[entry.level])
        head = (("MESSAGE", entry.message), ("PRIORITY", level), ("SYSLOG_IDENTIFIER", self.identifier))
        try:
            self.journal.send((*head, *entry.fields))
        except (OSError, ValueError):
            lines = CONTROL.sub("?", entry.message).splitlines() or [""]
            _write(self.stream, "".join(f"<{level}>{line}\n" for line in lines))


def _is_news(name: str, value: str, message: str) -> bool:
    """A job's name, where no daemon numbers them, only repeats the kernel."""
    is_ours = name.startswith("AUTOKMOD_") and value not in message
    return is_ours and (name != "AUTOKMOD_JOB" or value.isdigit())


def _short(field: str) -> str:
    return field.removeprefix("AUTOKMOD_").lower()


def _write(stream: TextIO | None, text: str) -> None:
    out = stream or sys.stderr
    encoding = out.encoding or "utf-8"
    # Nowhere is left to complain to when standard error is closed or full.
    with contextlib.suppress(OSError, ValueError):
        out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()


def _fileno(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1


def _wants_colour(stream: TextIO, env: Mapping[str, str]) -> bool:
    """no-color.org; a dumb terminal has none."""
    return not env.get("NO_COLOR") and env.get("TERM", "dumb") != "dumb" and stream.isatty()


setup()  # so that a tool or test that never calls it gets lines on standard error, not structlog's on standard output
