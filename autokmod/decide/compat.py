"""The checker: may this kernel load these modules? At least as strict as its loader, and with every reason.

Pure: facts in, verdicts out. The rules are kernel/module/main.c's and version.c's. Compatible means that the loader
accepts the module with every symbol compared; incompatible, that it refuses it; whatever cannot be decided from the
files is unknown, and unknown is never compatible. The files are judged as a set: they offer symbols to one another,
and a module is no better than those that it needs.

Kinds of reasons, which stay what they are:

    summary                 one sentence over the reasons that follow it
    symvers-*, config-*, reference-missing      (unknown) the kernel's side could not be read: see observe/abi.py
    not-a-module            no loadable .gnu.linkonce.this_module section
    common-symbol           a SHN_COMMON symbol
    unknown-relocation      relocations of a type that its loader does not know
    other-machine           ELF class, byte order or machine differ
    no-vermagic             no vermagic (unknown where the kernel has CONFIG_MODULE_FORCE_LOAD)
    vermagic-mismatch       vermagic differs behind the release
    release-mismatch        another release, and no basic __versions or no modversions
    struct-size             sizeof(struct module) differs (unknown before 6.4, which does not compare it)
    signature-damaged       a signature that cannot be read, or that does not hold
    unsigned                no signature, and they are enforced
    signer-unverified       (unknown) a signature by another key than the kernel's own, and they are enforced
    no-versions             no version table (unknown with CONFIG_MODULE_FORCE_LOAD)
    exports-without-crc     exports lack versions (unknown with CONFIG_MODULE_FORCE_LOAD)
    btf-unverified          (unknown) BTF of another kernel, and mismatches are refused
    livepatch               a live patch for another kernel
    crc-mismatch            a symbol has another CRC
    crc-missing             (unknown) the module's table lacks a symbol
    tables-disagree         (unknown) basic and extended table say different things
    symbol-missing          nobody exports it
    provider-absent         exported by a module of the kernel that is not installed
    gpl-only                GPL-only, and the module's licence is not compatible
    namespace-not-imported  in a namespace that the module does not import
    duplicate-export        exported by the kernel too; (unknown) exported by another module too
    proprietary-provider    uses GPL-only symbols and a proprietary module's
    dependency-cycle        needs a module that needs it
    provider-incompatible, provider-unknown     what is wrong is wrong with a module that it needs
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from autokmod.decide.compat_module import check_module
from autokmod.decide.compat_symbols import check_symbols
from autokmod.decide.finding import Finding, doubtful, reasons_of, refused, worst
from autokmod.decide.licence import is_gpl_compatible
from autokmod.decide.offers import Offers
from autokmod.model import CompatResult, Export, KernelAbi, ModuleFacts, Reason, Verdict


@dataclass(slots=True)
class _Judged:
    module: ModuleFacts
    findings: list[Finding]
    compared: int
    providers: Mapping[str, str]  # path → one symbol
    uses_gpl_only: bool


def check_set(
    modules: Sequence[ModuleFacts],
    abi: KernelAbi,
    providers: Mapping[str, Export],
    *,
    sig_enforced: bool | None = None,
) -> tuple[CompatResult, ...]:
    """One result a module, in their order. `providers`: what modules outside the set export that depmod would pick.

    `sig_enforced` is for module.sig_enforce=1 and lockdown; None leaves it to the kernel's configuration.
    """
    enforced = abi.config.get("CONFIG_MODULE_SIG_FORCE") == "y" if sig_enforced is None else sig_enforced
    offers = Offers(modules, abi, providers)
    judged = {m.path: _judge(m, abi, offers, sig_enforced=enforced) for m in modules}
    for one in judged.values():
        one.findings += _check_needed(one, judged)
    _spread(judged)
    return tuple(_result(judged[m.path]) for m in modules)


def _judge(module: ModuleFacts, abi: KernelAbi, offers: Offers, *, sig_enforced: bool) -> _Judged:
    findings = list(check_module(module, abi, sig_enforced=sig_enforced))
    symbols = check_symbols(module, abi, offers)
    findings += symbols.findings
    if abi.problems and not module.problems:
        # What was read may be another kernel's: it can raise doubts, no more.
        findings = [doubtful(f.reason) for f in findings]
    return _Judged(module, findings, symbols.compared, symbols.providers, symbols.uses_gpl_only)


def _result(judged: _Judged) -> CompatResult:
    module = judged.module
    return CompatResult(module.path, module.name, worst(judged.findings), judged.compared, reasons_of(judged.findings))


# ---- what a module has from those that it needs


def _needed(path: str, judged: Mapping[str, _Judged]) -> set[str]:
    """The providers within the set, and theirs, to the end."""
    found: set[str] = set()
    todo = [path]
    while todo:
        new = set(judged[todo.pop()].providers) - found
        found |= new
        todo += new
    return found


def _check_needed(one: _Judged, judged: Mapping[str, _Judged]) -> Iterator[Finding]:
    """No module can wait for itself; and inherit_taint(): whoever uses a proprietary module's symbols becomes
    proprietary, and may not use GPL-only ones."""
    needed = _needed(one.module.path, judged)
    if one.module.path in needed:
        yield refused(Reason("dependency-cycle", "it needs a module that needs it"))
    if one.uses_gpl_only and _is_free(one):
        yield from islice(_proprietary(one, judged), 1)


def _proprietary(one: _Judged, judged: Mapping[str, _Judged]) -> Iterator[Finding]:
    for path, symbol in one.providers.items():
        name = judged[path].module.name
        closed = sorted(judged[p].module.name for p in {path} | _needed(path, judged) if not _is_free(judged[p]))
        if closed:
            why = "whose licence is not the GPL" if closed == [name] else f"which {closed[0]} makes proprietary"
            text = f"it uses GPL-only symbols, and `{symbol}` of {name}, {why}"
            yield refused(Reason("proprietary-provider", text, symbol, exporter=name))


def _is_free(judged: _Judged) -> bool:
    return is_gpl_compatible(judged.module)


def _spread(judged: Mapping[str, _Judged]) -> None:
    """To a fixpoint: verdicts only get worse, so this ends."""
    own = {path: tuple(one.findings) for path, one in judged.items()}
    before: dict[str, Verdict] = {}
    while before != (now := {path: worst(one.findings) for path, one in judged.items()}):
        before = now
        for path, one in judged.items():
            one.findings = [*own[path], *_from_providers(one, judged, now)]


def _from_providers(one: _Judged, judged: Mapping[str, _Judged], now: Mapping[str, Verdict]) -> Iterator[Finding]:
    for path, symbol in one.providers.items():
        name = judged[path].module.name
        if now[path] is Verdict.INCOMPATIBLE:
            text = f"it needs `{symbol}` of {name}, which is incompatible"
            yield refused(Reason("provider-incompatible", text, symbol, exporter=name))
        elif now[path] is Verdict.UNKNOWN:
            text = f"it needs `{symbol}` of {name}, of which it is not known whether it is compatible"
            yield doubtful(Reason("provider-unknown", text, symbol, exporter=name))
