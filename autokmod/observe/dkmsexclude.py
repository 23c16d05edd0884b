"""BUILD_EXCLUSIVE_*: for which kernels a package, or one module of it, is not meant. Pure."""

from __future__ import annotations

from autokmod.model import Reason
from autokmod.observe.dkmsfields import Conf, KernelFacts
from autokmod.versions import is_at_least, is_at_most


def exclusion(conf: Conf, kernel: KernelFacts, index: int) -> Reason | None:
    """Of module `index`. Index 0 is also the scalar, so it speaks for all modules, as in DKMS.

    Without headers nobody can tell: confs look into the kernel's configuration.
    """
    if kernel.config is None:
        return None
    checks = (_excluded_kernel, _excluded_min, _excluded_max, _excluded_arch, _excluded_config)
    found = (check(conf, kernel, index) for check in checks)
    reason = next((r for r in found if r is not None), None)
    return reason or (_obsolete(conf, kernel) if index == 0 else None)


def _excluded_kernel(conf: Conf, kernel: KernelFacts, index: int) -> Reason | None:
    value = conf.at("BUILD_EXCLUSIVE_KERNEL", index)
    if not value or conf.is_matched("BUILD_EXCLUSIVE_KERNEL", index):
        return None
    return Reason("excluded-kernel", f"the recipe excludes kernel {kernel.krel}: BUILD_EXCLUSIVE_KERNEL is '{value}'")


def _excluded_arch(conf: Conf, kernel: KernelFacts, index: int) -> Reason | None:
    value = conf.at("BUILD_EXCLUSIVE_ARCH", index)
    if not value or conf.is_matched("BUILD_EXCLUSIVE_ARCH", index):
        return None
    return Reason(
        "excluded-arch", f"the recipe excludes this machine ({kernel.arch}): BUILD_EXCLUSIVE_ARCH is '{value}'"
    )


def _excluded_min(conf: Conf, kernel: KernelFacts, index: int) -> Reason | None:
    value = conf.at("BUILD_EXCLUSIVE_KERNEL_MIN", index)
    if not value or is_at_least(kernel.krel, value):
        return None
    return Reason("excluded-kernel", f"the recipe wants kernel {value} or newer")


def _excluded_max(conf: Conf, kernel: KernelFacts, index: int) -> Reason | None:
    value = conf.at("BUILD_EXCLUSIVE_KERNEL_MAX", index)
    if not value or is_at_most(kernel.krel, value):
        return None
    return Reason("excluded-kernel", f"the recipe wants kernel {value} or older")


def _excluded_config(conf: Conf, kernel: KernelFacts, index: int) -> Reason | None:
    for word in conf.at("BUILD_EXCLUSIVE_CONFIG", index).split():
        option = word.removeprefix("!")
        is_set = (kernel.config or {}).get(option) in ("y", "m")
        if is_set == word.startswith("!"):
            wants = "without" if is_set else "with"
            return Reason("excluded-config", f"the recipe wants a kernel {wants} {option}")
    return None


def _obsolete(conf: Conf, kernel: KernelFacts) -> Reason | None:
    value = conf.scalar("OBSOLETE_BY")
    if not value or not is_at_least(kernel.krel, value):
        return None
    return Reason("excluded-kernel", f"the recipe says that kernel {value} made it obsolete: OBSOLETE_BY")
