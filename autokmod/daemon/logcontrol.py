"""org.freedesktop.LogControl1: `systemctl service-log-level autokmodd debug`, until the next start or configuration."""

from __future__ import annotations

from autokmod import journal
from autokmod.config import LogLevel
from autokmod.errors import UsageError

INTERFACE = "org.freedesktop.LogControl1"
PATH = "/org/freedesktop/LogControl1"
XML = f"""<node name="{PATH}"><interface name="{INTERFACE}">
  <property name="LogLevel" type="s" access="readwrite">
    <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="false"/>
  </property>
  <property name="LogTarget" type="s" access="readwrite">
    <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="false"/>
  </property>
  <property name="SyslogIdentifier" type="s" access="read">
    <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="false"/>
  </property>
</interface></node>"""

# syslog(3) has levels above our worst.
LEVELS: dict[str, LogLevel] = {
    "emerg": "error", "alert": "error", "crit": "error", "err": "error",
    "warning": "warning", "notice": "notice", "info": "info", "debug": "debug",
}  # fmt: skip
NAMES: dict[LogLevel, str] = {"error": "err"}

log = journal.get()


class LogControl:
    """Its properties may be written, by root: see bus.py."""

    writable = frozenset({"LogLevel", "LogTarget"})
    SyslogIdentifier = journal.IDENTIFIER

    @property
    def LogLevel(self) -> str:
        return NAMES.get(journal.level(), journal.level())

    @property
    def LogTarget(self) -> str:
        return journal.target()

    def write(self, name: str, value: str) -> None:
        """Raises UsageError."""
        if name == "LogTarget":
            if value not in ("auto", journal.target()):
                raise UsageError(f"messages go to the {journal.target()}, and cannot go to {value!r}")
            return
        if value not in LEVELS:
            raise UsageError(f"{value!r} is no level: {', '.join(LEVELS)}")
        log.notice(f"messages are written from level {value!r} on")
        journal.set_level(LEVELS[value])
