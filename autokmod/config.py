"""autokmod.toml and its drop-ins, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Literal, get_args

from autokmod.recipeparts import DefinePart, FlagsPart, PatchPart
from autokmod.tomltable import AtLeast

Seconds = Annotated[float, AtLeast(0)]
Count = Annotated[int, AtLeast(0)]
Limit = Annotated[int, AtLeast(1)]
LogLevel = Literal["debug", "info", "notice", "warning", "error"]
Feature = Literal[
    "compiler",
    "cfi",
    "ibt",
    "return-thunks",
    "kasan",
    "kcsan",
    "kmsan",
    "plugins",
    "randstruct",
    "preemption",
]


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    settle_s: Seconds = 3.0  # a kernel or source is acted upon when nothing in it changed for so long
    log_level: LogLevel = "info"


@dataclass(frozen=True, slots=True)
class BuildConfig:
    jobs: Count = 0  # job tokens over all builds; 0: one a CPU
    user: str = "autokmod-build"
    time_limit_s: Limit = 3600  # one build
    eval_limit_s: Limit = 30  # evaluating one dkms.conf
    memory_limit_mb: Limit = 4096  # one process of a build
    total_memory_mb: Count = 0  # all processes of one build; 0: three quarters of the machine's
    process_limit: Limit = 512  # of one build; before Linux 5.14: of all builds together
    file_limit_mb: Limit = 2048  # one file
    disk_limit_mb: Limit = 8192  # all that one build writes, the copy of its source included
    keep_free_mb: Count = 256  # builds are stopped before less than this is left on the disk of /var/lib/autokmod
    output_limit_mb: Limit = 256  # what one build prints
    allow_unsandboxed: bool = False


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """Policy on top of the loader's rules: equal CRCs are no proof that a build for another kernel works.

    What is refused here is built instead; every reason names the key that asked for it.
    """

    enabled: bool = True  # false: every package is built for every kernel
    same_flavour: bool = True  # cloud-amd64, rt, +debug …: from the kernels' releases
    same_stream: bool = True  # the distribution's: Debian's 6.1 kernels, RHEL 8; of RHEL 9 and later one minor release
    same_features: tuple[Feature, ...] = get_args(Feature)  # of both kernels' configurations; []: none is compared
    stablelist: bool = True  # where the distribution installed one that is not empty, every symbol must be on it
    known_bad_kernels: bool = True  # no links from or to kernels of autokmod's own list of broken ones
    denied_kernels: tuple[str, ...] = ()  # the administrator's: shell patterns of krels
    other_owners: bool = True  # also to what DKMS installed in other kernels, and to vendors' modules in extra/


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Builds that nothing uses any more. What a kernel of this machine uses is never collected, whatever the bound."""

    max_size_mb: Count = 4096  # looked at after each job: above it, the oldest go; 0: no bound
    keep_failed: bool = True  # failures of kernels that are here stay remembered: not tried again for nothing
    min_age_s: Seconds = 86400.0  # nothing younger is collected


@dataclass(frozen=True, slots=True)
class RetryConfig:
    attempts: Count = 5  # after the first
    first_delay_s: Seconds = 30.0  # doubled for each further attempt
    max_delay_s: Seconds = 3600.0


@dataclass(frozen=True, slots=True)
class InitrdConfig:
    regenerate: bool = True
    time_limit_s: Limit = 900
    overlay: bool = False  # all packages' modules are appended to the image, which is not made anew for them
    modprobe_conf: tuple[str, ...] = ()  # files for modprobe.d, absolute, that overlays carry besides


@dataclass(frozen=True, slots=True)
class ShutdownConfig:
    # What is queued is finished before the machine goes down; 0: not at all. More than 25 minutes count as 25.
    time_limit_s: Count = 900
    # While a job runs, logind refuses to shut down, but never beyond the limit. Root may, on a terminal, all the same.
    block: bool = False
    block_limit_s: Limit = 600


@dataclass(frozen=True, slots=True)
class BootConfig:
    # What the running kernel lacks is built before the display manager starts; 0: not there, but later all the same.
    time_limit_s: Count = 600


@dataclass(frozen=True, slots=True)
class SignConfig:
    """Without `key` and `cert`: the first pair of those that distributions, DKMS, akmods or autokmod itself made."""

    mode: Literal["auto", "never"] = "auto"  # never: modules are placed unsigned; kernels that refuse those get none
    key: str = ""  # private key, PEM
    cert: str = ""  # its certificate, DER or PEM


@dataclass(frozen=True, slots=True)
class BootGuardConfig:
    """Only for packages with `required = true`: without any, nothing is done to the boot loader's default."""

    enabled: bool = True
    time_limit_s: Limit = 14 * 86400  # so long, and for so many boots, an older kernel is kept as the default;
    boot_limit: Limit = 10  # whichever comes first ends it
    # Where kernel-install makes boot entries: a new kernel that is not ready gets none at first, for so long at most.
    hold: bool = False
    hold_limit_s: Limit = 86400


@dataclass(frozen=True, slots=True)
class PackageConfig:
    """/etc/autokmod/packages.d/NAME.toml: the administrator's word on one package."""

    required: bool = False  # a kernel without it is not-ready, not just degraded
    enabled: bool = True  # false: on no kernel (decision: skip)
    link: Literal["auto", "never"] = "auto"
    # Its modules belong in the initrd; "overlay": appended to the image, which is not made anew for them.
    initrd: Literal[False, True, "overlay"] = False
    exclude_kernels: tuple[str, ...] = ()  # shell patterns of krels
    # On top of the recipe, whatever its kind. What a patch names lies in packages.d/NAME/patches/.
    patch: tuple[PatchPart, ...] = ()
    define: tuple[DefinePart, ...] = ()
    flags: tuple[FlagsPart, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    daemon: DaemonConfig = field(default_factory=DaemonConfig)
    build: BuildConfig = field(default_factory=BuildConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)
    initrd: InitrdConfig = field(default_factory=InitrdConfig)
    shutdown: ShutdownConfig = field(default_factory=ShutdownConfig)
    boot: BootConfig = field(default_factory=BootConfig)
    boot_guard: BootGuardConfig = field(default_factory=BootGuardConfig)
    sign: SignConfig = field(default_factory=SignConfig)
    packages: tuple[tuple[str, PackageConfig], ...] = ()

    def package(self, name: str) -> PackageConfig:
        return dict(self.packages).get(name, PackageConfig())

    def is_wanted(self, name: str, krel: str) -> bool:
        """Not by the recipe, which says so in its decision: by the administrator."""
        package = self.package(name)
        return package.enabled and not any(fnmatchcase(krel, pattern) for pattern in package.exclude_kernels)

    def required(self, krel: str) -> tuple[str, ...]:
        """The packages that this kernel may not lack."""
        return tuple(n for n, package in self.packages if package.required and self.is_wanted(n, krel))
