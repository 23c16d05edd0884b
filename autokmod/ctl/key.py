"""key: which key modules are signed with, and whether this machine trusts it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autokmod.act.enroll import request_enrolment
from autokmod.act.newkey import create_key
from autokmod.config import Config
from autokmod.config_load import load_config
from autokmod.ctl.render import GREEN, GREY, RED, YELLOW, Cell, clean, reason_lines, table
from autokmod.ctl.terminal import Output, Style
from autokmod.ctl.view import NOT_READY, OK, output_of, paths_of
from autokmod.decide.signing import choose_key
from autokmod.decide.trust import ENROLL
from autokmod.errors import KeyProblem, NotAuthorized, UsageError
from autokmod.jobs.keyring import KernelView, KeyView, enrolment, key_to_json, keyring_to_json, read_keyring, shown
from autokmod.jobs.signing import TriedKeys
from autokmod.jobs.spool import ALL, Spool
from autokmod.model import Verb
from autokmod.observe.keys import SigningKey, find_keys
from autokmod.observe.secureboot import Firmware, SecureBoot, read_firmware
from autokmod.paths import Paths

WORDS = {
    SecureBoot.ON: "on",
    SecureBoot.OFF: "off",
    SecureBoot.NO_EFI: "this machine was not started by EFI",
    SecureBoot.UNKNOWN: "cannot be told from here",
}
COLOURS = {"enrolled": GREEN, "requested": YELLOW, "not enrolled": RED, "withdrawn": RED}
REBOOT = 'Reboot now, choose "Enroll MOK" on the blue screen, and type the password that you just gave.'


def add_parser(sub: Any) -> None:
    parser = sub.add_parser(
        "key",
        help="show, make or enrol the key that modules are signed with",
        description="Which key modules are signed with, and whether this machine trusts it. Without a verb: status.",
    )
    parser.set_defaults(run=run_key_status)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    status = verbs.add_parser(
        "status",
        help="keys, Secure Boot, and what each kernel asks for",
        description="Show the signing keys of this machine, Secure Boot, and what each kernel asks for. "
        "Exit status: 0 if every kernel gets what it asks for, 3 if not.",
    )
    status.set_defaults(run=run_key_status)
    create = verbs.add_parser(
        "create",
        help="make a key",
        description="Make a key of autokmod's own, in /var/lib/autokmod/keys. A key that is there is never replaced.",
    )
    create.set_defaults(run=run_key_create)
    enroll = verbs.add_parser(
        "enroll",
        help="ask the firmware to trust the key",
        description="Ask shim to trust the key that modules are signed with. mokutil asks for a password, which is "
        "asked for once more at the next boot.",
    )
    enroll.set_defaults(run=run_key_enroll)


# ---- status --------------------------------------------------------------------------------------


def run_key_status(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    config = load_config(paths)
    keyring = read_keyring(paths, config, _find(paths, config))
    if output.json != "off":
        output.data(keyring_to_json(paths, keyring))
    else:
        lines = _key_lines(paths, keyring.firmware, keyring.keys, output)
        output.lines([*lines, *_kernel_lines(keyring.kernels, output)])
    return OK if all(k.is_fine for k in keyring.kernels) else NOT_READY


def _key_lines(paths: Paths, firmware: Firmware, keys: Sequence[KeyView], output: Output) -> Iterator[str]:
    yield f"Secure Boot: {WORDS[firmware.secure_boot]}"
    if not keys:
        yield "Signing key: none (see 'autokmodctl key create')"
        return
    header = ("KEY", "OF", "NAME", "VALID UNTIL", "FIRMWARE", "") if output.legend else ()
    rows = [_key_row(paths, view) for view in keys]
    yield from table(rows, output.style, header=header)
    for view in keys:
        if view.key.problem is not None:
            yield from reason_lines(view.key.problem, output.style, indent="    ")


def _key_row(paths: Paths, view: KeyView) -> tuple[Cell | str, ...]:
    key, certificate = view.key, view.key.certificate
    name, until = (certificate.name, certificate.not_after) if certificate else ("-", "-")
    use = Cell("cannot be used", RED) if key.problem else Cell("used", GREEN) if view.used else Cell("not used", GREY)
    state = Cell(view.enrolment, COLOURS.get(view.enrolment, ""))
    return (shown(paths, key.key) or "-", key.origin, name, until, state, use)


def _kernel_lines(kernels: Sequence[KernelView], output: Output) -> Iterator[str]:
    if kernels:
        header = ("KERNEL", "UNSIGNED MODULES", "MODULES ARE") if output.legend else ()
        yield from table([_kernel_row(k) for k in kernels], output.style, header=header)
    for kernel in kernels:
        yield from _remarks(kernel, output.style)


def _kernel_row(kernel: KernelView) -> tuple[Cell | str, ...]:
    signing = kernel.signing
    refused = Cell("refused", YELLOW) if signing.enforced else "taken"
    if signing.problem is not None:
        return (kernel.krel, refused, Cell("blocked", RED))
    if kernel.distrust is not None:
        return (kernel.krel, refused, Cell("signed, and not trusted", RED))
    if signing.signed_by is None:
        return (kernel.krel, refused, Cell("not signed", GREY))
    return (kernel.krel, refused, Cell(f"signed ({signing.signed_by.digest})", GREEN))


def _remarks(kernel: KernelView, style: Style) -> Iterator[str]:
    said = (kernel.signing.problem, kernel.distrust, kernel.signing.unsigned)
    for reason in (r for r in said if r is not None):
        yield f"{clean(kernel.krel)}:"
        yield from reason_lines(reason, style, indent="    ")


# ---- create, enroll ------------------------------------------------------------------------------


def run_key_create(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    _only_root(paths, "make a signing key")
    others = [k for k in _find(paths, load_config(paths)) if k.problem is None]
    if others and others[0].origin != "autokmod":
        why = f"this machine has a signing key already, {paths.inside(others[0].key)}, which is used"
        raise KeyProblem(why, f"to have it trusted: {ENROLL}")
    key = create_key(paths, _host(paths))
    Spool(paths).add(Verb.RESCAN, ALL, "key-created")  # what stands unsigned is signed then
    if output.json != "off":
        view = KeyView(key, used=True, enrolment=enrolment(key, read_firmware(paths)))
        output.data({"key": key_to_json(paths, view)})
    else:
        name = clean(key.certificate.name) if key.certificate else ""
        output.lines([f"Made {paths.inside(key.key)} ({name}).", f"To have it trusted under Secure Boot: {ENROLL}"])
    return OK


def run_key_enroll(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    if paths.root != Path("/"):
        raise UsageError("a key is enrolled on the machine that is to trust it: not with --root")
    _only_root(paths, "enrol a key")
    firmware = read_firmware(paths)
    if firmware.secure_boot is SecureBoot.NO_EFI:
        raise KeyProblem("this machine was not started by EFI: it has no list of keys", "nothing needs to be enrolled")
    key = choose_key(_find(paths, load_config(paths)), firmware)
    if key is None or key.certificate is None:
        raise KeyProblem("there is no signing key", "autokmodctl key create makes one")
    state = enrolment(key, firmware)
    if state == "withdrawn":
        raise KeyProblem(f"the firmware withdrew the key {paths.inside(key.cert)}", "use another one")
    if state == "not enrolled" or firmware.secure_boot is SecureBoot.UNKNOWN:
        request_enrolment(paths, key.certificate)
        state = "requested"
    _tell_enrolment(paths, key, state, output)
    return OK


def _tell_enrolment(paths: Paths, key: SigningKey, state: str, output: Output) -> None:
    if output.json != "off":
        output.data({"certificate": paths.inside(key.cert), "enrolment": state})
        return
    sentence = f"{paths.inside(key.cert)} is enrolled." if state == "enrolled" else REBOOT
    output.lines([sentence])


def _find(paths: Paths, config: Config) -> tuple[SigningKey, ...]:
    """Whoever may write autokmod's state can try them, too."""
    return TriedKeys().find(paths, config) if os.geteuid() == 0 else find_keys(paths, config.sign)


def _only_root(paths: Paths, what: str) -> None:
    if os.geteuid() != 0 and paths.root == Path("/"):
        raise NotAuthorized(what)


def _host(paths: Paths) -> str:
    if paths.root == Path("/"):
        return os.uname().nodename
    try:
        return paths.at("etc/hostname").read_text(encoding="utf-8", errors="replace").strip() or "host"
    except OSError:
        return "host"
