"""System calls that the sandbox refuses: those that reach round its namespaces.

Sockets of other families than the internet's and Unix's (a vsock reaches a virtual machine's host,
whatever the network namespace), keyrings and the kernel's log, which no namespace divides; new
namespaces, and interfaces that are known for holes in the kernel and that no exercise needs.
``seccomp(2)``: a filter is a program of 8-byte instructions that the kernel runs at each call.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # offsets in the record of a call
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone takes
_X32 = 0x40000000  # numbers of a second set of calls on x86-64


@dataclass(frozen=True)
class _Machine:
    """An instruction set, and its numbers of calls."""

    audit: int  # AUDIT_ARCH_*
    socket: int
    clone: int
    refused: tuple[int, ...]


_CLONE3 = 435
_IO_URING = (425, 426, 427)  # setup, enter, register: the same numbers everywhere, as clone3's
# add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd, syslog, unshare, setns
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E, 41, 56, (248, 249, 250, 298, 321, 323, 103, 272, 308, *_IO_URING)
    ),
    "aarch64": _Machine(
        0xC00000B7, 198, 220, (217, 218, 219, 241, 280, 282, 116, 97, 268, *_IO_URING)
    ),
}

KNOWN_MACHINES = tuple(_MACHINES)


def program(machine: str) -> bytes:
    """The filter for a machine of ``KNOWN_MACHINES``."""
    known = _MACHINES[machine]
    made = [_step(_LOAD, _ARCHITECTURE), *_unless(_EQUAL, known.audit, _KILL)]
    made += [_step(_LOAD, _NUMBER), *_when(_AT_LEAST, _X32, _ERRNO | errno.ENOSYS)]
    for number in known.refused:
        made += _when(_EQUAL, number, _ERRNO | errno.EPERM)
    # Its flags are out of a filter's reach; libraries fall back to clone.
    made += _when(_EQUAL, _CLONE3, _ERRNO | errno.ENOSYS)
    made += [
        _step(_EQUAL, known.clone, 0, 4),
        _step(_LOAD, _ARGUMENT),
        *_when(_ANY_BIT, _NEW_NAMESPACES, _ERRNO | errno.EPERM),
        _step(_RETURN, _ALLOW),
    ]
    made += [*_unless(_EQUAL, known.socket, _ALLOW), _step(_LOAD, _ARGUMENT)]
    for family in _FAMILIES:
        made += _when(_EQUAL, family, _ALLOW)
    made.append(_step(_RETURN, _ERRNO | errno.EAFNOSUPPORT))
    return b"".join(made)


def _step(code: int, value: int, skipped_if: int = 0, skipped_else: int = 0) -> bytes:
    return struct.pack("=HBBI", code, skipped_if, skipped_else, value)


def _when(test: int, value: int, answer: int) -> list[bytes]:
    return [_step(test, value, 0, 1), _step(_RETURN, answer)]


def _unless(test: int, value: int, answer: int) -> list[bytes]:
    return [_step(test, value, 1, 0), _step(_RETURN, answer)]
