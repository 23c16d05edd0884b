"""The checker's rules about a module as a whole: everything but its symbols. Kinds are listed in compat.py."""

from __future__ import annotations

import re
from collections.abc import Iterator

from autokmod.decide.finding import Finding, doubtful, refused
from autokmod.model import KernelAbi, ModuleFacts, Reason, Signature


def check_module(module: ModuleFacts, abi: KernelAbi, *, sig_enforced: bool) -> Iterator[Finding]:
    """In the order in which the loader would come to them, but for its signature."""
    yield from (refused(problem) for problem in module.problems)
    yield from (doubtful(problem) for problem in abi.problems)
    yield from _check_ident(module, abi)
    yield from _check_vermagic(module, abi)
    yield from _check_struct_size(module, abi)
    yield from _check_signature(module, abi, enforced=sig_enforced)
    yield from _check_tables(module, abi)
    yield from _check_btf(module, abi)
    yield from _check_livepatch(module, abi)


def _check_ident(module: ModuleFacts, abi: KernelAbi) -> Iterator[Finding]:
    if abi.ident is not None and module.ident != abi.ident:
        wanted, offered = (f"{i.bits}-bit {i.endian}-endian machine {i.machine}" for i in (module.ident, abi.ident))
        yield refused(Reason("other-machine", f"it is for a {wanted}, {abi.krel} is for a {offered}"))


def _check_vermagic(module: ModuleFacts, abi: KernelAbi) -> Iterator[Finding]:
    """same_magic(): the release is passed over only for a module with basic symbol versions."""
    if module.vermagic is None:
        yield _by_force(abi, Reason("no-vermagic", "it has no vermagic"))
    if module.vermagic is None or abi.vermagic is None:
        return
    release, _, flags = module.vermagic.partition(" ")
    kernel_release, _, kernel_flags = abi.vermagic.partition(" ")
    if flags != kernel_flags:
        text = f"its vermagic says `{flags.strip()}`, that of {abi.krel} `{kernel_flags.strip()}`"
        yield refused(Reason("vermagic-mismatch", text))
    if release != kernel_release and not (abi.modversions and module.versions is not None):
        text = f"it is for {release} and without such symbol versions as would let another kernel load it"
        yield refused(Reason("release-mismatch", text))


def _check_struct_size(module: ModuleFacts, abi: KernelAbi) -> Iterator[Finding]:
    """Compared since 6.4; older loaders take whatever is there for a struct module of theirs."""
    if None not in (module.struct_size, abi.struct_size) and module.struct_size != abi.struct_size:
        text = f"its struct module has {module.struct_size} bytes, that of {abi.krel} {abi.struct_size}"
        finding = refused if _version(abi.krel) >= (6, 4) else doubtful
        yield finding(Reason("struct-size", text))


def _version(krel: str) -> tuple[int, int]:
    """Before any backport: where a distribution has one, the loader is stricter than is said here."""
    found = re.match(r"(\d+)\.(\d+)", krel)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _check_signature(module: ModuleFacts, abi: KernelAbi, *, enforced: bool) -> Iterator[Finding]:
    if module.signature is Signature.DAMAGED:
        yield refused(Reason("signature-damaged", "its signature is damaged, which every kernel refuses"))
    elif enforced and module.signature is Signature.NONE:
        yield refused(Reason("unsigned", f"it is not signed, and {abi.krel} loads only signed modules"))
    elif enforced and module.signature is not Signature.VERIFIED:
        text = f"it is signed, but whether {abi.krel} trusts the key cannot be told from here"
        yield doubtful(Reason("signer-unverified", text))


def _check_tables(module: ModuleFacts, abi: KernelAbi) -> Iterator[Finding]:
    if not abi.modversions:
        return
    if module.versions is None and module.ext_versions is None:
        yield _by_force(abi, Reason("no-versions", f"it carries no symbol versions, which {abi.krel} asks for"))
    if module.exports and all(e.crc is None for e in module.exports):
        yield _by_force(abi, Reason("exports-without-crc", "the symbols that it exports have no versions"))


def _by_force(abi: KernelAbi, reason: Reason) -> Finding:
    """try_to_force_load(): refused, unless the kernel is built to load anything; then nobody has checked it."""
    return doubtful(reason) if abi.config.get("CONFIG_MODULE_FORCE_LOAD") == "y" else refused(reason)


def _check_btf(module: ModuleFacts, abi: KernelAbi) -> Iterator[Finding]:
    """BTF that was split from another kernel's may not validate, and then the load fails. A base of its own helps."""
    strict = abi.config.get("CONFIG_DEBUG_INFO_BTF_MODULES") == "y"
    strict = strict and abi.config.get("CONFIG_MODULE_ALLOW_BTF_MISMATCH") != "y"
    if strict and module.has_btf and not module.has_btf_base and module.release != abi.krel:
        text = f"its type information (BTF) was made for {module.release}, and {abi.krel} may refuse it"
        yield doubtful(Reason("btf-unverified", text))


def _check_livepatch(module: ModuleFacts, abi: KernelAbi) -> Iterator[Finding]:
    if module.livepatch and module.release != abi.krel:
        yield refused(Reason("livepatch", f"it is a live patch of {module.release}: made for that kernel alone"))
