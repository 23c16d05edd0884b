"""Which kind of event each outcome of a package is in the journal."""

from __future__ import annotations

import pytest
import structlog

from autokmod.events import Event
from autokmod.jobs.announce import announce
from autokmod.model import DecisionKind, KernelRecord, Placement, Reason

A = "6.1.0-1-amd64"


def said(kind: DecisionKind, reason: str, *, failed: bool = False) -> list[tuple[Event | None, str]]:
    why = (Reason(reason, "a sentence"),)
    placement = Placement("evdi", "1", kind, why, None, None, None, 0, (), verified=False, failed=failed)
    with structlog.testing.capture_logs() as entries:
        announce(None, KernelRecord(A, 0.0, (placement,)))
    return [(e["kind"], e["log_level"]) for e in entries]


@pytest.mark.parametrize(
    ("kind", "reason", "failed", "event", "level"),
    [
        (DecisionKind.BLOCKED, "recipe-broken", False, Event.PACKAGE_BROKEN, "warning"),
        (DecisionKind.BLOCKED, "source-unreadable", False, Event.PACKAGE_BROKEN, "warning"),
        (DecisionKind.BLOCKED, "no-signing-key", False, Event.PACKAGE_BLOCKED, "warning"),
        (DecisionKind.WAIT, "no-headers", False, Event.PACKAGE_WAITING, "warning"),
        (DecisionKind.BUILD, "build-failed", True, Event.BUILD_FAILED, "error"),
        (DecisionKind.BUILD, "other-file-wins", True, Event.FOREIGN_FILE, "error"),
        (DecisionKind.LINK, "placement-failed", True, Event.PLACEMENT_FAILED, "error"),
        (DecisionKind.SKIP, "disabled", False, None, "info"),
        (DecisionKind.BUILD, "no-build", False, Event.PACKAGE_BUILT, "notice"),
    ],
)
def test_kinds(kind: DecisionKind, reason: str, failed: bool, event: Event | None, level: str) -> None:
    assert said(kind, reason, failed=failed) == [(event, level)]
