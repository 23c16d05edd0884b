"""What the kernel hooks call: the fast path, then the intent for the rest.

    hook add KREL WHY       links and ready builds are placed now; what must be compiled is queued
    hook remove KREL WHY    what others link to is promoted now, and ours taken out of KREL
    hook may-enter KREL IMAGE [INITRD…]
                            status 77: kernel-install is to make no boot entry yet (see config.BootGuardConfig.hold)

Apt and kernel-install wait for this: nothing is compiled, and nothing heavy is imported before it is needed. Whatever
goes wrong on the fast path is the daemon's to mend, so only an intent that could not be recorded is a failure; the
shell script around this then records it by its own means.
"""

from __future__ import annotations

import contextlib
import os
import sys
import syslog
import time
from collections.abc import Sequence
from pathlib import Path

from autokmod.errors import UnknownKernel
from autokmod.jobs.spool import Spool
from autokmod.model import Job, Verb
from autokmod.observe.kernels import is_krel
from autokmod.paths import Paths

VERBS = {"add": Verb.RECONCILE, "remove": Verb.REMOVE}
HOLD = 77  # kernel-install: leave out all that would follow
OPPOSITE = {Verb.RECONCILE: Verb.REMOVE, Verb.REMOVE: Verb.RECONCILE}


def main(argv: Sequence[str] | None = None, paths: Paths | None = None) -> int:
    args = tuple(sys.argv[1:] if argv is None else argv)
    if args[:1] == ("may-enter",) and len(args) > 2 and is_krel(args[1]):
        return may_enter(paths or Paths(), args[1], args[2], args[3:])
    if len(args) != 3 or args[0] not in VERBS or not is_krel(args[1]):
        sys.stderr.write("usage: hook add|remove KREL WHY\n")
        return 2
    return run_hook(paths or Paths(), VERBS[args[0]], args[1], args[2])


def run_hook(paths: Paths, verb: Verb, krel: str, why: str) -> int:
    try:
        is_done = fast_path(paths, verb, krel, why)
    except Exception as exc:  # a boundary: a kernel's installation must not fail for this
        tell(f"{krel}: left to the daemon: {exc}")
        is_done = False
    try:
        record(paths, verb, krel, why, is_done=is_done)
    except Exception as exc:  # a boundary, as above; the caller records it without us
        tell(f"{krel}: could not queue {verb}: {exc}")
        return 1
    return 0


def fast_path(paths: Paths, verb: Verb, krel: str, why: str) -> bool:
    """True where nothing is left to do. Raises whatever the engine raises."""
    from autokmod import journal  # only here: start-up is most of what a hook costs
    from autokmod.config import Config
    from autokmod.config_load import load_config
    from autokmod.jobs.engine import SPEAKS_FOR_KERNEL, Engine

    # What is done here, nobody does again: nobody else would say it. The package manager's terminal is not for us.
    if paths.root == Path("/"):
        journal.setup(identifier="autokmod-hook", journald=True)
    # A kernel goes whatever is written in the configuration, and links must not dangle then.
    config = Config() if verb is Verb.REMOVE else load_config(paths)
    with contextlib.closing(Engine(paths, config, time.time)) as engine:
        if verb is Verb.REMOVE:
            engine.remove(krel)
            _let_others_in(paths, krel)
            return True
        with contextlib.suppress(UnknownKernel):  # headers before their kernel: the daemon will see it come
            engine.reconcile(krel, build=False, asked=why in SPEAKS_FOR_KERNEL)
    return False


def _let_others_in(paths: Paths, krel: str) -> None:
    """Kernels without a boot entry, where it is this one that the machine relied on."""
    from autokmod.config import Config
    from autokmod.config_load import load_config
    from autokmod.errors import AutokmodError, ConfigError
    from autokmod.jobs.keepout import let_in_before_removal

    try:
        config = load_config(paths)
    except ConfigError:
        config = Config()
    try:
        let_in_before_removal(paths, config, krel, time.time())
    except (AutokmodError, OSError) as exc:
        tell(f"{krel} goes, and whether another kernel must get its boot entry could not be seen: {exc}")


def may_enter(paths: Paths, krel: str, image: str, initrds: Sequence[str]) -> int:
    try:
        why = _keep_out(paths, krel, image, initrds)
    except Exception as exc:  # a boundary: a kernel without an entry is worse than one that lacks something
        tell(f"{krel}: gets its boot entry: {exc}")
        return 0
    if why:
        sys.stdout.write(f"{why}\n")
    return HOLD if why else 0


def _keep_out(paths: Paths, krel: str, image: str, initrds: Sequence[str]) -> str:
    """What is ready is placed first, as the later plugin would do. Raises whatever the engine raises."""
    from autokmod.config_load import load_config
    from autokmod.jobs.keepout import is_kept_out, is_wanted, keep_out

    if "AUTOKMOD_AT_WORK" in os.environ:  # autokmod has an initrd made, and may hold the lock meanwhile
        return "it is not ready" if is_kept_out(paths, krel) else ""
    config = load_config(paths)
    if is_wanted(config):
        fast_path(paths, Verb.RECONCILE, krel, "kernel-install")
    why = keep_out(paths, config, krel, image, initrds, time.time())
    return why.text if why is not None else ""


def record(paths: Paths, verb: Verb, krel: str, why: str, *, is_done: bool) -> None:
    """The last word on a kernel counts: what was queued of the opposite is withdrawn. Raises FormatError, OSError."""
    spool = Spool(paths)
    if not is_done:
        spool.add(verb, krel, why)
    spool.path(Job(OPPOSITE[verb], krel, why, 0.0)).unlink(missing_ok=True)


def tell(text: str) -> None:
    syslog.openlog("autokmod-hook", facility=syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_WARNING, text)


if __name__ == "__main__":
    sys.exit(main())
