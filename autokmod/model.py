"""The vocabulary: values that pass between the rooms. Every one is frozen; containers inside are tuples.

Reasons are data. The same `Reason` values are shown by the journal, D-Bus, autokmodctl and the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Of one module against one kernel. Unknown is never compatible."""

    COMPATIBLE = "compatible"
    INCOMPATIBLE = "incompatible"
    UNKNOWN = "unknown"


class DecisionKind(StrEnum):
    """Of one package on one kernel."""

    KEEP = "keep"
    LINK = "link"
    BUILD = "build"
    WAIT = "wait"
    SKIP = "skip"
    BLOCKED = "blocked"


class Readiness(StrEnum):
    """Of one kernel."""

    READY = "ready"
    PENDING = "pending"
    WAITING = "waiting"
    DEGRADED = "degraded"
    NOT_READY = "not-ready"


class KernelState(StrEnum):
    """What of a kernel is on disk."""

    COMPLETE = "complete"  # modules, boot image and headers
    NO_HEADERS = "no-headers"  # modules and boot image, nothing to build against
    NO_IMAGE = "no-image"  # modules and headers, but no boot image: it cannot be booted
    HEADERS_ONLY = "headers-only"  # only build/source links: nothing boots this
    INCOMPLETE = "incomplete"  # in the middle of being unpacked or removed, or damaged


class Signature(StrEnum):
    NONE = "none"
    PRESENT = "present"
    VERIFIED = "verified"  # against a key that the kernel in question has built in
    DAMAGED = "damaged"


class Compression(StrEnum):
    """How a kernel's configuration wants its modules stored; the value is the file suffix."""

    NONE = ""
    GZIP = ".gz"
    XZ = ".xz"
    ZSTD = ".zst"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: `kind` for programs (stable, lower-case, dashes), `text` for people (one sentence, no full stop).

    The symbol fields are set where the reason is about one symbol. `hint` says what to do, where a person
    can do something: a command or one short sentence.
    """

    kind: str
    text: str
    symbol: str | None = None
    wanted_crc: int | None = None
    offered_crc: int | None = None
    exporter: str | None = None
    hint: str | None = None


# ---- modules and kernels -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ElfIdent:
    """What must be equal between any two objects that one kernel loads."""

    bits: int  # 32 or 64
    endian: str  # "little" or "big"
    machine: int  # e_machine


@dataclass(frozen=True, slots=True)
class Import:
    name: str
    weak: bool


@dataclass(frozen=True, slots=True)
class Export:
    """One exported symbol. `crc` is None where the exporter carries none (CONFIG_MODVERSIONS off)."""

    name: str
    crc: int | None
    exporter: str  # "vmlinux", or a module as Module.symvers names it (path without .ko), or a module name
    gpl_only: bool
    namespace: str | None


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """What one .ko says of itself, uncompressed."""

    path: str
    name: str  # kernel name: `-` already turned into `_`
    ident: ElfIdent
    vermagic: str | None
    struct_size: int | None  # size of .gnu.linkonce.this_module: sizeof(struct module) of its kernel
    licenses: tuple[str, ...]
    depends: tuple[str, ...]
    import_ns: tuple[str, ...]
    imports: tuple[Import, ...]
    versions: Mapping[str, int] | None  # __versions; None where the section is absent
    ext_versions: Mapping[str, int] | None  # __version_ext_*; None where absent
    exports: tuple[Export, ...]
    srcversion: str | None
    version: str | None
    signature: Signature
    has_btf: bool
    has_btf_base: bool
    livepatch: bool
    intree: bool = False  # says that it was built with the kernel itself
    problems: tuple[Reason, ...] = ()  # what every kernel's loader would refuse, whatever its symbols

    @property
    def release(self) -> str | None:
        """The kernel it was built for: the first word of its vermagic."""
        return self.vermagic.split(" ", 1)[0] if self.vermagic else None


@dataclass(frozen=True, slots=True)
class Kernel:
    """One directory below /lib/modules, cheaply: no symvers is read for this."""

    krel: str
    state: KernelState
    modulesd: str  # host path
    kdir: str | None  # host path of the headers, links resolved inside the root
    image: str | None  # host path of vmlinuz
    problems: tuple[Reason, ...]  # why the state is not complete
    changed_at: float  # newest ctime (s since epoch) of what was looked at: settled when old enough
    installed_at: float = 0.0  # the same of modules and boot image alone, without the headers


@dataclass(frozen=True, slots=True)
class KernelAbi:
    """What modules must agree with, read from the headers and from one in-tree module."""

    krel: str
    ident: ElfIdent | None
    vermagic: str | None  # of an in-tree module
    struct_size: int | None  # of an in-tree module
    modversions: bool
    exports: Mapping[str, Export]  # Module.symvers, or empty where none was readable
    symvers_path: str | None
    symvers_digest: str | None  # sha256 of the file's text
    config_digest: str | None
    config: Mapping[str, str]  # CONFIG_… → value, only what is set
    problems: tuple[Reason, ...]  # what could not be read: any of these makes verdicts unknown
    reference: str | None = None  # host path of the in-tree module that vermagic and struct_size are of
    absent: frozenset[str] = frozenset()  # exporters in `exports` whose module is not on disk


@dataclass(frozen=True, slots=True)
class Stablelist:
    """The symbols that a distribution promises to keep, or why its list could not be read."""

    path: str
    symbols: frozenset[str]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CompatResult:
    """The checker's answer for one module against one kernel."""

    path: str
    module: str
    verdict: Verdict
    symbols_compared: int
    reasons: tuple[Reason, ...]


