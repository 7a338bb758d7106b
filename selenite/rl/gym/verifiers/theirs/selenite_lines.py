"""Questions and answers between two processes: a line of JSON each, any number at once.

    {"id": 7, "op": "reply", ...}  ─►  stdin
                                       stdout  ─►  {"id": 7, ...} or {"id": 7, "failed": "why"}

Both interpreters use it, so it imports the standard library only. A process that is asked ends when
its input does: it never outlives the one that asks.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import IO, Any

_LAST_LINES = 20  # of its errors, that are told when a process ends
_CLEAN_SECONDS = 3.0  # that a process has at its end
_END_SECONDS = 5.0  # after which it is killed


class AskedError(Exception):
    """What a process says of its failure, or that it is gone."""


class Asked:
    """A process that is asked. For any number of threads.

    Raises ``AskedError`` where the command does not start.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._alone = threading.Lock()
        self._open: dict[int, Future[dict[str, Any]]] = {}
        self._number = 0
        self._ended = ""  # why; empty: it runs
        self._errors: deque[str] = deque(maxlen=_LAST_LINES)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise AskedError(f"{command[0]} does not start: {error}") from error
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None and stdout is not None and stderr is not None  # noqa: PT018 - pipes
        self._stdin = stdin
        self._told = threading.Thread(target=self._errors.extend, args=[stderr], daemon=True)
        self._told.start()
        threading.Thread(target=self._read, args=[stdout], daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._ended

    def begin(self, op: str, **fields: Any) -> Future[dict[str, Any]]:
        """Asks, and does not wait. The future raises ``AskedError``."""
        future: Future[dict[str, Any]] = Future()
        future.set_running_or_notify_cancel()  # whoever waits cannot cancel it
        with self._alone:
            if self._ended:
                raise AskedError(self._ended)
            self._number += 1
            self._open[self._number] = future
            try:
                self._stdin.write(json.dumps({"id": self._number, "op": op, **fields}) + "\n")
                self._stdin.flush()
            except (OSError, ValueError) as error:  # its end is closed, or ours
                self._open.pop(self._number)
                raise AskedError(f"process {self.pid} takes no more: {error}") from error
        return future

    def ask(self, op: str, seconds: float | None = None, **fields: Any) -> dict[str, Any]:
        """The answer. Raises ``AskedError``, and ``TimeoutError`` after ``seconds``."""
        return self.begin(op, **fields).result(seconds)

    def close(self) -> None:
        """Ends the process: what is still asked fails."""
        self._ended = self._ended or "it was closed"
        if self._alone.acquire(timeout=_END_SECONDS):
            try:
                self._stdin.close()
            except OSError:  # what it had not read is lost with it
                pass
            finally:
                self._alone.release()
        else:  # somebody writes to one that does not read
            self._process.kill()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self, stdout: IO[str]) -> None:
        why = "it ended"
        for line in stdout:
            try:
                answer = json.loads(line)
                future = self._open.pop(answer.pop("id"))
            except (ValueError, KeyError, AttributeError, TypeError):
                why = f"it wrote what is no answer: {line[:200]!r}"
                self._process.kill()
                break
            if "failed" in answer:
                future.set_exception(AskedError(answer["failed"]))
            else:
                future.set_result(answer)
        code = self._process.wait()
        self._told.join(_END_SECONDS)
        words = "".join(self._errors).strip()[-1000:]
        with self._alone:
            self._ended = self._ended or f"process {self.pid}: {why} (exit code {code}): {words}"
            lost, self._open = list(self._open.values()), {}
        for future in lost:
            future.set_exception(AskedError(self._ended))


Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def serve(make: Callable[[], Answer]) -> None:
    """Answers what comes from stdin, each in a task of its own, until it ends; then the process
    does, whatever still runs in it.

    What else is written to stdout goes to stderr, what ``make`` writes too. An exception of an
    answer is told to whoever asked.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asyncio.run(_serve(make(), out))


async def _serve(answer: Answer, out: IO[str]) -> None:
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()
    over = asyncio.Event()

    async def one(request: dict[str, Any]) -> None:
        number = request.pop("id")
        try:
            line = json.dumps({"id": number, **await answer(request)})
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            line = json.dumps({"id": number, "failed": _told(error)})
        out.write(line + "\n")
        out.flush()

    def start(line: str) -> None:
        task = asyncio.create_task(one(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(start, line)
        loop.call_soon_threadsafe(over.set)
        threading.Event().wait(_CLEAN_SECONDS)
        os._exit(1)  # the loop hangs, or what is left to do

    threading.Thread(target=read, daemon=True).start()
    await over.wait()


def _told(error: BaseException) -> str:
    """An error with its causes."""
    words = []
    while error is not None:
        words.append(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        error = error.__cause__  # type: ignore[assignment]
    return ", because of ".join(words)
