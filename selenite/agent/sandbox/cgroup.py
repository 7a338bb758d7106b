"""Control groups: what bounds all processes of a run together, whoever they run as.

Version 1 has a tree of groups for each kind of bound, version 2 one tree for all; ``place.py``
finds which there is. What a group counts also says which bound ended a run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from selenite.agent.sandbox.limits import KilledBy, Limits
from selenite.clock import SystemClock
from selenite.errors import UnsupportedError

REMEDY = (
    "run as root where /sys/fs/cgroup is writable, or as a user of systemd with: "
    "systemd-run --user --scope COMMAND"
)
_END_SECONDS = 10.0
_serial = itertools.count()


@dataclass(frozen=True)
class Place:
    """Where groups are made: a directory for each kind of bound (in version 2 the same)."""

    version: int
    memory: Path
    pids: Path
    cpu: Path


def prefix() -> str:
    """How the names of all groups begin that processes of this machine, or container, make."""
    return f"selenite-{os.stat('/proc/self/ns/pid').st_ino}-"


class Cgroup:
    """The group of one run.

    Args:
        own_processes: those of the sandbox itself, which do not count.

    Raises ``UnsupportedError`` where it cannot be made.
    """

    def __init__(self, place: Place, limits: Limits, own_processes: int) -> None:
        name = f"{prefix()}{os.getpid()}-{next(_serial)}"
        self._limits = limits
        self._is_v2 = place.version == 2
        self._memory, self._pids, self._cpu = (
            folder / name for folder in (place.memory, place.pids, place.cpu)
        )
        self._folders = tuple(dict.fromkeys((self._memory, self._pids, self._cpu)))
        try:
            self.remove()  # of a process that had this number before and was killed
            for folder in self._folders:
                folder.mkdir()
            self._bound(limits.processes + own_processes)
        except OSError as error:
            self.remove()
            raise UnsupportedError(
                f"no control group can be made and bounded ({error}); {REMEDY}"
            ) from error

    @property
    def joins(self) -> tuple[str, ...]:
        """Files into which a process writes 0 to come under all bounds."""
        return tuple(str(folder / "cgroup.procs") for folder in self._folders)

    def cpu_seconds(self) -> float:
        """Processor time of all that ran in the group."""
        if self._is_v2:
            return _counter(self._cpu / "cpu.stat", "usage_usec") / 1e6
        return int((self._cpu / "cpuacct.usage").read_text()) / 1e9

    def crossed(self) -> KilledBy | None:
        """The bound that the group has met so far."""
        events = "memory.events" if self._is_v2 else "memory.oom_control"
        if _counter(self._memory / events, "oom_kill"):
            return KilledBy.MEMORY
        if _counter(self._pids / "pids.events", "max"):
            return KilledBy.PROCESSES
        if self.cpu_seconds() > self._limits.cpu_seconds:
            return KilledBy.CPU
        return None

    def kill(self) -> None:
        """Ends every process of the group; returns when none is left."""
        deadline = _Deadline()
        while pids := self._members():
            if (everyone := self._memory / "cgroup.kill").exists():
                everyone.write_text("1")
            else:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if deadline.has_passed():
                raise UnsupportedError(
                    f"processes {pids} of a run do not end {_END_SECONDS:g} seconds after SIGKILL; "
                    "the kernel's log may say what holds them"
                )

    def remove(self) -> None:
        """Removes the group, which has no process any more."""
        deadline = _Deadline()
        for folder in self._folders:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:  # busy: the kernel has not yet let go of the last process
                    if deadline.has_passed():
                        raise

    def _bound(self, processes: int) -> None:
        most = self._limits.memory_bytes
        if self._is_v2:
            (self._memory / "memory.max").write_text(str(most))
            _write_if_there(self._memory / "memory.swap.max", 0)
        else:
            (self._memory / "memory.limit_in_bytes").write_text(str(most))
            _write_if_there(self._memory / "memory.memsw.limit_in_bytes", most)
        (self._pids / "pids.max").write_text(str(processes))

    def _members(self) -> list[int]:
        listed = {
            int(pid)
            for folder in self._folders
            for pid in (folder / "cgroup.procs").read_text().split()
        }
        return sorted(listed)


class _Deadline:
    """Some seconds for what the kernel does soon."""

    def __init__(self) -> None:
        self._clock = SystemClock()  # no other: it waits for the kernel
        self._until = self._clock.now() + _END_SECONDS

    def has_passed(self) -> bool:
        """Waits for a moment first."""
        self._clock.wait(threading.Event(), 0.001)
        return self._clock.now() > self._until


def _counter(path: Path, name: str) -> int:
    """A number of a file of lines ``name number``; 0 where there is no such line."""
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _write_if_there(path: Path, value: int) -> None:
    if path.exists():  # only where the kernel counts swap
        path.write_text(str(value))
