"""Which modules may use GPL-only symbols (include/linux/license.h, and kernel/module/main.c for the two names)."""

from __future__ import annotations

from autokmod.model import ModuleFacts

GPL_COMPATIBLE = frozenset(
    {"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"}
)
WRONGLY_GPL = frozenset({"driverloader", "lve"})  # the loader does not believe these


def is_gpl_compatible(module: ModuleFacts) -> bool:
    """The loader looks at the first licence only, and takes none for a proprietary one."""
    return module.licenses[:1] != () and module.licenses[0] in GPL_COMPATIBLE and module.name not in WRONGLY_GPL
