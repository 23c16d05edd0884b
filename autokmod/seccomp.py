"""System calls that builds do not need, refused: as the classic BPF program that bwrap loads. Pure.

Only those that would go round a limit or reach what is not the build's:

* fallocate (and its ioctls, and io_uring, which can do the same unseen) takes any amount of disk in no time, so that
  nobody could watch it being used. glibc's posix_fallocate writes instead when it is refused.
* memfd_create, System V shared memory and message queues hold memory that no process's limit counts.
* Keyrings are inherited: root's session keyring would be open to the build.

A machine that is not listed goes without: namespaces, user and limits hold all the same. Numbers: asm/unistd_64.h,
asm/unistd_32.h, asm-generic/unistd.h. A program for another instruction set than those two of its machine is refused
every call.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

RETURN_ALLOW = 0x7FFF0000
RETURN_ERRNO = 0x00050000
X32 = 0x40000000  # numbers from here on are x86-64's third instruction set
LOAD, AND, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
AT_NUMBER, AT_ARCH, AT_SECOND_ARGUMENT = 0, 4, 24  # in struct seccomp_data; little-endian

REFUSED: Mapping[str, int] = {
    "fallocate": errno.EOPNOTSUPP,
    "io_uring_setup": errno.ENOSYS,
    "memfd_create": errno.ENOSYS,
    "memfd_secret": errno.ENOSYS,
    "shmget": errno.ENOSYS,
    "msgget": errno.ENOSYS,
    "ipc": errno.ENOSYS,  # the two above by their old door
    "add_key": errno.EPERM,
    "request_key": errno.EPERM,
    "keyctl": errno.EPERM,
}
# By type and number, whatever the direction and size: FS_IOC_RESVSP, FS_IOC_RESVSP64, FS_IOC_ZERO_RANGE, TIOCSTI.
REFUSED_IOCTLS = {0x5828: errno.EOPNOTSUPP, 0x582A: errno.EOPNOTSUPP, 0x5839: errno.EOPNOTSUPP, 0x5412: errno.EPERM}


@dataclass(frozen=True, slots=True)
class Calls:
    audit_arch: int
    ioctl: int
    numbers: Mapping[str, int]
    has_x32: bool = False


_X86_64 = Calls(
    0xC000003E,
    16,
    {
        "fallocate": 285,
        "io_uring_setup": 425,
        "memfd_create": 319,
        "memfd_secret": 447,
        "shmget": 29,
        "msgget": 68,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
    },
    has_x32=True,
)
_I386 = Calls(
    0x40000003,
    54,
    {
        "fallocate": 324,
        "io_uring_setup": 425,
        "memfd_create": 356,
        "memfd_secret": 447,
        "shmget": 395,
        "msgget": 399,
        "ipc": 117,
        "add_key": 286,
        "request_key": 287,
        "keyctl": 288,
    },
)
_AARCH64 = Calls(
    0xC00000B7,
    29,
    {
        "fallocate": 47,
        "io_uring_setup": 425,
        "memfd_create": 279,
        "memfd_secret": 447,
        "shmget": 194,
        "msgget": 186,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
    },
)
MACHINES: Mapping[str, Sequence[Calls]] = {"x86_64": (_X86_64, _I386), "aarch64": (_AARCH64,)}

Instruction = tuple[int, int, int, int]  # operation, steps over if true, if false, operand


def refusal_filter(machine: str) -> bytes | None:
    """An array of struct sock_filter for this `uname -m`; None where the numbers are not known."""
    if machine not in MACHINES:
        return None
    program: list[Instruction] = [(LOAD, 0, 0, AT_ARCH)]
    for calls in MACHINES[machine]:
        block = list(_block(calls))
        program += [(JUMP_EQUAL, 0, len(block), calls.audit_arch), *block]
    program.append(_refuse(errno.ENOSYS))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _block(calls: Calls) -> Iterator[Instruction]:
    yield (LOAD, 0, 0, AT_NUMBER)
    if calls.has_x32:
        yield (JUMP_AT_LEAST, 0, 1, X32)
        yield _refuse(errno.ENOSYS)
    for name, number in calls.numbers.items():
        yield (JUMP_EQUAL, 0, 1, number)
        yield _refuse(REFUSED[name])
    yield (JUMP_EQUAL, 1, 0, calls.ioctl)
    yield (RETURN, 0, 0, RETURN_ALLOW)
    yield (LOAD, 0, 0, AT_SECOND_ARGUMENT)
    yield (AND, 0, 0, 0xFFFF)
    for request, error in REFUSED_IOCTLS.items():
        yield (JUMP_EQUAL, 0, 1, request)
        yield _refuse(error)
    yield (RETURN, 0, 0, RETURN_ALLOW)


def _refuse(error: int) -> Instruction:
    return (RETURN, 0, 0, RETURN_ERRNO | error)
