"""release boot-guard: the default boot entry, and the boot menu, as they would be without autokmod."""

from __future__ import annotations

import time
from collections.abc import Iterator

from autokmod.config import Config
from autokmod.config_load import load_config
from autokmod.ctl.jobs import may_write_spool
from autokmod.ctl.render import clean
from autokmod.ctl.terminal import Output
from autokmod.ctl.view import FAILED, OK
from autokmod.errors import ConfigError, NotAuthorized
from autokmod.jobs.bootguard import release_guard
from autokmod.jsonvalue import to_json
from autokmod.model import GuardState
from autokmod.observe.bootguard import read_guard
from autokmod.paths import Paths

BOOT_GUARD = "boot-guard"


def release_boot_guard(paths: Paths, output: Output, *, dry_run: bool) -> int:
    """Raises AutokmodError, OSError."""
    if dry_run:
        before, after = read_guard(paths), GuardState()
    elif not may_write_spool(paths):
        raise NotAuthorized("release the boot guard")
    elif paths.boot_guard.exists():
        before, after = release_guard(paths, _config(paths), time.time())
    else:
        before, after = GuardState(), GuardState()
    if output.json != "off":
        output.data({"before": to_json(before), "after": to_json(after), "dry_run": dry_run})
    else:
        output.lines([clean(line) for line in _lines(before, after, dry_run=dry_run)])
        if before.hold is None and not before.kept_out:
            output.note("The boot guard keeps nothing: nothing to do.")
    return FAILED if after.hold is not None or after.kept_out else OK


def _config(paths: Paths) -> Config:
    """One that is broken must not keep what autokmod has changed."""
    try:
        return load_config(paths)
    except ConfigError:
        return Config()


def _lines(before: GuardState, after: GuardState, *, dry_run: bool) -> Iterator[str]:
    outside = {kept.kernel: kept for kept in after.kept_out}
    if before.hold is not None and after.hold is None:
        keeps = before.hold.keeps
        yield f"{keeps} would not be kept as the default" if dry_run else f"{keeps} is not kept as the default any more"
    for krel in (kept.kernel for kept in before.kept_out):
        if krel in outside:
            yield f"{krel} has no boot entry: {outside[krel].why.text}"
        else:
            yield f"{krel} would get its boot entry" if dry_run else f"{krel} has its boot entry"
