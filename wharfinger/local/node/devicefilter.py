"""The rule about device nodes of one control group: which may be opened, and that rule as an eBPF program.

Pure. Version 1 groups take the rule as lines (`cgroup-v1/devices.rst`); version 2 has no such file and asks a program
of type BPF_PROG_TYPE_CGROUP_DEVICE at every open and mknod (`cgroup-v2.rst`, "Device controller"). Making nodes is
refused to everyone: a container's nodes are made before it joins its group.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

Number: TypeAlias = tuple[int, int | None]
"""Major and minor number of a character device; None for every minor of the major."""

PLAIN: Final[Sequence[Number]] = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, None))
"""null, zero, full, random, urandom, tty, ptmx and pseudo-terminals: what every container may open."""

_CHARACTER, _MAKE = 2, 1
_LOAD, _AND, _SHIFT, _EQUAL, _NOT_EQUAL, _ANY_OF, _MOVE, _EXIT = 0x61, 0x57, 0x77, 0x15, 0x55, 0x45, 0xB7, 0x95


def line(number: Number) -> str:
    """Return the number as version 1 writes it, reading and writing allowed."""
    major, minor = number
    return f"c {major}:{'*' if minor is None else minor} rw"


def changes(listed: str, wanted: Iterable[Number]) -> tuple[list[str], list[str]]:
    """Return the lines to deny and to allow so that a group that lists `listed` allows exactly `wanted`.

    Denying comes first and names only what goes, so that nothing that stays is shut in between.
    """
    lines = {line(number) for number in wanted}
    present = {" ".join(entry.split()) for entry in listed.splitlines() if entry.strip()}
    return sorted(present - lines), sorted(lines - present)


def program(allowed: Iterable[Number]) -> bytes:
    """Return the instructions that allow reading and writing the character devices `allowed` and nothing else.

    The program gets `struct bpf_cgroup_dev_ctx` (access type, major, minor) and returns 1 for yes.
    """
    rules: list[bytes] = []
    for major, minor in sorted(set(allowed), key=lambda n: (n[0], -1 if n[1] is None else n[1])):
        yes = [_instruction(_MOVE, 0, value=1), _instruction(_EXIT)]
        if minor is not None:
            yes.insert(0, _instruction(_NOT_EQUAL, 5, offset=len(yes), value=minor))
        rules += [_instruction(_NOT_EQUAL, 4, offset=len(yes), value=major), *yes]
    made = [
        _instruction(_LOAD, 2, source=1, offset=0),
        _instruction(_MOVE | 0x08, 3, source=2),
        _instruction(_AND, 2, value=0xFFFF),
        _instruction(_SHIFT, 3, value=16),
        _instruction(_LOAD, 4, source=1, offset=4),
        _instruction(_LOAD, 5, source=1, offset=8),
        _instruction(_MOVE, 0, value=0),
        _instruction(_EQUAL, 2, offset=1, value=_CHARACTER),
        _instruction(_EXIT),
        _instruction(_ANY_OF, 3, offset=len(rules), value=_MAKE),
    ]
    return b"".join([*made, *rules, _instruction(_EXIT)])


def _instruction(code: int, target: int = 0, *, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, target | source << 4, offset, value)
