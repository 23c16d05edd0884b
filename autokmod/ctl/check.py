"""check: would this kernel load these modules? The files need not belong to autokmod, nor stand in the kernel."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autokmod.config import LinkConfig
from autokmod.config_load import load_config
from autokmod.ctl.render import GREEN, RED, YELLOW, Cell, clean, paint, table
from autokmod.ctl.terminal import Style
from autokmod.ctl.view import output_of, paths_of
from autokmod.decide.compat import check_set
from autokmod.decide.fingerprint import fingerprint
from autokmod.decide.policy import Origin, apply_policy, check_policy
from autokmod.decide.signing import find_enforcement
from autokmod.errors import FormatError, UnknownKernel, UsageError
from autokmod.model import CompatResult, Kernel, KernelAbi, ModuleFacts, Reason, Verdict
from autokmod.observe.abi import read_abi, read_config
from autokmod.observe.enforcement import read_boot_facts
from autokmod.observe.enrolled import judge_by_enrolled
from autokmod.observe.external import find_external
from autokmod.observe.kernels import read_kernel
from autokmod.observe.ko import read_module
from autokmod.observe.modtree import module_name
from autokmod.observe.secureboot import SecureBoot, read_enrolled, read_firmware
from autokmod.observe.stablelist import read_stablelist
from autokmod.observe.trust import OwnKey
from autokmod.paths import Paths

EXIT_CODES = {Verdict.COMPATIBLE: 0, Verdict.INCOMPATIBLE: 1, Verdict.UNKNOWN: 2}
COLOURS = {Verdict.COMPATIBLE: GREEN, Verdict.INCOMPATIBLE: RED, Verdict.UNKNOWN: YELLOW}


def add_parser(sub: Any) -> None:
    parser = sub.add_parser(
        "check",
        help="say whether a kernel would load modules",
        description="Compare module files with a kernel, as its loader would, and name every difference. Files given "
        "together may provide symbols to one another. What was built for another kernel is then held against the "
        "policy for links ([link] in autokmod.toml). Exit status: 0 if all are compatible, 1 if one is "
        "incompatible, 2 if of one it is not known, or for wrong usage.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE.ko", help="module, plain or compressed (.gz, .xz, .zst)")
    parser.add_argument("--kernel", required=True, metavar="KREL", help="the kernel that is to load them")
    parser.add_argument("--no-policy", dest="policy", action="store_false", help="what the loader would say, no more")
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    try:
        kernel = read_kernel(paths, args.kernel)
    except UnknownKernel as exc:
        raise UsageError(str(exc)) from exc
    abi = read_abi(paths, kernel)
    firmware = read_firmware(paths)
    results = check_files(
        paths,
        args.files,
        kernel,
        abi,
        load_config(paths).link if args.policy else None,
        enforced=find_enforcement(kernel.krel, abi.config, read_boot_facts(paths, kernel.krel), firmware) is not None,
        enrolled=read_enrolled(paths) if firmware.secure_boot is SecureBoot.ON else (),
    )
    if output.json != "off":
        output.data({"kernel": kernel.krel, "results": [_as_json(r) for r in results]})
    else:
        output.lines([line for result in results for line in _lines(result, paths, abi, output.style)])
    return exit_code(results)


def exit_code(results: Sequence[CompatResult]) -> int:
    verdicts = {r.verdict for r in results}
    gravest = (Verdict.INCOMPATIBLE, Verdict.UNKNOWN, Verdict.COMPATIBLE)
    return EXIT_CODES[next(v for v in gravest if v in verdicts)]


def check_files(
    paths: Paths,
    files: Sequence[str],
    kernel: Kernel,
    abi: KernelAbi,
    link: LinkConfig | None = None,
    *,
    enforced: bool | None = None,
    enrolled: Sequence[bytes] = (),
) -> tuple[CompatResult, ...]:
    """One result a file, in their order; what cannot be read is unknown, with what is wrong and where.

    Without `link`, the loader's rules alone. `enforced`: only signed modules load; None leaves that to the kernel's
    configuration. `enrolled`: certificates that it trusts beside its own.
    """
    own_key = OwnKey(kernel.image, abi.reference)
    modules: dict[str, ModuleFacts] = {}
    results: dict[str, CompatResult] = {}
    for file in dict.fromkeys(files):
        try:
            modules[file] = judge_by_enrolled(own_key.judge(read_module(file)), enrolled)
        except (FormatError, OSError) as exc:
            results[file] = _unreadable(file, exc)
    others = find_neighbours(paths, abi.krel, {m.name for m in modules.values()})
    results.update((r.path, r) for r in check_set([*modules.values(), *others], abi, {}, sig_enforced=enforced))
    if link is not None:
        results.update(_with_policy(paths, link, abi, modules, results))
    return tuple(results[file] for file in files)


def _with_policy(
    paths: Paths,
    link: LinkConfig,
    abi: KernelAbi,
    modules: Mapping[str, ModuleFacts],
    results: Mapping[str, CompatResult],
) -> Iterator[tuple[str, CompatResult]]:
    stable = read_stablelist(paths, abi.krel)
    releases = {module.release for module in modules.values()} - {None, abi.krel}
    origins = {release: Origin(release, _features(paths, release)) for release in releases if release is not None}
    for file, module in modules.items():
        if module.release in origins:
            reasons = check_policy(link, origins[module.release], abi, [module], stable)
            yield file, apply_policy(results[file], reasons)


def _features(paths: Paths, krel: str) -> Mapping[str, str] | None:
    try:
        config = read_config(paths, read_kernel(paths, krel))
    except UnknownKernel:
        return None
    return fingerprint(config) if config is not None else None


def _unreadable(file: str, exc: FormatError | OSError) -> CompatResult:
    why = str(exc).removeprefix(f"{file}: ") if isinstance(exc, FormatError) else exc.strerror
    reason = Reason("unreadable", f"it cannot be read: {why}")
    return CompatResult(file, module_name(file), Verdict.UNKNOWN, 0, (reason,))


def find_neighbours(paths: Paths, krel: str, names: set[str]) -> Iterator[ModuleFacts]:
    """The external modules, but for those called `names`, that depmod would pick: they may export what is needed."""
    for name, file in find_external(paths, krel, ours=True).items():
        if name not in names:
            with contextlib.suppress(FormatError, OSError):  # what depmod cannot read exports nothing
                yield read_module(file)


# ---- output


def _as_json(result: CompatResult) -> dict[str, Any]:
    return {
        "path": result.path,
        "verdict": str(result.verdict),
        "symbols_compared": result.symbols_compared,
        "reasons": [_reason_as_json(r) for r in result.reasons],
    }


def _reason_as_json(reason: Reason) -> dict[str, Any]:
    fields = ("kind", "text", "symbol", "wanted_crc", "offered_crc", "exporter")
    return {name: getattr(reason, name) for name in fields}


def _lines(result: CompatResult, paths: Paths, abi: KernelAbi, style: Style) -> Iterator[str]:
    verdict = paint(str(result.verdict), COLOURS[result.verdict], style)
    compared = f"{result.symbols_compared} symbol{'' if result.symbols_compared == 1 else 's'} compared"
    symvers = f" with {paths.inside(abi.symvers_path)}" if abi.symvers_path is not None else ""
    yield f"{clean(result.path)}: {verdict} with {clean(abi.krel)}, {compared}{clean(symvers)}"
    symbols = [r for r in result.reasons if r.symbol is not None]
    for reason in (r for r in result.reasons if r.symbol is None or len(symbols) == 1):
        yield f"    {clean(reason.text)}"
    if len(symbols) > 1:
        yield from table(
            map(_row, symbols), style, header=("SYMBOL", "WANTED", "OFFERED", "EXPORTER", "WHAT"), indent="    "
        )
    yield from (f"    {clean(hint)}" for hint in dict.fromkeys(r.hint for r in result.reasons if r.hint))


def _row(reason: Reason) -> tuple[Cell | str, ...]:
    return (reason.symbol or "", _crc(reason.wanted_crc), _crc(reason.offered_crc), reason.exporter or "-", reason.kind)


def _crc(crc: int | None) -> str:
    return "-" if crc is None else f"{crc:#010x}"
