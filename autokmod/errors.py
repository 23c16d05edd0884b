"""One exception tree. Fields in the constructor, the sentence in __str__.

`exit_code` is autokmodctl's exit status, `dbus_name` the last part of the D-Bus error's name. Each is
translated once, at its boundary.
"""

from __future__ import annotations

from collections.abc import Sequence


class AutokmodError(Exception):
    exit_code = 1
    dbus_name = "Failed"


class UsageError(AutokmodError):
    exit_code = 2
    dbus_name = "InvalidArgs"


class ConfigError(AutokmodError):
    """A configuration file is wrong: which file, which key, why, and the nearest known key if there is one."""

    exit_code = 78  # EX_CONFIG
    dbus_name = "InvalidConfig"

    def __init__(self, path: str, key: str, why: str, line: int = 0) -> None:
        super().__init__(path, key, why, line)
        self.path, self.key, self.why, self.line = path, key, why, line

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {self.key}: {self.why}" if self.key else f"{where}: {self.why}"


class UnknownKernel(AutokmodError):
    exit_code = 4
    dbus_name = "UnknownKernel"

    def __init__(self, krel: str) -> None:
        super().__init__(krel)
        self.krel = krel

    def __str__(self) -> str:
        return f"no kernel {self.krel} on this machine: see 'autokmodctl list-kernels'"


class UnknownPackage(AutokmodError):
    exit_code = 4
    dbus_name = "UnknownPackage"

    def __init__(self, package: str) -> None:
        super().__init__(package)
        self.package = package

    def __str__(self) -> str:
        return f"no package {self.package} on this machine: see 'autokmodctl list-packages'"


class UnknownJob(AutokmodError):
    exit_code = 4
    dbus_name = "UnknownJob"

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.job = job

    def __str__(self) -> str:
        return f"no job {self.job}: see 'autokmodctl list-jobs'"


class NotInstalled(AutokmodError):
    """Who is to be adopted is not here."""

    exit_code = 4
    dbus_name = "NotInstalled"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name} is not installed: there is nothing to adopt"


class NotAuthorized(AutokmodError):
    dbus_name = "NotAuthorized"

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action

    def __str__(self) -> str:
        return f"not permitted to {self.action}: try it as root"


class FormatError(AutokmodError):
    """A file is not what it should be: .ko, symvers, job file, manifest. `offset` in bytes where known."""

    dbus_name = "BadFormat"

    def __init__(self, path: str, what: str, offset: int | None = None) -> None:
        super().__init__(path, what, offset)
        self.path, self.what, self.offset = path, what, offset

    def __str__(self) -> str:
        where = f" at offset {self.offset}" if self.offset is not None else ""
        return f"{self.path}: {self.what}{where}"


class RecipeError(AutokmodError):
    """A package's recipe cannot be used: which file, which key, what is wrong."""

    dbus_name = "BadRecipe"

    def __init__(self, path: str, key: str, why: str, line: int = 0) -> None:
        super().__init__(path, key, why, line)
        self.path, self.key, self.why, self.line = path, key, why, line

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {self.key}: {self.why}" if self.key else f"{where}: {self.why}"


class FactMissing(RecipeError):
    """A recipe asks for a fact of the kernel that cannot be read: the recipe is sound, and what it means unknown."""


class ToolMissing(AutokmodError):
    dbus_name = "ToolMissing"

    def __init__(self, tool: str, hint: str = "") -> None:
        super().__init__(tool, hint)
        self.tool, self.hint = tool, hint

    def __str__(self) -> str:
        return f"{self.tool} is not installed" + (f": {self.hint}" if self.hint else "")


class CommandFailed(AutokmodError):
    """A command did not do its work. `returncode` is negative for a signal, None for the time limit."""

    dbus_name = "CommandFailed"

    def __init__(self, argv: Sequence[str], returncode: int | None, tail: str) -> None:
        super().__init__(tuple(argv), returncode, tail)
        self.argv, self.returncode, self.tail = tuple(argv), returncode, tail

    @property
    def was_killed(self) -> bool:
        """By a signal or at the time limit: nothing that the command itself found wrong."""
        return self.returncode is None or self.returncode < 0

    def __str__(self) -> str:
        if self.returncode is None:
            how = "took longer than its time limit"
        elif self.returncode < 0:
            how = f"was killed by signal {-self.returncode}"
        else:
            how = f"ended with exit status {self.returncode}"
        last = self.tail.strip().splitlines()[-1:] if self.tail else []
        return f"{self.argv[0]} {how}" + (f": {last[0]}" if last else "")


class SandboxUnavailable(AutokmodError):
    """Building is blocked: the sandbox cannot start. `hint` says what to install or set."""

    dbus_name = "SandboxUnavailable"

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why, hint)
        self.why, self.hint = why, hint

    def __str__(self) -> str:
        return f"the build sandbox cannot start: {self.why}; {self.hint}"


class PlacementFailed(AutokmodError):
    """What stands in the modules directory is not what was meant to."""

    dbus_name = "PlacementFailed"

    def __init__(self, krel: str, why: str) -> None:
        super().__init__(krel, why)
        self.krel, self.why = krel, why

    def __str__(self) -> str:
        return f"{self.krel}: {self.why}"


class SigningFailed(AutokmodError):
    """A module could not be signed, so it is not placed either. `hint` says what helps, where that is known."""

    dbus_name = "SigningFailed"

    def __init__(self, key: str, why: str, hint: str | None = None) -> None:
        super().__init__(key, why, hint)
        self.key, self.why, self.hint = key, why, hint

    def __str__(self) -> str:
        return f"it cannot be signed with {self.key}: {self.why}"


class KeyProblem(AutokmodError):
    """What was asked for cannot be done with the signing key: `hint` says what to do instead."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why, hint)
        self.why, self.hint = why, hint

    def __str__(self) -> str:
        return f"{self.why}; {self.hint}" if self.hint else self.why


class DaemonUnavailable(AutokmodError):
    """Client side only."""

    exit_code = 69  # EX_UNAVAILABLE

    def __str__(self) -> str:
        return "autokmodd does not answer: see 'systemctl status autokmodd'"
