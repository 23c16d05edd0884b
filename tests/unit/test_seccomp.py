"""The filter of system calls, run by hand as the kernel would; tests/system/test_hostile.py has the kernel do it."""

from __future__ import annotations

import errno
import struct

import pytest

from autokmod.seccomp import MACHINES, RETURN_ALLOW, RETURN_ERRNO, refusal_filter

X86_64, I386, AARCH64, RISCV64 = 0xC000003E, 0x40000003, 0xC00000B7, 0xC00000F3


def judge(machine: str, arch: int, number: int, argument: int = 0) -> int:
    """What the program returns for one call."""
    program = refusal_filter(machine)
    assert program is not None
    data = struct.pack("=IIQ6Q", number, arch, 0, 0, argument, 0, 0, 0, 0)
    instructions: list[tuple[int, int, int, int]] = list(struct.iter_unpack("=HBBI", program))
    at = value = 0
    while True:
        operation, if_true, if_false, operand = instructions[at]
        at += 1
        match operation:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                value &= operand
            case 0x15:
                at += if_true if value == operand else if_false
            case 0x35:
                at += if_true if value >= operand else if_false
            case 0x06:
                return operand
            case _:
                pytest.fail(f"no such operation: {operation:#x}")


@pytest.mark.parametrize(
    ("machine", "arch", "number", "argument", "error"),
    [
        ("x86_64", X86_64, 0, 0, None),  # read
        ("x86_64", X86_64, 59, 0, None),  # execve
        ("x86_64", X86_64, 285, 0, errno.EOPNOTSUPP),  # fallocate
        ("x86_64", X86_64, 250, 0, errno.EPERM),  # keyctl
        ("x86_64", X86_64, 16, 0x5401, None),  # ioctl TCGETS
        ("x86_64", X86_64, 16, 0x5412, errno.EPERM),  # TIOCSTI
        ("x86_64", X86_64, 16, 0x40305828, errno.EOPNOTSUPP),  # FS_IOC_RESVSP
        ("x86_64", X86_64, 16, 0xFFFFFFFF_40305828, errno.EOPNOTSUPP),  # the kernel looks at 32 bits, too
        ("x86_64", X86_64, 0x40000000 + 285, 0, errno.ENOSYS),  # x32
        ("x86_64", I386, 285, 0, None),  # setfsgid32
        ("x86_64", I386, 324, 0, errno.EOPNOTSUPP),  # fallocate
        ("x86_64", I386, 117, 0, errno.ENOSYS),  # ipc
        ("x86_64", I386, 54, 0x5412, errno.EPERM),
        ("x86_64", RISCV64, 0, 0, errno.ENOSYS),
        ("aarch64", AARCH64, 47, 0, errno.EOPNOTSUPP),
        ("aarch64", AARCH64, 29, 0x5413, None),
        ("aarch64", AARCH64, 63, 0, None),  # read
    ],
)
def test_a_call_is(machine: str, arch: int, number: int, argument: int, error: int | None) -> None:
    assert judge(machine, arch, number, argument) == (RETURN_ALLOW if error is None else RETURN_ERRNO | error)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_refused_call_is_refused(machine: str) -> None:
    for calls in MACHINES[machine]:
        for name, number in calls.numbers.items():
            assert judge(machine, calls.audit_arch, number) & 0xFFFF0000 == RETURN_ERRNO, name


def test_a_machine_whose_numbers_are_not_known_has_no_filter() -> None:
    assert refusal_filter("s390x") is None
