"""Values as text for people. Nothing here reads or prints."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autokmod.config import BootGuardConfig
from autokmod.ctl.terminal import Style
from autokmod.decide.boot import boot_sentence
from autokmod.model import DecisionKind, GuardState, KernelState, KernelStatus, Placement, Readiness, Reason

RED, GREEN, YELLOW, BLUE, GREY, BOLD = "31", "32", "33", "34", "90", "1"
MARKS = {  # readiness → symbol, the same in ASCII, colour
    Readiness.READY: ("●", "*", GREEN),
    Readiness.PENDING: ("○", "o", BLUE),
    Readiness.WAITING: ("○", "o", YELLOW),
    Readiness.DEGRADED: ("●", "!", YELLOW),
    Readiness.NOT_READY: ("\N{MULTIPLICATION SIGN}", "x", RED),
}
STATES = {
    KernelState.COMPLETE: "",
    KernelState.NO_HEADERS: "no headers",
    KernelState.NO_IMAGE: "no boot image",
    KernelState.HEADERS_ONLY: "only headers",
    KernelState.INCOMPLETE: "incomplete",
}
MAX_PACKAGES = 20  # of one kernel, before those in order are only counted
MAX_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    colour: str = ""


def clean(text: str) -> str:
    """Names come from the disk: nothing in them may steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def paint(text: str, colour: str, style: Style) -> str:
    return f"\033[{colour}m{text}\033[0m" if style.colour and colour and text else text


