"""One run: starts a process in the sandbox, reads what it prints, ends it at a limit.

start ─► until it ends: read output, ask the control group ─► end all that is left ─► read the
rest ─► judge by the final counts
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from selenite.agent.sandbox.bubblewrap import REMEDY, STARTED
from selenite.agent.sandbox.cgroup import Cgroup
from selenite.agent.sandbox.limits import KilledBy, Limits
from selenite.clock import SystemClock
from selenite.errors import ConfigError, UnsupportedError

_POLL_SECONDS = 0.05
_CHUNK = 2**16  # bytes
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True)
class Ended:
    """What became of a process."""

    exit_code: int  # 128 + number of the signal that ended it
    stdout: bytes
    stderr: bytes
    killed_by: KilledBy | None
    seconds: float
    cpu_seconds: float


def sealed(content: bytes) -> int:
    """A descriptor of a file in memory that nobody can change, at its beginning."""
    opened = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(opened, "wb", closefd=False) as file:
        file.write(content)
    fcntl.fcntl(opened, fcntl.F_ADD_SEALS, _SEALS)
    os.lseek(opened, 0, os.SEEK_SET)
    return opened


def run(
    command_line: Sequence[str], cgroup: Cgroup, limits: Limits, stdin: bytes, filter_fd: int
) -> Ended:
    """Runs a command line of ``bubblewrap.command_line``; none of its processes is left then.

    Raises ``ConfigError`` for one that is too long, and ``UnsupportedError`` where the sandbox
    cannot be set up, with the words of the program that failed.
    """
    clock = SystemClock()  # no other: it bounds processes that live in real time
    begun = clock.now()
    output = _Output(limits.output_bytes)
    with _start(command_line, stdin, filter_fd) as process:
        try:
            _follow(process, output, cgroup, begun + limits.seconds)
            seconds = clock.now() - begun
        finally:
            process.kill()  # its end is that of all others, which follow soon
            process.wait()
            cgroup.kill()
        output.read_rest()
    killed_by = cgroup.crossed()
    if killed_by is None and output.is_too_long:
        killed_by = KilledBy.OUTPUT
    if killed_by is None and seconds >= limits.seconds:
        killed_by = KilledBy.TIME
    stdout, stderr = (bytes(stream.content) for stream in output.streams)
    if killed_by is None and not output.has_started:
        said = stderr.decode(errors="replace").strip() or f"exit code {process.returncode}"
        raise UnsupportedError(f"the sandbox cannot be set up: {said}; {REMEDY}")
    code = process.returncode
    exit_code = code if code >= 0 else 128 - code
    return Ended(exit_code, stdout, stderr, killed_by, seconds, cgroup.cpu_seconds())


def _start(command_line: Sequence[str], stdin: bytes, filter_fd: int) -> subprocess.Popen[bytes]:
    given = sealed(stdin)
    try:
        return subprocess.Popen(
            command_line,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[filter_fd],
            env={"LANG": "C.UTF-8"},
            cwd="/",  # what is started sees where the programs above it were
            start_new_session=True,  # a Ctrl-C at the terminal is for this process alone
        )
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        raise ConfigError(
            "command: longer than the kernel takes (128 KiB an argument); put the text into files "
            "or stdin"
        ) from error
    finally:
        os.close(given)


@dataclass
class _Stream:
    fd: int
    content: bytearray = field(default_factory=bytearray)


class _Output:
    """What is printed, up to a number of bytes of both streams together."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self.streams: list[_Stream] = []
        self.has_started = False
        self.is_too_long = False

    def open(self, process: subprocess.Popen[bytes]) -> None:
        """Reads from a process's pipes from now on."""
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self.streams.append(_Stream(pipe.fileno()))

    def read(self, stream: _Stream) -> int | None:
        """Takes some of what a stream holds, and says how much; None: nothing now."""
        try:
            chunk = os.read(stream.fd, _CHUNK)
        except BlockingIOError:
            return None
        num_bytes = len(chunk)
        if not self.has_started and stream is self.streams[1] and chunk.startswith(STARTED):
            self.has_started = True
            chunk = chunk.removeprefix(STARTED)
        self.is_too_long |= len(chunk) > self._left
        stream.content += chunk[: self._left]
        self._left -= min(len(chunk), self._left)
        return num_bytes

    def read_rest(self) -> None:
        """Takes what is left in the pipes when nobody writes any more."""
        for stream in self.streams:
            while not self.is_too_long and self.read(stream):
                pass


def _follow(
    process: subprocess.Popen[bytes], output: _Output, cgroup: Cgroup, deadline: float
) -> None:
    """Reads what a process prints until it ends or crosses a limit."""
    clock = SystemClock()
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            output.open(process)
            for stream in output.streams:
                selector.register(stream.fd, selectors.EVENT_READ, stream)
            while (left := deadline - clock.now()) > 0 and not output.is_too_long:
                for key, _ in selector.select(min(left, _POLL_SECONDS)):
                    if key.fd == ended:
                        return
                    if output.read(key.data) == 0:
                        selector.unregister(key.fd)
                if cgroup.crossed():
                    return
    finally:
        os.close(ended)
