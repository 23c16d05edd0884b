"""May this kernel be booted? The worst that is known of it, with every reason, the worst first.

A kernel is ready only if each package that should be there was verified there, and the disk still says so. What was
never looked at, or changed since, is not ready. A skip is not a failure, except where the administrator called the
package required and it was not the administrator who skipped it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from autokmod.config import Config
from autokmod.decide.trust import find_distrust
from autokmod.model import (
    BootCheck,
    DecisionKind,
    Job,
    JobState,
    KernelRecord,
    KernelState,
    KernelStatus,
    Placement,
    Readiness,
    Reason,
    Verb,
)
from autokmod.observe.sight import Sight, Source
from autokmod.versions import is_older

WORST_FIRST = (Readiness.NOT_READY, Readiness.WAITING, Readiness.DEGRADED, Readiness.PENDING, Readiness.READY)
IN_PLACE = (DecisionKind.KEEP, DecisionKind.LINK, DecisionKind.BUILD)
# Kinds of a skip's reason with which nothing is lacking: the administrator's word, another owner's modules that fit.
FINE_SKIPS = ("disabled", "excluded", "foreign-stands")

Finding = tuple[Readiness, Reason]


def decide_readiness(sight: Sight, config: Config, jobs: Sequence[Job]) -> KernelStatus:
    """`jobs`: the whole queue."""
    mine = [j for j in jobs if j.krel == sight.kernel.krel or j.verb is Verb.RESCAN]
    found = sorted([*_findings(sight, config), *_job_findings(sight, mine)], key=lambda f: WORST_FIRST.index(f[0]))
    worst = found[0][0] if found else Readiness.READY
    return KernelStatus(
        krel=sight.kernel.krel,
        state=sight.kernel.state,
        readiness=Readiness.PENDING if _in_hand(sight, mine) else worst,
        running=sight.running,
        next_boot=None,
        reasons=tuple(reason for _, reason in found) + _remarks(sight),
        placements=_placements(sight),
        booted=_booted(sight),
    )


def _booted(sight: Sight) -> BootCheck | None:
    """What an earlier boot made of it says nothing of this one."""
    booted = sight.record.booted if sight.record else None
    return booted if booted is not None and booted.boot_id == sight.boot_id else None


def required_problems(sight: Sight, config: Config) -> tuple[Reason, ...]:
    """Why this kernel should not be booted by default: what it lacks of what is required. What is in hand does not
    make it better."""
    waits = {p.package for p in (sight.record.placements if sight.record else ()) if p.kind is DecisionKind.WAIT}
    waiting = [n for n in sorted(waits) if config.package(n).required and _is_wanted(sight, config, n)]
    found = [reason for grade, reason in _findings(sight, config) if grade is Readiness.NOT_READY]
    found += [Reason("required-waits", f"{name} is required, and waits") for name in waiting]
    return tuple(found)


def is_bootable(status: KernelStatus) -> bool:
    """Whether "may I reboot?" has a meaning for it: headers alone are no kernel."""
    return status.state is not KernelState.HEADERS_ONLY


def _in_hand(sight: Sight, jobs: Sequence[Job]) -> bool:
    """Somebody is on it, or about to be. A job that waits for another try after a failure is not."""
    return sight.kernel.state is not KernelState.HEADERS_ONLY and any(j.state is not JobState.DELAYED for j in jobs)


def _findings(sight: Sight, config: Config) -> Iterator[Finding]:
    kernel, record = sight.kernel, sight.record
    if kernel.state is KernelState.HEADERS_ONLY:
        yield from ((Readiness.WAITING, problem) for problem in _problems(sight))
        return
    if kernel.state is KernelState.INCOMPLETE:
        yield from ((Readiness.NOT_READY, problem) for problem in _problems(sight))
    if record is not None and record.going:
        text = "its removal was announced: autokmod's modules are out of it"
        yield Readiness.NOT_READY, Reason("going", text, hint=_reconcile(sight))
        return
    yield from ((Readiness.NOT_READY, doubt) for doubt in sight.doubts)
    yield from _package_findings(sight, config)
    yield from _absent(sight, config)
    if record is not None and record.index is not None:
        yield Readiness.NOT_READY, record.index
    if record is not None and not record.initrd_ok:
        yield Readiness.NOT_READY, record.initrd or Reason("initrd-failed", "the initrd is not as it should be")


def _problems(sight: Sight) -> tuple[Reason, ...]:
    state = sight.kernel.state
    return sight.kernel.problems or (Reason(str(state), f"what of it is on disk: {state}"),)


def _package_findings(sight: Sight, config: Config) -> Iterator[Finding]:
    placements = sight.record.placements if sight.record else ()
    new = [s for s in sight.sources if _is_new(s, placements) and _is_wanted(sight, config, s.name)]
    if sight.record is None:
        if new and not sight.doubts:
            text = "it was never examined: what its modules need is not known"
            yield Readiness.NOT_READY, Reason("never-examined", text, hint=_reconcile(sight))
        return
    for source in new:
        text = f"{source.id} is not examined yet: it appeared after this kernel was last looked at"
        yield _grade(config, source.name), Reason("not-examined", text, hint=_reconcile(sight))
    for placement in sight.record.placements:
        if _is_wanted(sight, config, placement.package):
            yield from _placement_findings(sight, config, placement)


def _is_new(source: Source, placements: Sequence[Placement]) -> bool:
    """Neither recorded, nor an older version of what is, nor one that was given up for an older one."""
    if any(f"{p.package}-{p.version}" == source.directory for p in placements):
        return False
    if any(p.package == source.name and source.version in p.instead_of for p in placements):
        return False
    return not any(p.package == source.name and is_older(source.version, p.version) for p in placements)


def _is_wanted(sight: Sight, config: Config, name: str) -> bool:
    return config.is_wanted(name, sight.kernel.krel)


def _grade(config: Config, name: str) -> Readiness:
    return Readiness.NOT_READY if config.package(name).required else Readiness.DEGRADED


def _placement_findings(sight: Sight, config: Config, placement: Placement) -> Iterator[Finding]:
    name, grade = placement.package, _grade(config, placement.package)
    changed = sight.changed.get(name, ())
    if placement.kind is DecisionKind.SKIP:
        if grade is Readiness.NOT_READY and not any(r.kind in FINE_SKIPS for r in placement.reasons):
            yield grade, _because(placement, "is required, but skipped", "required-skipped")
    elif placement.failed or placement.kind is DecisionKind.BLOCKED:
        yield grade, _because(placement, "failed" if placement.failed else "is blocked")
    elif placement.kind is DecisionKind.WAIT:
        yield Readiness.WAITING, _because(placement, "waits")
    elif not placement.is_good:
        yield grade, replace(_because(placement, "is not in place yet", "not-verified"), hint=_reconcile(sight))
    distrust = _distrust(sight, placement)
    if distrust is not None:
        yield grade, replace(distrust, text=f"{name} is {distrust.text}")
    yield from ((grade, reason) for reason in changed)


def _distrust(sight: Sight, placement: Placement) -> Reason | None:
    enforced = sight.record.enforced if sight.record else None
    if enforced is None or sight.firmware is None or placement.signed_by is None or not placement.files:
        return None
    return find_distrust(sight.kernel.krel, enforced, placement.signed_by, sight.firmware)


def _because(placement: Placement, what: str, kind: str | None = None) -> Reason:
    """The first reason of the decision, as a sentence about the package."""
    if not placement.reasons:
        return Reason(kind or "no-reason", f"{placement.package} {what}")
    first = placement.reasons[0]
    return replace(first, kind=kind or first.kind, text=f"{placement.package} {what}: {first.text}")


def _absent(sight: Sight, config: Config) -> Iterator[Finding]:
    known = {s.name for s in sight.sources} | {p.package for p in (sight.record.placements if sight.record else ())}
    for name in config.required(sight.kernel.krel):
        if name not in known:
            hint = f"install it, or take 'required' out of /etc/autokmod/packages.d/{name}.toml"
            text = f"{name} is required, and not on this machine"
            yield Readiness.NOT_READY, Reason("required-absent", text, hint=hint)


def _job_findings(sight: Sight, jobs: Sequence[Job]) -> Iterator[Finding]:
    if sight.kernel.state is KernelState.HEADERS_ONLY:
        return
    for job in jobs:
        if job.state is JobState.DELAYED:
            why = f": {job.last_error}" if job.last_error else ""
            yield Readiness.PENDING, Reason("job-delayed", f"it will be tried again by itself{why}")
        else:
            yield Readiness.PENDING, Reason(f"job-{job.state}", f"{_JOB_WORDS[job.verb]} is {job.state} ({job.why})")


_JOB_WORDS = {Verb.RECONCILE: "a job", Verb.REMOVE: "its removal", Verb.RESCAN: "a look at the whole machine"}


def _remarks(sight: Sight) -> tuple[Reason, ...]:
    """What changes nothing, and should be known."""
    problems = sight.kernel.problems if sight.kernel.state is KernelState.NO_IMAGE else ()
    return (*problems, *_initrd_remarks(sight.record))


def _initrd_remarks(record: KernelRecord | None) -> Iterator[Reason]:
    """A good image that a person chose is none that autokmod will keep up by itself."""
    word = record.initrd if record is not None and record.initrd_ok else None
    if word is not None and word.kind == "initrd-restored":
        yield word


def _placements(sight: Sight) -> tuple[Placement, ...]:
    """As recorded, but for what the disk contradicts."""
    recorded = sight.record.placements if sight.record else ()
    return tuple(_as_seen(p, sight.changed.get(p.package, ())) for p in recorded)


def _as_seen(placement: Placement, changed: tuple[Reason, ...]) -> Placement:
    return replace(placement, verified=False, reasons=changed + placement.reasons) if changed else placement


def _reconcile(sight: Sight) -> str:
    return f"autokmodctl reconcile {sight.kernel.krel}"
