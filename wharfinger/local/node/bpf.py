"""The few calls of bpf(2) that put a device filter on a control group, by ctypes."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from wharfinger.core.errors import HostUnfit

_SYSCALL: Final = {"x86_64": 321, "aarch64": 280}
_LOAD, _ATTACH, _DETACH, _BY_ID, _QUERY = 5, 8, 9, 13, 16
_TYPE_CGROUP_DEVICE, _AT_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_ATTRIBUTE_BYTES: Final = 128
_MOST_PROGRAMS: Final = 64


class _Open:
    """A descriptor that is closed at the end of a block."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        os.close(self.number)


def replace_device_filter(group: Path, instructions: bytes) -> None:
    """Have `instructions` alone decide which devices the processes of `group` may open.

    The new program stands beside the old one before that goes, and both must agree: at no moment is anything open that
    neither allows. Raises `HostUnfit`.
    """
    try:
        with closing(_Open(os.open(group, os.O_RDONLY | os.O_DIRECTORY))) as folder:
            before = _attached(folder.number)
            with closing(_Open(_load(instructions))) as program:
                _call(_ATTACH, struct.pack("=IIII", folder.number, program.number, _AT_CGROUP_DEVICE, _ALLOW_MULTI))
            for old in before:
                with closing(_Open(_call(_BY_ID, struct.pack("=III", old, 0, 0)))) as program:
                    _call(_DETACH, struct.pack("=III", folder.number, program.number, _AT_CGROUP_DEVICE))
    except OSError as error:
        raise HostUnfit(f"device filter of {group.name}: {error.strerror}", hint="eBPF needs root") from error


def _attached(folder: int) -> Iterable[int]:
    """Return the ids of the device programs of a group."""
    ids = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    attributes = bytearray(
        struct.pack("=IIIIQI", folder, _AT_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _MOST_PROGRAMS)
    )
    answered = _call_in_place(_QUERY, attributes)
    count = struct.unpack_from("=I", answered, 24)[0]
    return list(ids[:count])


def _load(instructions: bytes) -> int:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQ", _TYPE_CGROUP_DEVICE, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence)
    )
    return _call(_LOAD, attributes)


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTE_BYTES)
    return _syscall(command, buffer)


def _call_in_place(command: int, attributes: bytearray) -> bytes:
    buffer = ctypes.create_string_buffer(bytes(attributes), _ATTRIBUTE_BYTES)
    _syscall(command, buffer)
    return buffer.raw


def _syscall(command: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    number = _SYSCALL.get(os.uname().machine)
    if number is None:
        raise HostUnfit(f"no bpf(2) known for {os.uname().machine}")
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, command, buffer, _ATTRIBUTE_BYTES)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