def table(
    rows: Iterable[Sequence[Cell | str]], style: Style, *, header: Sequence[str] = (), indent: str = ""
) -> list[str]:
    """Columns as wide as they need be; no blanks at line ends."""
    head = [[Cell(name, BOLD) for name in header]] if header else []
    cells = head + [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    widths = [max(len(clean(c.text)) for c in column) for column in zip(*cells, strict=True)] if cells else []
    return [indent + _row(row, widths, style) for row in cells]


def _row(row: Sequence[Cell], widths: Sequence[int], style: Style) -> str:
    last = max((i for i, cell in enumerate(row) if cell.text), default=-1)
    parts = []
    for i, (cell, width) in enumerate(zip(row[: last + 1], widths, strict=False)):
        text = clean(cell.text)
        parts.append(paint(text, cell.colour, style) + " " * (width - len(text) if i < last else 0))
    return "  ".join(parts)


def when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "-"


# ---- kernels -------------------------------------------------------------------------------------


def mark(readiness: Readiness, style: Style) -> str:
    symbol, plain, colour = MARKS[readiness]
    return paint(symbol if style.symbols else plain, colour, style)


def readiness_cell(status: KernelStatus) -> Cell:
    """Headers alone are no kernel: the word would promise one."""
    if status.state is KernelState.HEADERS_ONLY:
        return Cell("-", GREY)
    return Cell(status.readiness, MARKS[status.readiness][2])


def remarks(status: KernelStatus) -> str:
    words = ("running" if status.running else "", "next boot" if status.next_boot else "", STATES[status.state])
    return ", ".join(w for w in words if w)


def machine_lines(statuses: Sequence[KernelStatus], style: Style, *, full: bool) -> Iterator[str]:
    """One block a kernel. `full`: every package, also of a kernel with many."""
    width = max((len(clean(s.krel)) for s in statuses), default=0)
    for status in statuses:
        yield _headline(status, width, style)
        yield from _package_lines(status, style, full=full)
        yield from _boot_lines(status)
        yield from (line for reason in status.reasons for line in reason_lines(reason, style, indent="    "))


def _boot_lines(status: KernelStatus) -> Iterator[str]:
    if status.booted is not None and not status.booted.is_about_nothing:
        yield f"    {clean(boot_sentence(status.booted))}"


def _headline(status: KernelStatus, width: int, style: Style) -> str:
    sign = " " if status.state is KernelState.HEADERS_ONLY else mark(status.readiness, style)
    name = clean(status.krel)
    word = readiness_cell(status)
    tail = f"  ({remarks(status)})" if remarks(status) else ""
    return f"{sign} {paint(name, BOLD, style)}{' ' * (width - len(name))}  {paint(word.text, word.colour, style)}{tail}"


def _package_lines(status: KernelStatus, style: Style, *, full: bool) -> Iterator[str]:
    shown = [p for p in status.placements if full or len(status.placements) <= MAX_PACKAGES or not _in_order(p)]
    for placement, line in zip(shown, table(map(_package_row, shown), style, indent="    "), strict=True):
        yield line
        yield from error_lines(placement, style, indent="        ")
    if len(shown) < len(status.placements):
        yield f"    {len(status.placements) - len(shown)} more in order: see 'autokmodctl status {clean(status.krel)}'"


def _package_row(placement: Placement) -> tuple[Cell | str, ...]:
    """Why it was built at all says nothing of how it stands; what is not in order is said below."""
    telling = _in_order(placement) and placement.reasons and placement.reasons[0].kind != "no-build"
    why = placement.reasons[0].text if telling else ""
    return (placement.package, placement.version, placement_cell(placement), Cell(why, GREY))


def _in_order(placement: Placement) -> bool:
    return placement.kind is DecisionKind.SKIP or placement.is_good


def placement_cell(placement: Placement) -> Cell:
    """What stands there, in a word or two."""
    if placement.failed:
        return Cell("failed", RED)
    if placement.kind in _WORDS:
        word, colour = _WORDS[placement.kind]
        return Cell(word, colour)
    if not placement.is_good:
        return Cell("not in place", RED)
    return Cell(f"linked to {placement.link_from}" if placement.link_from else "built", GREEN)


_WORDS = {
    DecisionKind.SKIP: ("skipped", GREY),
    DecisionKind.WAIT: ("waits", YELLOW),
    DecisionKind.BLOCKED: ("blocked", RED),
}


def reason_lines(reason: Reason, style: Style, *, indent: str) -> Iterator[str]:
    yield f"{indent}{clean(reason.text)}"
    if reason.hint:
        arrow = "→" if style.symbols else "->"
        yield f"{indent}  {arrow} {paint(clean(reason.hint), BOLD, style)}"


def error_lines(placement: Placement, style: Style, *, indent: str, limit: int = MAX_ERRORS) -> Iterator[str]:
    for error in placement.errors[:limit]:
        where = f"{error.file}:{error.line}: " if error.file else ""
        yield indent + paint(clean(f"{where}{error.text}"), RED, style)
    if len(placement.errors) > limit:
        yield f"{indent}and {len(placement.errors) - limit} more"


# ---- the boot guard -------------------------------------------------------------------------------


def guard_sentences(state: GuardState, limits: BootGuardConfig) -> tuple[str, ...]:
    """Lines of `status`; none where there is nothing to say."""
    return tuple(s for s in (guard_sentence(state, limits), kept_out_sentence(state, limits)) if s is not None)


def kept_out_sentence(state: GuardState, limits: BootGuardConfig) -> str | None:
    if not state.kept_out:
        return None
    each = ", ".join(f"{k.kernel} ({k.why.text})" for k in state.kept_out)
    bound = f"until they are ready, or for {limits.hold_limit_s / 3600:g} hours"
    return f"boot guard: no boot entry yet: {each}; {bound}"


def guard_sentence(state: GuardState, limits: BootGuardConfig) -> str | None:
    hold = state.hold
    if hold is not None:
        left = f"given up after {limits.time_limit_s / 86400:g} days or {limits.boot_limit} boots"
        return f"boot guard: {hold.keeps} is the default while {hold.kernel} is not ready ({hold.why.text}); {left}"
    if state.problem is not None:
        return f"boot guard: cannot help: {state.problem.text}"
    if state.given_up:
        return f"boot guard: given up on {', '.join(state.given_up)}, which may be booted without what is required"
    return None
