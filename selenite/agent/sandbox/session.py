"""A working directory, and runs in it one after another."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from selenite.agent.sandbox import bubblewrap, process, reading, seccomp
from selenite.agent.sandbox.bubblewrap import NOBODY, OWN_PROCESSES, Programs
from selenite.agent.sandbox.cgroup import Cgroup, Place
from selenite.agent.sandbox.disk import Disk
from selenite.agent.sandbox.limits import KilledBy, Limits
from selenite.agent.sandbox.writing import Writer
from selenite.errors import ConfigError


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    exit_code: int | None  # 128 + a signal's number if one ended it; None: a limit did
    was_killed_by: KilledBy | None
    stdout: bytes  # both up to the limit on output
    stderr: bytes
    seconds: float  # on the wall, the sandbox's own ones included
    cpu_seconds: float  # of all processes
    files: Mapping[str, bytes]  # those asked for, by path in the working directory
    left_out: tuple[str, ...]  # asked for, and unreadable, no regular file, or too large together

    @property
    def is_ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0

    @property
    def stdout_text(self) -> str:
        """As UTF-8; what is none becomes the replacement character."""
        return self.stdout.decode(errors="replace")

    @property
    def stderr_text(self) -> str:
        """As UTF-8; what is none becomes the replacement character."""
        return self.stderr.decode(errors="replace")


class Session:
    """A working directory that stays, and processes that do not: each run has its own.

    For one thread at a time. Close it, or use it in a ``with`` statement.
    """

    def __init__(
        self, programs: Programs, place: Place, limits: Limits, readable: Sequence[Path]
    ) -> None:
        self._programs = programs
        self._place = place
        self._limits = limits
        self._busy = threading.Lock()
        self._disk = Disk(programs, limits, [*bubblewrap.python_folders(), *readable])
        self._writer = Writer(self._disk.root, NOBODY if bubblewrap.is_root() else None)

    def run(
        self,
        command: Sequence[str],
        files: Mapping[str, bytes | str] | None = None,
        stdin: bytes | str = b"",
        collect: Sequence[str] = (),
    ) -> Outcome:
        """As ``Sandbox.run``, with the files that earlier runs left."""
        _check(command)
        given = stdin if isinstance(stdin, bytes) else _encoded("stdin", stdin)
        contents = {
            name: content if isinstance(content, bytes) else _encoded(f"files: {name!r}", content)
            for name, content in (files or {}).items()
        }
        is_free = self._busy.acquire(blocking=False)
        assert is_free, "a session is for one thread at a time"
        try:
            self._writer.write(contents)
            ended = self._isolated(command, given)
            found, left_out = reading.read(self._disk.root, collect, self._limits.disk_bytes)
        finally:
            self._busy.release()
        return Outcome(
            exit_code=None if ended.killed_by else ended.exit_code,
            was_killed_by=ended.killed_by,
            stdout=ended.stdout,
            stderr=ended.stderr,
            seconds=ended.seconds,
            cpu_seconds=ended.cpu_seconds,
            files=found,
            left_out=left_out,
        )

    def files(self, patterns: Sequence[str] = ("*",)) -> dict[str, bytes]:
        """Contents of the readable files by path, up to ``limits.disk_bytes`` together."""
        return reading.read(self._disk.root, patterns, self._limits.disk_bytes)[0]

    def load(self, directory: Path) -> None:
        """Copies a directory's content into the working directory, modes and times included.

        Raises ``ConfigError`` for what is no directory or holds more than files, folders and
        symbolic links, and ``StorageError`` where it does not fit.
        """
        self._writer.copy_in(directory)

    def snapshot(self, directory: Path) -> tuple[str, ...]:
        """Copies the working directory to a new directory, from which a session can start.

        Symbolic links stay what they are and may point anywhere. Returns the paths that were left
        out: what is unreadable or too large, and sockets and the like. Raises ``ConfigError``
        where the directory exists, and ``StorageError`` where it cannot be written.
        """
        return reading.copy_out(self._disk.root, directory, self._limits.disk_bytes)

    def close(self) -> None:
        """Removes the working directory."""
        self._disk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _isolated(self, command: Sequence[str], stdin: bytes) -> process.Ended:
        cgroup = Cgroup(self._place, self._limits, OWN_PROCESSES)
        filter_fd = process.sealed(seccomp.program(platform.machine()))
        try:
            line = bubblewrap.command_line(
                self._programs,
                self._limits,
                cgroup.joins,
                self._disk.enters,
                self._disk.mounts,
                filter_fd,
                command,
            )
            return process.run(line, cgroup, self._limits, stdin, filter_fd)
        finally:
            os.close(filter_fd)
            cgroup.remove()


def _check(command: Sequence[str]) -> None:
    if isinstance(command, str) or not command or not command[0]:
        raise ConfigError(
            f"command={command!r}: must be a program and arguments, as in ['python3', 'main.py']"
        )
    for argument in command:
        if "\0" in argument:
            raise ConfigError(f"command: {argument[:60]!r} has a zero byte; pass it in a file")
        _encoded("command", argument)


def _encoded(what: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{what}: character {error.start} is half of a surrogate pair, which UTF-8 has not; "
            "replace it, or give bytes"
        ) from error