# ---- packages ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Package:
    """A named, versioned source, by what its directory is called; the recipe may still be broken."""

    name: str
    version: str
    source: str  # host path
    kind: str  # "dkms" or "toml"
    digest: str  # of the source tree and of every override: changes when anything that is built changes
    problem: Reason | None = None  # e.g. an outward symlink, an unreadable file

    @property
    def id(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class RecipeModule:
    built_name: str  # file name without .ko, in the build tree
    built_location: str  # relative directory in the build tree, "" for its top
    dest_name: str  # file name without .ko, on the kernel
    strip: bool


@dataclass(frozen=True, slots=True)
class RecipePatch:
    """One patch that applies on this kernel."""

    file: str  # relative to the source; the administrator's: to packages.d/NAME/patches
    strip: int = 1
    directory: str = ""  # where it applies, relative to the build tree
    own: bool = False  # the administrator's


@dataclass(frozen=True, slots=True)
class RecipeArchive:
    """A tar archive in the source that is unpacked before anything else."""

    file: str  # relative to the source
    directory: str  # relative to the build tree
    strip: int  # leading parts of its paths that are left out


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one package is built for one kernel: the value of an evaluated dkms.conf or autokmod.toml."""

    name: str
    version: str
    modules: tuple[RecipeModule, ...]
    make: str  # one bash command line, run in the build tree; "" means plain `make -C kdir M=.`
    patches: tuple[str, ...]  # relative to the source's patches/, in order, -p1
    autoinstall: bool
    build_depends: tuple[str, ...]
    pre_build: str
    post_build: str
    excluded: Reason | None  # BUILD_EXCLUSIVE_*: not for this kernel
    warnings: tuple[Reason, ...] = ()
    link_allowed: bool = True  # NO_WEAK_MODULES=yes: its author wants it built for each kernel
    kind: str = "dkms"  # or "toml": its modules' location is a shell pattern, or ** for anywhere
    archives: tuple[RecipeArchive, ...] = ()
    series: tuple[RecipePatch, ...] = ()  # after `patches`
    flags: tuple[str, ...] = ()  # for every compiler: -DNAME=VALUE …
    variables: tuple[str, ...] = ()  # NAME=VALUE, for every make
    directory: str = ""  # where the commands run, relative to the build tree
    configure: str = ""  # one bash command line
    install: str = ""  # one bash command line, into $destdir, where the modules are then taken from
    tools: tuple[str, ...] = ()  # programs without which it cannot be built
    applied: tuple[str, ...] = ()  # each patch and flag that was chosen, and why
    passed_over: tuple[str, ...] = ()  # those that were not, and why
    undecided: tuple[str, ...] = ()  # those of which nobody can tell as long as the headers are missing


# ---- builds --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BuildError:
    """One compiler or tool error, as the log has it. `file`/`line` are empty/0 where the tool names none."""

    file: str
    line: int
    text: str
    symbol: str | None = None  # the undeclared function, missing member, header or target that it is about


@dataclass(frozen=True, slots=True)
class BuiltModule:
    name: str  # kernel name
    dest_name: str  # file name without .ko
    file: str  # file name inside the build's directory in the store
    sha256: str  # of the unsigned, uncompressed file
    size: int
    srcversion: str | None
    vermagic: str | None


@dataclass(frozen=True, slots=True)
class Build:
    """One entry of the store: /var/lib/autokmod/builds/KEY/manifest.json."""

    key: str
    source_key: str  # the part of the key that does not depend on the kernel
    package: str
    version: str
    krel: str  # the kernel it was built for
    ok: bool
    transient: bool  # failed for a reason that may pass by itself (time limit, disk full, tool killed)
    errors: tuple[BuildError, ...]
    modules: tuple[BuiltModule, ...]
    built_at: float  # s since epoch
    duration_s: float
    directory: str  # host path of builds/KEY
    features: Mapping[str, str] | None = None  # fingerprint of its kernel's configuration: that kernel may be gone
    applied: tuple[str, ...] = ()  # patches and flags that went into it, and the facts that chose them


# ---- decisions and what stands on disk -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ForeignOrigin:
    """Whose build it is that autokmod links to, or took over, without having made it."""

    owner: str  # "DKMS", or "the vendor" where only the files are known
    krel: str  # the kernel that it was built for
    place: str  # where it was found in a modules directory: updates/dkms, extra/NAME
    has_source: bool  # False: there is no package on this machine that it could be built from
    features: Mapping[str, str] | None = None  # fingerprint of its kernel's configuration, where that was known


@dataclass(frozen=True, slots=True)
class Decision:
    """Of one package on one kernel."""

    package: str
    version: str
    krel: str
    kind: DecisionKind
    reasons: tuple[Reason, ...]  # the shortest true sentence first
    key: str | None = None  # the build that is (or will be) used
    stored: bool = False  # that build is already in the store: nothing is compiled
    link_from: str | None = None  # krel whose files are linked to
    symbols_compared: int = 0
    foreign: ForeignOrigin | None = None  # the build is another owner's
    instead_of: tuple[str, ...] = ()  # newer versions, which do not build for this kernel
    beside: tuple[PlacedFile, ...] = ()  # another owner's files here, which make ours needless


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """One module of ours in a kernel's modules directory, or of another owner that is relied upon."""

    module: str  # kernel name
    path: str  # relative to the modules directory
    target: str | None  # text of the link, None for an own file
    sha256: str  # of the bytes that stand there (a link: of the file it leads to)
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class SignedBy:
    """Whose signature modules carry."""

    name: str  # the certificate's common name
    fingerprint: str  # sha256 of the certificate, hex
    key_id: str  # its subject key identifier, hex, as /proc/keys has it; "" where it has none
    digest: str  # the hash that was signed: sha256 …
    origin: str  # where the key was found: configured, ubuntu, dkms, akmods, autokmod


@dataclass(frozen=True, slots=True)
class Placement:
    """One package in one kernel's placement manifest. `verified`: depmod picks exactly these files."""

    package: str
    version: str
    kind: DecisionKind
    reasons: tuple[Reason, ...]
    key: str | None
    source_key: str | None
    link_from: str | None
    symbols_compared: int
    files: tuple[PlacedFile, ...]
    verified: bool
    errors: tuple[BuildError, ...] = ()  # of the failed build, if that is what stands in the way
    failed: bool = False  # the decision could not be carried out; reasons say why
    foreign: ForeignOrigin | None = None  # the files are another owner's build
    instead_of: tuple[str, ...] = ()  # newer versions, which do not build for this kernel
    log: str | None = None
    standing: bool = False  # what was decided is not carried out: the files, if any, are what stood there before
    signed_by: SignedBy | None = None  # None: autokmod did not sign them
    beside: tuple[PlacedFile, ...] = ()  # another owner's files here, which make ours needless: never touched

    @property
    def is_good(self) -> bool:
        """What was decided is there, proven."""
        return self.verified and not self.failed and not self.standing


@dataclass(frozen=True, slots=True)
class ForeignBuild:
    """One package's modules in a kernel, made by another owner: to be linked to, never to be touched."""

    key: str  # digest of whose it is and of the files' content
    package: str
    version: str
    krel: str  # in whose modules directory the files are
    origin: ForeignOrigin
    files: tuple[PlacedFile, ...]
    modules: tuple[ModuleFacts, ...]
    taken_over: bool = False  # a copy among autokmod's own files, since the kernel that had it went
    problem: Reason | None = None  # why nothing can be said of it, and no link is made

    @property
    def names(self) -> frozenset[str]:
        return frozenset(file.module for file in self.files)


class LoadState(StrEnum):
    """Of one module of ours in the running kernel."""

    LOADED = "loaded"  # what was built
    OTHER = "other"  # something else by that name
    UNTOLD = "untold"  # loaded, but neither kernel nor module say what it is
    NOT_LOADED = "not-loaded"


@dataclass(frozen=True, slots=True)
class ModuleId:
    """By what a loaded module is known: both, one or none may be there."""

    srcversion: str | None
    build_id: str | None  # the whole note, hex


@dataclass(frozen=True, slots=True)
class BootedModule:
    module: str  # kernel name
    package: str
    state: LoadState
    required: bool


@dataclass(frozen=True, slots=True)
class BootCheck:
    """What one boot made of what was promised for it."""

    boot_id: str
    checked_at: float  # s since epoch
    modules: tuple[BootedModule, ...]
    lacking: tuple[str, ...] = ()  # packages that are required, and not in place: of these nothing was promised
    previous_stays: bool = False  # the image before it should be gone, and could not be removed: to be tried again

    @property
    def is_about_nothing(self) -> bool:
        """Neither was anything promised, nor should anything have been."""
        return not (self.modules or self.lacking)

    @property
    def is_good(self) -> bool:
        """Nothing else is loaded than what was built, and of what is required all."""
        wrong = (LoadState.OTHER, LoadState.NOT_LOADED)
        is_wrong = any(m.state is LoadState.OTHER or (m.required and m.state in wrong) for m in self.modules)
        return not is_wrong and not self.lacking

    @property
    def is_over(self) -> bool:
        """Nothing is left that could still become right in this boot."""
        late = any(m.state in (LoadState.OTHER, LoadState.NOT_LOADED) for m in self.modules)
        return not (late or self.lacking or self.previous_stays)


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """/var/lib/autokmod/kernels/KREL.json: what autokmod believes of one kernel."""

    krel: str
    updated_at: float
    placements: tuple[Placement, ...]
    going: bool = False  # a removal was announced: our files are out of it already, nothing is placed again by itself
    initrd: Reason | None = None  # the last word on the image: refreshed, not concerned, failed …
    initrd_ok: bool = True
    initrd_seen: tuple[int, ...] | None = None  # what stat(2) said of the image that `initrd` is about
    initrd_modules: tuple[str, ...] = ()  # ours that it carries as they are on disk
    initrd_waits_since: float | None = None  # s since epoch: others are at work, whose end it waits for
    # Kernel.changed_at and .installed_at as they were when it was examined; None in records of before
    kernel_changed_at: float | None = None
    kernel_installed_at: float | None = None
    index: Reason | None = None  # why depmod's index is not what it should be; it is made again with the next look
    enforced: Reason | None = None  # why it loads only signed modules, if it does
    booted: BootCheck | None = None  # the last boot of it that was compared with what stands on disk


@dataclass(frozen=True, slots=True)
class KernelStatus:
    """What `autokmodctl status` says of one kernel."""

    krel: str
    state: KernelState
    readiness: Readiness
    running: bool
    next_boot: bool | None  # None: not known
    reasons: tuple[Reason, ...]
    placements: tuple[Placement, ...]
    booted: BootCheck | None = None  # of the running kernel: this boot


@dataclass(frozen=True, slots=True)
class NextBoot:
    """Which kernel the next boot takes: without guessing."""

    krel: str | None  # None: not known, or no kernel (`reason` says which)
    loader: str  # "grub", "systemd-boot", or "" where even that is not known
    entry: str  # its title or id, as the boot loader has it
    reason: Reason

    @property
    def is_known(self) -> bool:
        """Also that it is none of these kernels."""
        return self.krel is not None or self.reason.kind == "next-boot-other"


@dataclass(frozen=True, slots=True)
class Hold:
    """The boot guard keeps one kernel as the default in another's place."""

    kernel: str  # would be the default, and lacks something that is required
    keeps: str  # is the default instead
    loader: str
    entry: str  # what the boot loader was told
    before: str  # what it had been told before; "": nothing
    since: float  # s since epoch
    boots: int  # of the machine, since then
    boot_id: str  # of the last one that was counted
    why: Reason  # what the kernel lacks
    instead_of: str = ""  # an entry of autokmod's that the boot loader may still be told, if it was killed in between


@dataclass(frozen=True, slots=True)
class KeptOut:
    """A new kernel that has no boot entry yet: kernel-install was stopped before it made one."""

    kernel: str
    image: str  # what kernel-install was given, to be given again
    initrds: tuple[str, ...]
    since: float  # s since epoch
    why: Reason  # what the kernel lacks


@dataclass(frozen=True, slots=True)
class GuardState:
    """/var/lib/autokmod/bootguard.json."""

    hold: Hold | None = None
    last_good: str | None = None  # the last kernel that was the default, and had all that is required
    given_up: tuple[str, ...] = ()  # kernels that were held back for as long as is allowed, and are not any more
    problem: Reason | None = None  # why nothing is done although something is required and lacking
    kept_out: tuple[KeptOut, ...] = ()


# ---- jobs ----------------------------------------------------------------------------------------


class Verb(StrEnum):
    RECONCILE = "reconcile"  # make kernel KREL right
    REMOVE = "remove"  # kernel KREL goes: promote what others link to, clean up
    RESCAN = "rescan"  # look at the whole machine; krel is "all"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DELAYED = "delayed"  # will be tried again at not_before


@dataclass(frozen=True, slots=True)
class Job:
    """One intent in the spool. Two files can never hold the same intent: the name is made of it."""

    verb: Verb
    krel: str
    why: str  # who asked: kernel-install, debian-postinst, watcher, boot, admin …
    created_at: float
    id: int = 0  # given by the daemon when it takes the file up; 0 before
    attempt: int = 0
    not_before: float = 0.0
    last_error: str = ""
    force: bool = False  # try failed builds again
    state: JobState = JobState.QUEUED

    @property
    def name(self) -> str:
        return f"{self.verb}-{self.krel}"

    @property
    def handle(self) -> str:
        """What the journal knows it by: its number; its name where no daemon gave it one."""
        return str(self.id or self.name)


@dataclass(frozen=True, slots=True)
class JobResult:
    """How one run of a job ended. `transient`: worth another try, by itself and later; `patient`: until it is done."""

    result: str  # "done", "failed", "cancelled"
    message: str = ""
    transient: bool = False
    patient: bool = False
