"""Policy on top of the loader's rules: what is not linked although every symbol's CRC agrees.

CRCs do not see everything: RHEL 8.7's first kernel kept those of structures that it had changed, and hung. Each rule
has a kind of reason and a switch in the configuration, which the reason names. What policy refuses is built.

    policy-flavour, policy-stream       another flavour, another stream of the distribution: see autokmod/release.py
    policy-FEATURE                      another compiler, preemption …: the features of fingerprint.py
    policy-features-unknown             how the other kernel was configured is not known
    policy-stablelist                   a symbol is not on the distribution's list of stable ones
    policy-known-bad, policy-denied     a kernel of autokmod's own list, or of the administrator's
    policy-disabled, policy-never, policy-recipe    no links at all, of this package: said by all, one, its author
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from autokmod.config import Config, LinkConfig
from autokmod.decide.fingerprint import FEATURES, fingerprint
from autokmod.model import CompatResult, KernelAbi, ModuleFacts, Reason, Recipe, Stablelist, Verdict
from autokmod.release import flavour_of, stream_of

PREFIX = "policy-"
UNKNOWN_FEATURES = "policy-features-unknown"
# Shell patterns of krels → what is wrong with them. Modules are linked neither from nor to them.
KNOWN_BAD = {
    "4.18.0-425.3.1.*": "RHEL 8.7's first kernel changed what symbols stand for, but not their CRCs, and hangs",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """The kernel that modules were built for; it need not be on the machine any more."""

    krel: str
    features: Mapping[str, str] | None  # its fingerprint, where that is known


@dataclass(frozen=True, slots=True)
class _Case:
    origin: Origin
    krel: str

    def refuse(self, kind: str, switch: str, why: str, hint: str, symbol: str | None = None) -> Reason:
        text = f"by policy ({switch}) a build for {self.origin.krel} is not used on {self.krel}: {why}"
        return Reason(PREFIX + kind, text, symbol, hint=f"{hint} in autokmod.toml would allow it")


def apply_policy(result: CompatResult, reasons: tuple[Reason, ...]) -> CompatResult:
    """What policy makes of the loader's verdict. That something is not known is said, and changes nothing."""
    refused = any(reason.kind != UNKNOWN_FEATURES for reason in reasons)
    if not refused or result.verdict is Verdict.INCOMPATIBLE:
        return replace(result, reasons=(*result.reasons, *reasons))
    return replace(result, verdict=Verdict.INCOMPATIBLE, reasons=(*reasons, *result.reasons))


def check_policy(
    link: LinkConfig, origin: Origin, abi: KernelAbi, modules: Iterable[ModuleFacts], stable: Stablelist | None
) -> tuple[Reason, ...]:
    """Why modules built for `origin` may not be used on the kernel of `abi`; nothing if they may.

    Modules built for this very kernel may always be used, unless it was configured anew under the same name.
    """
    case = _Case(origin, abi.krel)
    reasons = list(_check_features(link, case, abi))
    if origin.krel != abi.krel:
        wanted = _kernel_symbols(modules, abi)
        other = (_check_kernels(link, case), _check_lineage(link, case), _check_stable(link, case, wanted, stable))
        reasons = [reason for found in other for reason in found] + reasons
    return tuple(reasons)


def _check_lineage(link: LinkConfig, case: _Case) -> Iterator[Reason]:
    a, b = flavour_of(case.origin.krel) or "none", flavour_of(case.krel) or "none"
    if link.same_flavour and a != b:
        yield case.refuse("flavour", "link.same_flavour", f"its flavour is {a}, not {b}", _off("same_flavour"))
    a, b = stream_of(case.origin.krel), stream_of(case.krel)
    if link.same_stream and a != b:
        yield case.refuse("stream", "link.same_stream", f"it is of the stream {a}, not {b}", _off("same_stream"))


def _off(key: str) -> str:
    return f"{key} = false under [link]"


def _check_features(link: LinkConfig, case: _Case, abi: KernelAbi) -> Iterator[Reason]:
    compared = [f for f in FEATURES if f in link.same_features]
    hint = "same_features without {} under [link]"
    if case.origin.features is None:
        if compared and case.origin.krel != case.krel:
            why = "how that kernel was configured is not known"
            yield case.refuse("features-unknown", "link.same_features", why, hint.format("anything"))
        return
    here = fingerprint(abi.config)
    for feature in compared:
        there = case.origin.features.get(feature, here[feature])  # recorded before that feature was looked at
        if there != here[feature]:
            why = f"{feature} is {there} there, {here[feature]} here"
            yield case.refuse(feature, "link.same_features", why, hint.format(f'"{feature}"'))


def _check_kernels(link: LinkConfig, case: _Case) -> Iterator[Reason]:
    pair = (case.krel, case.origin.krel)
    for pattern, what in KNOWN_BAD.items() if link.known_bad_kernels else ():
        if any(fnmatchcase(krel, pattern) for krel in pair):
            yield case.refuse("known-bad", "link.known_bad_kernels", what, _off("known_bad_kernels"))
    for pattern in link.denied_kernels:
        if any(fnmatchcase(krel, pattern) for krel in pair):
            why = f"the administrator denies kernels like {pattern}"
            yield case.refuse("denied", "link.denied_kernels", why, f'denied_kernels without "{pattern}" under [link]')


def _kernel_symbols(modules: Iterable[ModuleFacts], abi: KernelAbi) -> set[str]:
    """What they take from the kernel itself; symbols of other packages are in nobody's list."""
    return {i.name for module in modules for i in module.imports if i.name in abi.exports}


def _check_stable(link: LinkConfig, case: _Case, wanted: Set[str], stable: Stablelist | None) -> Iterator[Reason]:
    if stable is None or not link.stablelist:
        return
    if stable.problem is not None:
        why = f"the list of stable symbols cannot be read: {stable.problem}"
        yield case.refuse("stablelist", "link.stablelist", why, _off("stablelist"))
        return
    loose = sorted(wanted - stable.symbols)
    if loose and stable.symbols:
        more = f" and {len(loose) - 1} more are" if len(loose) > 1 else " is"
        why = f"`{loose[0]}`{more} not in {stable.path}, the symbols that the distribution keeps stable"
        yield case.refuse("stablelist", "link.stablelist", why, _off("stablelist"), loose[0])


def check_package_policy(config: Config, package: str, recipe: Recipe) -> tuple[Reason, ...]:
    """Why no build for another kernel may be used of this package, whatever the kernel."""
    only = "by policy ({}) it is built for each kernel anew"
    if not config.link.enabled:
        text, hint = only.format("link.enabled"), _off("enabled").replace("false", "true") + " in autokmod.toml"
        return (Reason("policy-disabled", text, hint=f"{hint} would allow links"),)
    if config.package(package).link == "never":
        where = f"packages.d/{package}.toml"
        hint = f'link = "auto" in {where} would allow links'
        return (Reason("policy-never", only.format(f'link = "never" in {where}'), hint=hint),)
    if not recipe.link_allowed:
        return (Reason("policy-recipe", only.format("NO_WEAK_MODULES in its recipe")),)
    return ()
