"""What the test machine says (init.c has the grammar), as values."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field


class MachineError(Exception):
    """The machine itself failed, so there is no answer: no QEMU, no boot, a garbled line."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one insertion."""

    name: str
    result: int  # errno, or a tool's exit status
    accepted: bool  # by the loader; a result other than 0 is the module's own then
    log: tuple[str, ...]  # what the kernel said meanwhile


@dataclass(frozen=True, slots=True)
class Answer:
    case: str
    outcome: Outcome | None  # None: crashed
    needs: tuple[Outcome, ...] = ()
    last_words: str = ""  # of a crash

    @property
    def crashed(self) -> bool:
        return self.outcome is None


@dataclass
class Transcript:
    """One boot: feed it line by line."""

    nonce: str
    answers: dict[str, Answer] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)  # what could not be removed, what of the log was lost
    release: str = ""
    over: bool = False  # it went down by itself, as it should
    case: str | None = None  # in progress
    _number: int = 0
    _log: list[str] = field(default_factory=list)
    _needs: list[Outcome] = field(default_factory=list)

    def take(self, line: str) -> None:
        """Raises MachineError for a line of the protocol that is damaged, or that others are missing before."""
        nonce, _, rest = line.partition(" ")
        if nonce == self.nonce:
            kind, _, value = self._checked(rest).partition(" ")
            getattr(self, f"_{kind}")(value)

    def _checked(self, rest: str) -> str:
        number, crc, text = (*rest.split(" ", 2), "", "")[:3]
        if crc != f"{zlib.crc32(text.encode('utf-8', 'surrogateescape')):08x}":
            raise MachineError(f"a damaged line: {rest}")
        self._number += 1
        if number != str(self._number):
            raise MachineError(f"event {self._number} is missing before: {rest}")
        return text

    def end(self, last_words: str) -> None:
        """The output has ended. What was in progress has crashed the machine."""
        if self.case is not None:
            self.answers[self.case] = Answer(self.case, None, tuple(self._needs), last_words)
        elif not self.over:
            self.troubles.append(f"went down between two cases: {last_words}")

    # ---- events

    def _boot(self, release: str) -> None:
        self.release = release

    def _case(self, case: str) -> None:
        self.case, self._needs = case, []
        self._log.clear()

    def _kmsg(self, text: str) -> None:
        self._log.append(text)

    def _lost(self, _: str) -> None:
        self.troubles.append(f"some of the kernel's log is lost in case {self.case}")

    def _needed(self, text: str) -> None:
        self._needs.append(self._outcome(text))

    def _inserted(self, text: str) -> None:
        if self.case is None:
            raise MachineError(f"an insertion of no case: {text}")
        self.answers[self.case] = Answer(self.case, self._outcome(text), tuple(self._needs))
        self.case = None

    def _outcome(self, text: str) -> Outcome:
        name, result, accepted = text.rsplit(" ", 2)
        log = tuple(self._log)
        self._log.clear()
        return Outcome(name, int(result), accepted == "1", log)

    def _removed(self, text: str) -> None:
        name, result = text.rsplit(" ", 1)
        if result != "0":
            self.troubles.append(f"{name} cannot be removed (errno {result})")
            self.over = True

    def _end(self, _: str) -> None:
        self.over = True

    def _broken(self, why: str) -> None:
        raise MachineError(f"inside the machine: {why}")
