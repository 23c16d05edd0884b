"""The checker's rules about symbols: resolve_symbol(), check_version() and verify_exported_symbols() of the loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from autokmod.decide.finding import Finding, doubtful, refused
from autokmod.decide.licence import is_gpl_compatible
from autokmod.decide.offers import VMLINUX, Offer, Offers
from autokmod.model import Export, Import, KernelAbi, ModuleFacts, Reason

LAYOUT = Import("module_layout", weak=False)  # in the table of every module, in no symbol table
MODULE_NAMESPACE = "module:"


@dataclass(slots=True)
class SymbolCheck:
    findings: list[Finding] = field(default_factory=list)
    compared: int = 0  # CRCs
    providers: dict[str, str] = field(default_factory=dict)  # path of a module of the set → one symbol of it
    uses_gpl_only: bool = False


def check_symbols(module: ModuleFacts, abi: KernelAbi, offers: Offers) -> SymbolCheck:
    """Nothing is said where the kernel's symbols could not be read: `abi.problems` tell that."""
    check = SymbolCheck()
    if not abi.exports:
        return check
    table = module.ext_versions if module.ext_versions is not None else module.versions
    wanted = sorted(module.imports, key=lambda i: i.name)
    agrees = _agreement(module, abi, table)
    for symbol in [LAYOUT, *wanted] if abi.modversions else wanted:
        own = abi.exports.get(symbol.name)
        if own is not None and agrees(own):
            check.compared += 1
            check.uses_gpl_only |= own.gpl_only
        else:
            _check_import(module, abi, symbol, offers.find(symbol.name), table, check)
    check.findings += _check_exports(module, abi, offers)
    return check


def _agreement(module: ModuleFacts, abi: KernelAbi, table: Mapping[str, int] | None) -> Callable[[Export], bool]:
    """Nearly all symbols are vmlinux's, with the CRC that the module wants, in no namespace and for everyone: of these
    there is nothing to be said, and that is quickly seen."""
    if not abi.modversions or table is None or table is not module.versions:
        return lambda own: False
    free, wanted = is_gpl_compatible(module), table.get
    return lambda own: (
        own.exporter == VMLINUX
        and own.crc is not None
        and own.crc == wanted(own.name)
        and own.namespace is None
        and (free or not own.gpl_only)
    )


def _check_import(
    module: ModuleFacts,
    abi: KernelAbi,
    symbol: Import,
    offer: Offer | None,
    table: Mapping[str, int] | None,
    check: SymbolCheck,
) -> None:
    unseen = _why_unseen(module, abi, symbol, offer, table)
    if unseen is not None or offer is None:
        # To the loader an absent weak symbol is as good as a null pointer.
        check.findings += [unseen] if unseen is not None and not symbol.weak else []
        return
    check.uses_gpl_only |= offer.export.gpl_only
    if offer.module is not None and offer.module is not module:
        check.providers.setdefault(offer.module.path, symbol.name)
    if abi.modversions and table is not None and offer.export.crc is not None:
        check.compared += symbol.name in table
        check.findings += _check_crc(module, symbol.name, offer, table)
    check.findings += _check_namespace(module, abi, offer)


def _why_unseen(
    module: ModuleFacts, abi: KernelAbi, symbol: Import, offer: Offer | None, table: Mapping[str, int] | None
) -> Finding | None:
    wanted = (table or {}).get(symbol.name)
    if offer is None:
        text = f"`{symbol.name}` is not exported on {abi.krel}"
        # Every kernel with modversions exports module_layout: it is the symvers that is not whole.
        return (doubtful if symbol is LAYOUT else refused)(Reason("symbol-missing", text, symbol.name, wanted))
    export = offer.export
    if not offer.installed:
        text = f"`{symbol.name}` is exported by {export.exporter}, which is not installed for {abi.krel}"
        hint = "install the package that has the rest of this kernel's modules"
        return refused(Reason("provider-absent", text, symbol.name, wanted, export.crc, export.exporter, hint))
    if export.gpl_only and not is_gpl_compatible(module):
        licence = module.licenses[0] if module.licenses else "unspecified"
        text = f"`{symbol.name}` is for GPL modules only, and its licence is {licence}"
        return refused(Reason("gpl-only", text, symbol.name, wanted, export.crc, export.exporter))
    return None


def _check_crc(module: ModuleFacts, name: str, offer: Offer, table: Mapping[str, int]) -> Iterator[Finding]:
    wanted, offered, exporter = table.get(name), offer.export.crc, offer.export.exporter
    if wanted is None:  # the loader warns and goes on: nobody has compared it
        text = f"the module has no version for `{name}`"
        yield doubtful(Reason("crc-missing", text, name, None, offered, exporter))
        return
    if wanted != offered:
        text = f"`{name}` changed: the module wants {wanted:#010x}, {exporter} has {offered:#010x}"
        yield refused(Reason("crc-mismatch", text, name, wanted, offered, exporter))
    basic = (module.versions or {}).get(name, wanted)
    if basic != wanted:  # which table counts depends on the kernel's age
        text = f"the module has two versions for `{name}`: {wanted:#010x} and {basic:#010x}"
        yield doubtful(Reason("tables-disagree", text, name, basic, offered, exporter))


def _check_namespace(module: ModuleFacts, abi: KernelAbi, offer: Offer) -> Iterator[Finding]:
    export, namespace = offer.export, offer.export.namespace
    if namespace is None or abi.config.get("CONFIG_MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS") == "y":
        return
    fields = (export.name, None, export.crc, export.exporter)
    if namespace.startswith(MODULE_NAMESPACE):
        if not (module.intree and may_use(namespace, module.name)):
            text = f"`{export.name}` is only for the kernel's own modules {namespace.removeprefix(MODULE_NAMESPACE)}"
            finding = doubtful if may_use(namespace, module.name) else refused
            yield finding(Reason("namespace-not-imported", text, *fields))
    elif namespace not in module.import_ns:
        text = f"`{export.name}` is in namespace {namespace}, which the module does not import"
        yield refused(Reason("namespace-not-imported", text, *fields))


def may_use(namespace: str, module: str) -> bool:
    """`module:kvm-*,vfio`: names, or the beginnings of names (6.16; verify_module_namespace)."""
    for pattern in namespace.removeprefix(MODULE_NAMESPACE).replace("-", "_").split(","):
        if module.startswith(pattern[:-1]) if pattern.endswith("*") else module == pattern:
            return True
    return False


def _check_exports(module: ModuleFacts, abi: KernelAbi, offers: Offers) -> Iterator[Finding]:
    for export in module.exports:
        own = abi.exports.get(export.name)
        if own is not None and own.exporter == VMLINUX:
            text = f"it exports `{export.name}`, as the kernel itself does"
            yield refused(Reason("duplicate-export", text, export.name, export.crc, own.crc, own.exporter))
        elif (rival := offers.rival(export.name, module)) is not None:
            text = f"it exports `{export.name}`, as {rival} does: they cannot be loaded together"
            yield doubtful(Reason("duplicate-export", text, export.name, exporter=rival))
