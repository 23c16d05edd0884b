"""What changed on a kernel, said once in the journal: one sentence a package, found by its kind."""

from __future__ import annotations

from autokmod import journal
from autokmod.decide.why import FAILURES
from autokmod.events import Event
from autokmod.model import DecisionKind, KernelRecord, Placement, Reason

# What only the package's own files are to blame for.
BROKEN = ("recipe-broken", "bad-package-name", "source-unreadable")
# An initrd that is not right, by the kind of the word on it; of every other kind, making it did not succeed.
INITRD = {
    "initrd-stale": Event.INITRD_STALE,
    "initrd-restored": Event.INITRD_STALE,
    "initrd-away": Event.INITRD_AWAY,
    "initrd-opaque": Event.INITRD_AWAY,
    "initrd-gone": Event.INITRD_GONE,
    "initrd-untold": Event.INITRD_UNTOLD,
}

log = journal.get()


def announce(old: KernelRecord | None, new: KernelRecord) -> None:
    before = {p.package: p for p in old.placements} if old else {}
    for placement in new.placements:
        if before.get(placement.package) != placement:
            _say(new.krel, placement)
    if new.initrd is not None and (old is None or old.initrd != new.initrd):
        _say_initrd(new.krel, new.initrd, good=new.initrd_ok)


def announce_promotion(old: KernelRecord, new: KernelRecord, owner: str) -> None:
    """Of who took the files over; who is now linked to them has what it had."""
    for placement in new.placements:
        if placement not in old.placements and placement.reasons[:1] and placement.reasons[0].kind == "promoted":
            log.notice(
                f"{new.krel}: took over {placement.package} from {owner}, where it is being removed or replaced",
                kind=Event.MODULES_PROMOTED,
                krel=new.krel,
                package=placement.package,
            )


def announce_lost(package: str, owner: str, why: str) -> None:
    log.error(
        f"{package}: other kernels link to its files in {owner}, which are being removed or replaced, "
        f"and they cannot be taken over: {why}",
        kind=Event.PLACEMENT_FAILED,
        krel=owner,
        package=package,
    )


def _say(krel: str, placement: Placement) -> None:
    why = placement.reasons[0] if placement.reasons else Reason("unknown", "no reason is known")
    fields = {
        "krel": krel,
        "package": placement.package,
        "version": placement.version,
        "decision": placement.kind,
        "result": _result(placement),
    }
    sentence = f"{placement.package}/{placement.version} on {krel}: {_what(placement)}: {why.text}"
    if placement.log:
        fields["log"] = placement.log
    if placement.failed:
        log.error(sentence, kind=_failure(why), **fields)
    elif placement.kind is DecisionKind.WAIT:
        log.warning(sentence, kind=Event.PACKAGE_WAITING, **fields)
    elif placement.kind is DecisionKind.BLOCKED:
        log.warning(sentence, kind=Event.PACKAGE_BROKEN if why.kind in BROKEN else Event.PACKAGE_BLOCKED, **fields)
    elif placement.kind is DecisionKind.SKIP or placement.standing:
        log.info(sentence, kind=None, **fields)
    else:
        log.notice(sentence, kind=Event.PACKAGE_LINKED if placement.link_from else Event.PACKAGE_BUILT, **fields)


def _result(placement: Placement) -> str:
    if placement.failed:
        return "failed"
    if placement.is_good:
        return "verified"
    return "former" if placement.standing and placement.files else "absent"


def _what(placement: Placement) -> str:
    if placement.failed:
        return "not ready"
    if placement.standing and placement.kind is DecisionKind.BUILD:
        return "to be built"
    if placement.link_from and not placement.standing:
        return f"linked to {placement.link_from}"
    words = {
        DecisionKind.BLOCKED: "blocked",
        DecisionKind.WAIT: "waiting",
        DecisionKind.SKIP: "skipped",
        DecisionKind.BUILD: "built",
    }
    return words.get(placement.kind, "in place")


def _failure(why: Reason) -> Event:
    if why.kind in FAILURES:
        return Event.BUILD_FAILED
    return Event.FOREIGN_FILE if why.kind == "other-file-wins" else Event.PLACEMENT_FAILED


def _say_initrd(krel: str, word: Reason, *, good: bool) -> None:
    if not good and word.kind != "initrd-due":
        log.error(f"{krel}: {word.text}", kind=INITRD.get(word.kind, Event.INITRD_FAILED), krel=krel)
    elif word.kind in ("initrd-refreshed", "initrd-overlaid"):
        log.notice(f"{krel}: {word.text}", kind=Event.INITRD_REFRESHED, krel=krel)
