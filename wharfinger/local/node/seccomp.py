"""The system calls that no container makes: a filter in classic BPF, assembled (seccomp(2)).

Pure. What is refused would widen what a hostile pod can try on the kernel and is of no use to a workload: mounting,
new namespaces, kernel modules, BPF, keyrings that are not namespaced, `io_uring`, sockets to the hypervisor. The list
follows the default profiles of container runtimes in spirit. Refused calls fail with EPERM, so that programs that
probe for them go on; `clone3`, whose flags a filter cannot read, says ENOSYS and libraries fall back to `clone`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in `struct seccomp_data`; the low half of an argument comes first on these machines."""
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_X32: Final = 0x40000000
_NEW_NAMESPACES: Final = 0x7E020000 | 0x00000080
"""CLONE_NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWNS and NEWTIME."""

ARCHITECTURES: Final[Mapping[str, int]] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED: Final[Mapping[str, Mapping[str, int]]] = {
    "x86_64": {
        "acct": 163, "add_key": 248, "bpf": 321, "clock_settime": 227, "create_module": 174, "delete_module": 176,
        "finit_module": 313, "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "init_module": 175,
        "io_uring_enter": 426, "io_uring_register": 427, "io_uring_setup": 425, "ioperm": 173, "iopl": 172,
        "kexec_file_load": 320, "kexec_load": 246, "keyctl": 250, "mount": 165, "mount_setattr": 442,
        "move_mount": 429, "open_by_handle_at": 304, "open_tree": 428, "perf_event_open": 298, "pivot_root": 155,
        "quotactl": 179, "quotactl_fd": 443, "reboot": 169, "request_key": 249, "setns": 308, "settimeofday": 164,
        "swapoff": 168, "swapon": 167, "syslog": 103, "umount2": 166, "unshare": 272, "userfaultfd": 323,
    },
    "aarch64": {
        "acct": 89, "add_key": 217, "bpf": 280, "clock_settime": 112, "delete_module": 106, "finit_module": 273,
        "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "init_module": 105, "io_uring_enter": 426,
        "io_uring_register": 427, "io_uring_setup": 425, "kexec_file_load": 294, "kexec_load": 104, "keyctl": 219,
        "mount": 40, "mount_setattr": 442, "move_mount": 429, "open_by_handle_at": 265, "open_tree": 428,
        "perf_event_open": 241, "pivot_root": 41, "quotactl": 60, "quotactl_fd": 443, "reboot": 142,
        "request_key": 218, "setns": 268, "settimeofday": 170, "swapoff": 225, "swapon": 224, "syslog": 116,
        "umount2": 39, "unshare": 97, "userfaultfd": 282,
    },
}  # fmt: skip
_CLONE: Final[Mapping[str, int]] = {"x86_64": 56, "aarch64": 220}
_CLONE3: Final = 435
_SOCKET: Final[Mapping[str, int]] = {"x86_64": 41, "aarch64": 198}
_REFUSED_FAMILIES: Final = (17, 38, 40)
"""AF_PACKET, AF_ALG and AF_VSOCK."""


def program(machine: str) -> bytes:
    """Return the filter for `machine` (as uname says it) as an array of `struct sock_filter`, empty when unknown.

    A call made for another architecture than the machine's own (32-bit, x32) is refused.
    """
    if machine not in ARCHITECTURES:
        return b""
    made = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        _refusal(_EPERM),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        made += [(_JUMP_AT_LEAST, 0, 1, _X32), _refusal(_EPERM)]
    made += [(_JUMP_EQUAL, 0, 1, _CLONE3), _refusal(_ENOSYS)]
    for number in sorted(_REFUSED[machine].values()):
        made += [(_JUMP_EQUAL, 0, 1, number), _refusal(_EPERM)]
    made += [
        (_JUMP_EQUAL, 0, 4, _CLONE[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_SET, 0, 1, _NEW_NAMESPACES),
        _refusal(_EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    made += [(_JUMP_EQUAL, 0, 1 + 2 * len(_REFUSED_FAMILIES), _SOCKET[machine]), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    for family in _REFUSED_FAMILIES:
        made += [(_JUMP_EQUAL, 0, 1, family), _refusal(_EPERM)]
    made.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in made)


def _refusal(number: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | number)
